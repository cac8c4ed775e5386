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

from luod.ctl.bars import Pen, Scale, Stroke, draw
from luod.ctl.output import visible

_PLAIN_WIDTH: Final = 80
_WIDEST: Final = 120
_COLOURS: Final = {"kernel": "magenta", "luod": "cyan", "archive": "green", "cache": "yellow", "vm": "bright_blue"}
_WHO: Final = 8
_ERASED: Final = "\r\x1b[K"


class Doing(IntEnum):
    """What a part of a bar stands for. Where two share a place, the higher one is seen."""

    UP = 0
    STARTING = 1
    WORK = 2
    LUOD = 3
    DARK = 4


_PENS: Final = {
    Doing.UP: Pen("·", "."),
    Doing.STARTING: Pen("╌", "-"),
    Doing.WORK: Pen("─", "~"),
    Doing.LUOD: Pen("━", "="),
    Doing.DARK: Pen("█", "#"),
}

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
        scale = Scale(self.begun, end, width)
        rows = Table.grid(padding=(0, 1, 0, 0))
        for column in (_WHO - 1, label + 1, width):
            rows.add_column(width=column, no_wrap=True)
        rows.add_column(width=7, no_wrap=True, justify="right")
        rows.add_row("", "", Text(scale.ticks(), "dim"), Text("took", "dim"))
        for bar in bars:
            style = _COLOURS.get(bar.who, "red")
            strokes = [
                Stroke(_PENS[doing], style if doing >= Doing.WORK else f"dim {style}", start, end)
                for doing, start, end in sorted(bar.parts)
            ]
            drawn = draw(strokes, scale, ascii_only=self._ascii, lines={scale.cell(kexec): "dim"})
            rows.add_row(Text(bar.who, style), bar.what, drawn, duration(bar.seconds))
        self._print(rows)
        legend = [f"{2 * _PENS[doing].drawn(ascii_only=self._ascii)} {meaning}" for doing, meaning in _LEGEND.items()]
        self._print(Text("  ".join(legend), "dim"))

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


def duration(seconds: float) -> str:
    """As people read it: 1.2 ms, 0.35 s."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"
