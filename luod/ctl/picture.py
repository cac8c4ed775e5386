"""The timeline of a live update as SVG: a picture to keep, which needs nothing else, in light and in dark."""

from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from luod.ctl.captions import heading, shown_clients, shown_from, summary
from luod.timeline import Client, Part, Timeline, duration

_WIDTH: Final = 960
_MARGIN: Final = 24
_CLIENTS_MOST: Final = 24
_LABELS: Final = 190
_NUMBERS: Final = 150
_ROW: Final = 24
_BAR: Final = 14
_LETTER: Final = 6.9
"""How wide a letter is at most, on the average, at 13 pixels."""

_STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200)
_TICK_ROOM: Final = 70
_SHADES: Final = {
    "stopped": 1,
    "kexec": 2,
    "last": 2,
    "kernel": 3,
    "pid1": 4,
    "userspace": 4,
    "begin": 5,
    "serving": 6,
    "back": 7,
}
"""Which colour a part has, so that it has the same one in every picture; 0 what isn't here."""

_SHAPES: Final = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
.title { font-size: 17px; font-weight: 600; } .dark { font-size: 15px; font-weight: 600; }
.small { font-size: 11px; } .right { text-anchor: end; } .middle { text-anchor: middle; }
.inside { font-size: 12px; text-anchor: middle; } .edge { stroke-dasharray: 3 3; }
.away { fill: none; stroke-dasharray: 4 3; } .there { stroke-width: 2; stroke-dasharray: 2 3; }"""

_COLOURS: Final = """\
text { fill: INK; } .paper, .inside { fill: PAPER; } .faint { fill: FAINT; } .edge { stroke: FAINT; }
.grid { stroke: GRID; } .work { fill: WORK; } .good { fill: GOOD; } .there { stroke: GOOD; } .bad, .dark { fill: BAD; }
.away { stroke: BAD; }"""

_INK: Final = ("PAPER", "INK", "FAINT", "GRID", "WORK", "GOOD", "BAD")
_LIGHT: Final = (
    *("#fff", "#1b1f24", "#5f6977", "#e3e7ec", "#9fb3c8", "#1a7f4b", "#c62828"),
    *("#2b8a7e", "#a8620a", "#8a5a44", "#2f6fb3", "#7a55b0", "#c2571a", "#5c7a1f", "#b0357a"),
)
_DARK: Final = (
    *("#14171c", "#e6e9ee", "#98a2b0", "#2b313a", "#51677e", "#4cc38a", "#ff7b72"),
    *("#56bfb0", "#e9b13c", "#c79a82", "#69a5e6", "#b394dc", "#f58a4b", "#a3c45c", "#ee82b8"),
)
"""What the names stand for, and then the shades of parts. Not everything that draws an SVG knows variables."""


def _coloured(colours: Sequence[str]) -> str:
    rules = _COLOURS
    for name, colour in zip(_INK, colours, strict=False):
        rules = rules.replace(name, colour)
    shades = [f".s{number} {{ fill: {colour}; }}" for number, colour in enumerate(colours[len(_INK) :])]
    return f"{rules}\n{' '.join(shades)}"


_STYLE: Final = f"""\
{_SHAPES}
{_coloured(_LIGHT)}
@media (prefers-color-scheme: dark) {{
{_coloured(_DARK)}
}}"""


def drawn(told: Timeline) -> str:
    """The picture: what the blackout was made of, then each part and each client on one scale."""
    return "\n".join(_Picture(told).lines()) + "\n"


class _Picture:
    def __init__(self, told: Timeline) -> None:
        self._told = told
        self._clients, self._others = shown_clients(told, _CLIENTS_MOST)
        self._from = shown_from(told)
        self._zero = told.start if told.blackout is None else told.blackout.start
        self._left = _MARGIN + _LABELS
        self._right = _WIDTH - _MARGIN - _NUMBERS
        self._per_usec = (self._right - self._left) / max(told.end - self._from, 1)

    def lines(self) -> Iterator[str]:
        body: list[str] = []
        y = _MARGIN + 18
        body.append(_text(_MARGIN, y, heading(self._told), "title"))
        for number, sentence in enumerate(summary(self._told)):
            y += 24
            body.append(_text(_MARGIN, y, sentence, "" if number else "dark"))
        y += 16
        if self._told.blackout is not None:
            body += self._blackout(y)
            y += 46
        y, rows = self._rows(y + 28)
        body += rows
        for note in (*self._legend(), *self._told.notes):
            y += 18
            body.append(_text(_MARGIN, y, note, "faint small"))
        height = y + _MARGIN
        size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">'
        yield f'<title id="title">{_safe(heading(self._told))}</title>'
        yield f'<desc id="desc">{_safe(" ".join(self._described()))}</desc>'
        yield f"<style>\n{_STYLE}\n</style>"
        yield f'<rect class="paper" width="{_WIDTH}" height="{height}"/>'
        yield from body
        yield "</svg>"

    def _legend(self) -> Iterator[str]:
        known = {
            "\N{BLACK DIAMOND} when it was ready, or not": any(client.answered for client in self._clients),
            "\N{BLACK SQUARE} when it finished its session": any(client.finished for client in self._clients),
            "\N{BOX DRAWINGS LIGHT TRIPLE DASH VERTICAL} the blackout begins; the old kernel is gone": self._told.left,
        }
        if said := [text for text, is_there in known.items() if is_there]:
            yield " \N{MIDDLE DOT} ".join(said)

    def _described(self) -> Iterator[str]:
        """What the picture shows, for whoever can't see it."""
        yield from summary(self._told)
        for part in self._told.parts:
            share = f", {part.share:.1f} % of the blackout" if part.dark else ""
            yield f"{part.title}: {duration(part.usec)}{share}."
        for client in self._told.clients:
            if client.blackout is not None:
                yield f"{client.who}: first descriptor after {duration(client.blackout)}."
        yield from (f"{note}." for note in self._told.notes)

    # What the blackout was made of

    def _blackout(self, y: int) -> Iterator[str]:
        """All of it in one bar, each part as wide as its share."""
        dark = self._told.blackout
        whole = _WIDTH - 2 * _MARGIN
        x = float(_MARGIN)
        for part in self._told.parts:
            if dark is None or not part.dark:
                continue
            wide = whole * part.dark / dark.usec
            tip = f"{part.title}: {duration(part.dark)}, {part.share:.1f} %"
            yield _rect(x, y, max(wide - 1, 0.5), 34, f'class="{_shade(part)}"', tip)
            if len(part.title) * _LETTER + 10 < wide:
                yield _text(x + wide / 2, y + 15, part.title, "inside")
                yield _text(x + wide / 2, y + 29, f"{part.share:.0f} %", "inside")
            elif wide > 34:
                yield _text(x + wide / 2, y + 22, f"{part.share:.0f} %", "inside")
            x += wide

    # The scale, and what is on it

    def _x(self, usec: int) -> float:
        return min(max(self._left + (usec - self._from) * self._per_usec, self._left), self._right)

    def _rows(self, top: int) -> tuple[int, list[str]]:
        """All rows from `top` on, and where they end."""
        told = self._told
        drawn: list[str] = []
        y = top + 10
        for part in told.parts:
            drawn += self._part(part, y)
            y += _ROW
        if self._clients:
            y += 10
        for client in self._clients:
            drawn += self._client(client, y)
            y += _ROW
        if self._others:
            drawn.append(_text(_MARGIN, y + 11, self._others, "faint"))
            y += _ROW
        return y + 4, [*self._axis(top, y), *drawn]

    def _axis(self, top: int, bottom: int) -> Iterator[str]:
        yield _text(_WIDTH - _MARGIN - 72, top, "took", "faint small right")
        if self._told.blackout is not None:
            yield _text(_WIDTH - _MARGIN, top, "blackout", "faint small right")
        step = next((step for step in _STEPS if step * 1e6 * self._per_usec >= _TICK_ROOM), _STEPS[-1])
        number = -int((self._zero - self._from) / (step * 1e6))
        while (usec := self._zero + round(number * step * 1e6)) <= self._told.end:
            x = self._x(usec)
            yield f'<line class="grid" x1="{x:.1f}" y1="{top + 6}" x2="{x:.1f}" y2="{bottom}"/>'
            yield _text(x, top, f"{number * step:g} s", "faint small middle")
            number += 1
        for edge in ([] if self._told.blackout is None else [self._told.blackout.start]) + (
            [] if self._told.left is None else [self._told.left]
        ):
            x = self._x(edge)
            yield f'<line class="edge" x1="{x:.1f}" y1="{top + 6}" x2="{x:.1f}" y2="{bottom}"/>'

    def _part(self, part: Part, y: int) -> Iterator[str]:
        tip = f"{part.title}: {duration(part.usec)}"
        yield self._label(part.title, y)
        if part.end >= self._from:
            yield self._bar(part.start, part.end, y, 'class="work"', tip)
        if part.start < self._from:
            yield self._earlier(y, "work")
        if part.dark and self._told.blackout is not None:
            dark = self._told.blackout
            shade = f'class="{_shade(part)}"'
            yield self._bar(max(part.start, dark.start), min(part.end, dark.end), y, shade, tip)
            yield _text(_WIDTH - _MARGIN, y + 11, f"{part.share:.1f} %", "right")
        yield _text(_WIDTH - _MARGIN - 72, y + 11, duration(part.usec), "faint right")

    def _client(self, client: Client, y: int) -> Iterator[str]:
        told, middle = self._told, y + _BAR / 2
        yield self._label(client.who, y)
        if client.answered is not None:
            good = "good" if client.answer == "ready" else "bad"
            x = self._x(client.answered)
            if client.answered >= self._from:
                yield self._bar(told.start, client.answered, y + 5, 'class="work"', "", 4)
                reason = f": {client.reason}" if client.reason else ""
                yield _diamond(x, middle, good, f"{client.who}: {client.answer}{reason}")
            if told.start < self._from:
                yield self._earlier(y, "work" if client.answered >= self._from else good)
        if told.blackout is None or client.first is None:
            return
        if client.late:
            yield self._bar(told.blackout.start, told.end, y, 'class="away"', f"{client.who} came later")
        else:
            tip = f"{client.who}: {duration(client.blackout or 0)}"
            yield self._bar(told.blackout.start, client.first, y, 'class="bad"', tip)
            if client.finished is not None:
                x = self._x(client.finished)
                yield f'<line class="there" x1="{self._x(client.first):.1f}" y1="{middle}" x2="{x:.1f}" y2="{middle}"/>'
                yield _rect(x - 3, middle - 3, 6, 6, 'class="good"', f"{client.who}: finished")
        if client.blackout is not None:
            yield _text(_WIDTH - _MARGIN, y + 11, duration(client.blackout), "right")

    def _label(self, text: str, y: int) -> str:
        most = int((_LABELS - 12) / _LETTER)
        short = text if len(text) <= most else f"{text[: most - 1]}…"
        return f"<g>{_title(text) if short != text else ''}{_text(_MARGIN, y + 11, short, '')}</g>"

    def _bar(self, start: int, end: int, y: float, look: str, tip: str, high: float = _BAR) -> str:
        x = self._x(start)
        return _rect(x, y, max(self._x(end) - x, 1.5), high, look, tip)

    def _earlier(self, y: int, look: str) -> str:
        """It began before the picture does."""
        x, middle = self._left - 2, y + _BAR / 2
        return f'<path class="{look}" d="M{x} {middle - 5} v10 l-6 -5 z">{_title("it began earlier")}</path>'


def _shade(part: Part) -> str:
    return f"s{_SHADES.get(part.what, 0)}"


def _safe(text: str) -> str:
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def _title(text: str) -> str:
    return f"<title>{_safe(text)}</title>" if text else ""


def _text(x: float, y: float, text: str, look: str) -> str:
    return f'<text class="{look}" x="{x:g}" y="{y:g}">{_safe(text)}</text>'.replace(' class=""', "")


def _rect(x: float, y: float, wide: float, high: float, look: str, tip: str) -> str:
    return f'<rect {look} x="{x:.1f}" y="{y:g}" width="{wide:.1f}" height="{high:g}" rx="1.5">{_title(tip)}</rect>'


def _diamond(x: float, y: float, look: str, tip: str) -> str:
    return f'<path class="{look}" d="M{x:.1f} {y - 6} l6 6 l-6 6 l-6 -6 z">{_title(tip)}</path>'
