"""What the demo shows: a line for everything that happens, as it happens, and the timeline of it all at the end."""

import io
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from luod.ctl.output import visible

_PLAIN_WIDTH: Final = 80
_WIDEST: Final = 120
_COLOURS: Final = {"kernel": "magenta", "luod": "cyan", "archive": "green", "cache": "yellow", "vm": "bright_blue"}
_WHO: Final = 8
_ERASED: Final = "\r\x1b[K"
_TICKS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
_TICK_ROOM: Final = 7


class Doing(IntEnum):
    """What a part of a bar stands for. Where two share a place, the higher one is seen."""

    UP = 0
    STARTING = 1
    WORK = 2
    LUOD = 3
    DARK = 4


_PENS: Final = {Doing.UP: "·.", Doing.STARTING: "╌-", Doing.WORK: "─~", Doing.LUOD: "━=", Doing.DARK: "█#"}
"""How it is drawn, in UTF-8 and in ASCII."""

_LEGEND: Final = {
    Doing.STARTING: "starts",
    Doing.UP: "is there",
    Doing.WORK: "client works",
    Doing.LUOD: "luod works",
    Doing.DARK: "nobody there",
}


Part: TypeAlias = tuple[Doing, float, float]
"""What was done, from when to when, by the monotonic clock."""


@dataclass(frozen=True)
class Bar:
    """A line of the timeline."""

    who: str
    what: str
    parts: Sequence[Part]

    @property
    def seconds(self) -> float:
        return max(end for _, _, end in self.parts) - min(start for _, start, _ in self.parts)


class Screen:
    """Standard output: as wide as the terminal, plain where there is none."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self._console = Console(
            color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
            width=None if terminal else _PLAIN_WIDTH,
            highlight=False,
            emoji=False,
        )
        if self._console.width > _WIDEST:
            self._console.width = _WIDEST
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        self._ascii = not self._console.encoding.startswith("utf")
        self._awaited: list[str] = []
        self._animated = terminal and not self._console.is_dumb_terminal
        self.begun = time.monotonic()

    def heading(self, text: str) -> None:
        self._print(Text(f"\n{text}", "bold"))

    def line(self, who: str, text: str, style: str = "", at: float | None = None) -> None:
        """Say who did what. `at` is when, by the monotonic clock; now, if nobody says."""
        elapsed = (time.monotonic() if at is None else at) - self.begun
        self._row(f"{elapsed:.2f}" if elapsed < 100 else f"{elapsed:.1f}", who, text, style)

    def note(self, text: str) -> None:
        """Explain what stands above."""
        self._row("", "", text, "dim")

    def _row(self, elapsed: str, who: str, text: str, style: str) -> None:
        columns = Table.grid(padding=(0, 2, 0, 0))
        columns.add_column(width=5, justify="right", style="dim")
        columns.add_column(width=_WHO - 1, style=_COLOURS.get(who, ""))
        columns.add_column(overflow="fold")
        columns.add_row(elapsed, who, Text(visible(text), style))
        self._print(columns)

    def log(self, who: str, lines: Iterable[str]) -> None:
        """Show what somebody wrote to standard error."""
        lines = list(lines)
        self._print(Text(f"\nThe log of {who}" + (":" if lines else " is empty."), "bold red"))
        for line in lines:
            self._print(Text(f"  {visible(line)}"))

    def say(self, text: str = "", style: str = "") -> None:
        self._print(Text(text, style))

    def last(self, text: str, style: str) -> None:
        """The last line: whole, however narrow the terminal."""
        self._print(Text(f"\n{text}", style), soft_wrap=True)

    @contextmanager
    def waiting(self, who: str) -> Iterator[None]:
        """Show on a terminal who is waited for, for as long as this lasts."""
        self._awaited.append(who)
        self._show_awaited()
        try:
            yield
        finally:
            self._awaited.remove(who)
            self._show_awaited()

    def timeline(self, bars: Sequence[Bar], kexec: float) -> None:
        """Draw the bars under one another, and where among them the kexec was."""
        end = max(end for bar in bars for _, _, end in bar.parts)
        label = max(len(bar.what) for bar in bars)
        width = self._console.width - _WHO - 1 - label - 2 - 9
        scale = _Scale(self.begun, end, width)
        rows = Table.grid(padding=(0, 1, 0, 0))
        for column in (_WHO - 1, label + 1, width):
            rows.add_column(width=column, no_wrap=True)
        rows.add_column(width=7, no_wrap=True, justify="right")
        rows.add_row("", "", Text(scale.ticks(), "dim"), Text("took", "dim"))
        for bar in bars:
            style = _COLOURS.get(bar.who, "red")
            drawn = self._drawn(bar, scale, scale.cell(kexec), style)
            rows.add_row(Text(bar.who, style), bar.what, drawn, duration(bar.seconds))
        self._print(rows)
        legend = [f"{2 * self._pen(doing)} {meaning}" for doing, meaning in _LEGEND.items()]
        self._print(Text("  ".join(legend), "dim"))

    def _pen(self, doing: Doing) -> str:
        return _PENS[doing][self._ascii]

    def _drawn(self, bar: Bar, scale: "_Scale", kexec: int, style: str) -> Text:
        cells: list[Doing | None] = [None] * scale.width
        for doing, start, end in sorted(bar.parts):
            first, last = scale.cell(start), scale.cell(end)
            cells[first : last + 1] = [doing] * (last + 1 - first)
        drawn = Text()
        for number, cell in enumerate(cells):
            if cell is not None:
                drawn.append(self._pen(cell), style if cell >= Doing.WORK else f"dim {style}")
            elif number == kexec:
                drawn.append("|" if self._ascii else "│", "dim")
            else:
                drawn.append(" ")
        return drawn

    def _print(self, what: RenderableType, *, soft_wrap: bool = False) -> None:
        with self._console.capture() as captured:
            self._console.print(what, soft_wrap=soft_wrap)
        text = "\n".join(line.rstrip() for line in captured.get().splitlines())
        print(f"{_ERASED}{text}" if self._awaited and self._animated else text, flush=True)
        if self._awaited:
            self._show_awaited()

    def _show_awaited(self) -> None:
        """The line below the last one, until there is something to say."""
        if self._animated:
            text = f"{' ' * _WHO}… waiting for {', '.join(self._awaited)}" if self._awaited else ""
            print(f"{_ERASED}{text[: self._console.width - 1]}", end="", flush=True)


class _Scale:
    """Where a moment is, in cells of a bar."""

    def __init__(self, start: float, end: float, width: int) -> None:
        self.width = width
        self._start = start
        self._cells_per_second = width / max(end - start, 0.001)

    def cell(self, moment: float) -> int:
        return min(max(int((moment - self._start) * self._cells_per_second), 0), self.width - 1)

    def ticks(self) -> str:
        """Seconds, above the cells where they begin."""
        step = next((tick for tick in _TICKS if tick * self._cells_per_second >= _TICK_ROOM), _TICKS[-1])
        line, number = "", 0
        while (place := round(number * step * self._cells_per_second)) + _TICK_ROOM <= self.width:
            line = line.ljust(place) + (f"{number * step:g}" if number else "0 s")
            number += 1
        return line


def duration(seconds: float) -> str:
    """As people read it: 1.2 ms, 0.35 s."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"
