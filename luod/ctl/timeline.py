"""luoctl timeline: where the time of a live update went."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from luod.ctl.bars import LINE, Pen, Scale, Stroke, draw
from luod.ctl.captions import heading, shown_clients, shown_from, summary
from luod.ctl.command import Command, Failed, Options
from luod.ctl.link import luod_at
from luod.ctl.output import print_json, show, styled, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from luod.timeline import Client, Part, Timeline

_PLAIN_WIDTH: Final = 80
_WIDEST: Final = 120
_LABEL_MOST: Final = 24
_CLIENTS_MOST: Final = 16
_WORK = Pen("─", "-")
_DARK = Pen("█", "#")
_AWAY = Pen("╌", "~")
_THERE = Pen("·", ".")
_READY = Pen("◆", "*")
_REFUSED = Pen("✗", "x")
_DONE = Pen("■", "o")
_EARLIER = Pen("◂", "<")
_LATER = Pen("▸", ">")


@click.command("timeline", cls=Command)
@click.option("--generation", type=click.IntRange(min=1), help="Of the live update that led to this one.")
@click.option(
    "--svg", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it as SVG into FILE."
)
@click.pass_obj
def timeline_command(options: Options, *, generation: int | None, svg: Path | None) -> None:
    """Show where the time of the last live update went.

    Seconds are counted from the beginning of the blackout, which is when the owners of sessions aren't at work: from
    their pause until each has its first descriptor again. With --json: the reply of io.luod.Update.Timeline, and what
    is made of it as `timeline`.
    """
    from luod.timeline import timeline

    with luod_at(options) as luod:
        reply = luod.timeline(generation)
    told = timeline(reply.generation, reply.events)
    if options.json:
        print_json({**reply.wire(), **({} if told is None else {"timeline": told.wire()})})
        return
    if told is None:
        raise Failed(
            "nothing is known of any live update" if generation is None else f"nothing is known of {generation}"
        )
    if svg is not None:
        from luod.ctl.picture import drawn

        try:
            svg.write_text(drawn(told), encoding="utf-8")
        except OSError as error:
            raise Failed(f"can't write {svg}: {error.strerror}") from None
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    show(*shown(told, width(), ascii_only=ascii_only), plain_width=_PLAIN_WIDTH)


def width() -> int:
    """How wide the picture may be."""
    if not sys.stdout.isatty():
        return _PLAIN_WIDTH
    from rich.console import Console

    return min(Console().width, _WIDEST)


def shown(told: "Timeline", columns: int, *, ascii_only: bool) -> "list[RenderableType]":
    """What there is to see, so many columns wide."""
    from rich.text import Text

    bars = _Bars(told, columns, ascii_only=ascii_only)
    said = Text("\n").join([*(Text(visible(text), style) for text, style in _sentences(told))])
    picture: list[RenderableType] = [styled(heading(told), "bold"), bars.table(), bars.legend()]
    return [*picture, said] if said else picture


def _sentences(told: "Timeline") -> list[tuple[str, str]]:
    styles = ("bold red", "")
    return [*zip(summary(told), styles, strict=False), *((f"({note})", "dim") for note in told.notes)]


class _Bars:
    """A line for each part and for each client, on one scale."""

    def __init__(self, told: "Timeline", columns: int, *, ascii_only: bool) -> None:
        self._told = told
        self._clients, self._others = shown_clients(told, _CLIENTS_MOST)
        self._ascii = ascii_only
        self._labels = min(max(len(label) for label in self._all_labels()), _LABEL_MOST)
        self._start = shown_from(told)
        zero = told.start if told.blackout is None else told.blackout.start
        self._scale = Scale(
            self._start / 1e6, told.end / 1e6, max(columns - self._labels - 3 - 10 - 10, 10), zero / 1e6
        )
        edges = [] if told.blackout is None else [told.blackout.start]
        edges += [] if told.left is None else [told.left]
        self._lines = {self._scale.cell(edge / 1e6): "dim" for edge in edges}

    def _all_labels(self) -> list[str]:
        return [*(part.title for part in self._told.parts), *(visible(client.who) for client in self._clients)]

    def table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        from luod.timeline import duration

        rows = Table.grid(padding=(0, 1, 0, 0))
        rows.add_column(width=self._labels, no_wrap=True, overflow="ellipsis")
        rows.add_column(width=self._scale.width, no_wrap=True)
        rows.add_column(width=10, no_wrap=True, justify="right")
        rows.add_column(width=10, no_wrap=True, justify="right")
        dark = self._told.blackout is not None
        rows.add_row("", Text(self._scale.ticks(), "dim"), Text("took", "dim"), Text("blackout" if dark else "", "dim"))
        for part in self._told.parts:
            share = f"{part.share:.1f} %" if part.dark else ""
            rows.add_row(part.title, self._part(part), duration(part.usec), Text(share, "red"))
        if self._clients:
            rows.add_row()
        for client in self._clients:
            took = "" if client.blackout is None else duration(client.blackout)
            rows.add_row(self._cut(client.who), self._client(client), "", Text(took, "red"))
        if self._others:
            rows.add_row("", Text(self._others, "dim"))
        return rows

    def _cut(self, who: str) -> str:
        text = visible(who)
        return text if len(text) <= self._labels else text[: self._labels - 1] + ("~" if self._ascii else "…")

    def _part(self, part: "Part") -> "Text":
        strokes = [self._stroke(_WORK, "cyan", part.start, part.end)]
        if part.dark and self._told.blackout is not None:
            dark = self._told.blackout
            strokes.append(self._stroke(_DARK, "red", max(part.start, dark.start), min(part.end, dark.end)))
        return self._drawn(strokes, part.start)

    def _client(self, client: "Client") -> "Text":
        told, strokes = self._told, []
        if client.answered is not None:
            refused = client.answer != "ready"
            strokes.append(self._stroke(_WORK, "green", told.start, client.answered))
            strokes.append(self._at(_REFUSED if refused else _READY, "red" if refused else "green", client.answered))
        if told.blackout is not None and client.first is not None:
            came = not client.late
            back = client.first if came else told.end
            strokes.append(self._stroke(_DARK if came else _AWAY, "red", told.blackout.start, back))
            if client.late:
                strokes.append(self._at(_LATER, "red", told.end))
        if client.first is not None and client.finished is not None and not client.late:
            strokes.append(self._stroke(_THERE, "green", client.first, client.finished))
            strokes.append(self._at(_DONE, "green", client.finished))
        began = told.start if client.answered is not None else None
        return self._drawn(strokes, began)

    def _drawn(self, strokes: list[Stroke], began: int | None) -> "Text":
        if began is not None and began < self._start:
            strokes.append(self._at(_EARLIER, strokes[0].style, self._start))
        seen = [stroke for stroke in strokes if stroke.end * 1e6 >= self._start]
        return draw(seen, self._scale, ascii_only=self._ascii, lines=self._lines)

    def _stroke(self, pen: Pen, style: str, start: int, end: int) -> Stroke:
        return Stroke(pen, style, start / 1e6, end / 1e6)

    def _at(self, pen: Pen, style: str, usec: int) -> Stroke:
        return self._stroke(pen, style, usec, usec)

    def legend(self) -> "Text":
        from rich.text import Text

        there = {client.answer for client in self._clients}
        dark = self._told.blackout is not None
        known = [
            (2, _WORK, "before it", dark),
            (2, _DARK, "blackout", dark),
            (1, LINE, "its beginning, and the kexec", dark),
            (1, _READY, "ready", "ready" in there),
            (1, _REFUSED, "not ready", bool(there & {"veto", "unready"})),
            (2, _AWAY, "away", any(client.late for client in self._clients)),
            (1, _DONE, "finished", any(client.finished is not None for client in self._clients)),
        ]
        drawn = [f"{times * pen.drawn(ascii_only=self._ascii)} {what}" for times, pen, what, has in known if has]
        return Text("  ".join(drawn), "dim")
