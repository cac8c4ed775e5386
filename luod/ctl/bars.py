"""Bars on a scale of time, in the cells of a terminal: UTF-8, or ASCII where that can't be written."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from rich.text import Text

_STEPS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
_STEP_ROOM: Final = 7


class Pen(NamedTuple):
    """What a part of a bar is drawn with."""

    utf8: str
    ascii: str

    def drawn(self, *, ascii_only: bool) -> str:
        return self.ascii if ascii_only else self.utf8


class Stroke(NamedTuple):
    """A part of a bar: from when to when, in seconds. Of two that share a cell the later one is seen."""

    pen: Pen
    style: str
    start: float
    end: float


LINE: Final = Pen("│", "|")


class Scale:
    """Where a moment is, in cells. Moments are in seconds; `zero` is the one that the others are counted from."""

    def __init__(self, start: float, end: float, width: int, zero: float | None = None) -> None:
        self.width = width
        self._start = start
        self._zero = start if zero is None else zero
        self._cells_per_second = width / max(end - start, 0.001)

    def cell(self, moment: float) -> int:
        return min(max(int((moment - self._start) * self._cells_per_second), 0), self.width - 1)

    def ticks(self) -> str:
        """Seconds, above the cells where they begin."""
        step = next((step for step in _STEPS if step * self._cells_per_second >= _STEP_ROOM), _STEPS[-1])
        while step * self._cells_per_second < _STEP_ROOM:
            step *= 2
        line, number = "", math.ceil((self._start - self._zero) / step - 1e-9)
        while (place := round((self._zero + number * step - self._start) * self._cells_per_second)) < self.width:
            if place + _STEP_ROOM <= self.width:
                line = line.ljust(place) + (f"{number * step:g}" if number else "0 s")
            number += 1
        return line


def draw(strokes: Iterable[Stroke], scale: Scale, *, ascii_only: bool, lines: Mapping[int, str]) -> "Text":
    """A bar. `lines` are the styles of vertical lines behind it, by their cells."""
    from rich.text import Text

    cells: list[tuple[str, str]] = [(" ", "")] * scale.width
    for cell, style in lines.items():
        cells[cell] = LINE.drawn(ascii_only=ascii_only), style
    for stroke in strokes:
        first, last = scale.cell(stroke.start), scale.cell(stroke.end)
        cells[first : last + 1] = [(stroke.pen.drawn(ascii_only=ascii_only), stroke.style)] * (last + 1 - first)
    return Text.assemble(*cells)
