"""The progress of a live update on the screen: a block that changes in place, plain lines, or JSON.

The block stands below lines that stay, one for each phase. It is drawn as a whole in one write, over the one that was
there, and only where something has changed.
"""

import json
import os
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from luod.ctl.output import visible

if TYPE_CHECKING:
    from luod.client import Progress

_MEANING: Final = {
    "sealed": "nothing that luod holds can change any more",
}
_INDENT: Final = 21
_BESIDE: Final = 4
"""How many lines of the terminal are left to what isn't about somebody."""

_GREEN, _YELLOW, _RED, _DIM = "32", "33", "1;31", "2"


class Display(Protocol):
    """Where the progress is shown."""

    def show(self, progress: "Progress") -> None: ...

    def tick(self) -> None:
        """Some time has passed."""

    def say(self, what: str, text: str) -> None:
        """A line that stays."""

    def stop(self, reason: str) -> None:
        """Somebody wants an end of it, and it is still to come."""

    def close(self) -> None:
        """Take away what doesn't stay."""


def display(*, as_json: bool) -> Display:
    """What suits whoever reads standard output."""
    if as_json:
        return Json()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return Live()
    return Lines()


class Line(NamedTuple):
    """A line of the block, with its style (ECMA-48, SGR)."""

    text: str
    style: str = ""


class Json:
    """Each reply on a line."""

    def show(self, progress: "Progress") -> None:
        print(json.dumps(progress.wire()), flush=True)

    def tick(self) -> None:
        pass

    def say(self, what: str, text: str) -> None:
        pass

    def stop(self, reason: str) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """A line for each change."""

    def __init__(self) -> None:
        self._phase = ""
        self._detail: str | None = None
        self._roll = Roll()

    def show(self, progress: "Progress") -> None:
        before = dict(self._roll.answers)
        self._roll.take(progress)
        if progress.phase != self._phase:
            self.say(progress.phase, about(progress))
        if progress.detail and progress.detail not in (self._detail, about(progress)):
            self.say(progress.phase, progress.detail)
        for each, answer in self._roll.answers.items():
            if before.get(each) != answer:
                self.say(progress.phase, f"{each[0]}: {answer}")
        self._phase, self._detail = progress.phase, progress.detail

    def tick(self) -> None:
        pass

    def say(self, what: str, text: str) -> None:
        print(stamped(what, text), flush=True)

    def stop(self, reason: str) -> None:
        self.say("aborting", reason)

    def close(self) -> None:
        pass


class Live:
    """A block that changes, and lines that stay, on a terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._roll = Roll()
        self._hint = "Ctrl-C brings everything back"
        self._block: list[Line] = []
        self._columns = _size().columns

    def show(self, progress: "Progress") -> None:
        is_new = self._progress is None or progress.phase != self._progress.phase
        self._progress = progress
        self._roll.take(progress)
        if is_new:
            self.say(progress.phase, about(progress))
        self.tick()

    def tick(self) -> None:
        block = list(self._lines())
        if block != self._block:
            self._draw("", block)

    def say(self, what: str, text: str) -> None:
        width = _size().columns - 1
        lines = textwrap.wrap(stamped(what, text), max(width, _INDENT + 10), subsequent_indent=" " * _INDENT)
        self._draw("".join(f"{line}\x1b[K\n" for line in lines), list(self._lines()))

    def stop(self, reason: str) -> None:
        self._hint = "Ctrl-C once more doesn't wait for it"
        self.say("aborting", reason)

    def close(self) -> None:
        self._progress = None
        self._draw("", [])

    def _draw(self, above: str, block: list[Line]) -> None:
        """Put a new block in the place of the old one, below what stays."""
        columns = _size().columns
        height = sum(-(-max(_width(line.text), 1) // columns) for line in self._block)
        up = f"\r\x1b[{height}A" if height else "\r"
        if columns != self._columns:  # the terminal remembers which lines it broke, unless they are erased
            up, self._columns = f"{up}\x1b[J", columns
        drawn = "".join(f"{_in_style(_cut(line.text, columns - 1), line.style)}\x1b[K\n" for line in block)
        sys.stdout.write(f"{up}{above}{drawn}\x1b[J")
        sys.stdout.flush()
        self._block = [Line(_cut(line.text, columns - 1), line.style) for line in block]

    def _lines(self) -> Iterator[Line]:
        progress = self._progress
        if progress is None or progress.phase == "executing":
            return
        columns, rows = _size()
        left = time_left(progress) if progress.phase == "preparing" else None
        facts = [self._roll.sum(progress) if self._roll.answers else None, left, progress.detail]
        if said := ", ".join(fact for fact in facts if fact):
            yield Line(_cut(f"  {visible(said)}", columns - 1))
        if progress.phase == "preparing":
            yield from (line._replace(text=_cut(line.text, columns - 1)) for line in self._people(rows - _BESIDE))
        yield Line(_cut(f"  {self._hint}", columns - 1), _DIM)

    def _people(self, most: int) -> Iterator[Line]:
        """Who takes part, and what they answered; who isn't ready first, where not all have room."""
        answers = list(self._roll.answers.items())
        if len(answers) > most:
            answers.sort(key=lambda each: each[1] == READY)
        shown = answers[: max(most - 1, 1)] if len(answers) > most else answers
        yield from (Line(f"    {visible(f'{who}: {answer}')}", _style(answer)) for (who, _), answer in shown)
        if len(shown) < len(answers):
            yield Line(f"    and {len(answers) - len(shown)} more", _DIM)


READY: Final = "ready"


class Roll:
    """Who takes part, and what they answered, as far as those who are waited for were named: `WHO: WHY`. Several may
    have one name.
    """

    def __init__(self) -> None:
        self.answers: dict[tuple[str, int], str] = {}

    def take(self, progress: "Progress") -> None:
        waiting: dict[tuple[str, int], str] = {}
        namesakes = Counter[str]()
        for line in progress.waiting:
            who, _, why = line.partition(": ")
            waiting[who, namesakes[who]] = why
            namesakes[who] += 1
        self.answers = dict.fromkeys(self.answers, READY) | waiting

    def sum(self, progress: "Progress") -> str:
        return f"{progress.ready} of {progress.ready + len(progress.waiting)} ready"


def about(progress: "Progress") -> str:
    """What a phase that begins is about."""
    everybody = progress.ready + len(progress.waiting)
    match progress.phase:
        case "preparing":
            number = None if progress.update is None else f"live update {progress.update}"
            left = None if (time := time_left(progress)) is None else f"{time} to get ready"
            return ", ".join(each for each in (number, left) if each)
        case "ready" if progress.waiting:
            return f"{progress.ready} of {everybody}, going on without {'; '.join(progress.waiting)}"
        case "ready":
            return f"all {everybody} who take part" if everybody else "nobody takes part"
        case "executing":
            return progress.detail or "the machine is on its way"
    return _MEANING.get(progress.phase, "")


def time_left(progress: "Progress") -> str | None:
    """How long there is until the deadline."""
    if progress.deadline_usec is None:
        return None
    return seconds_left(progress.deadline_usec)


def seconds_left(deadline_usec: int) -> str:
    """How long there is until a CLOCK_REALTIME time in microseconds: 18 s left."""
    return f"{max(0, round(deadline_usec / 1_000_000 - time.time()))} s left"


def stamped(what: str, text: str) -> str:
    return visible(f"{datetime.now():%H:%M:%S}  {what:9}  {text}".rstrip())


def _style(answer: str) -> str:
    if answer == READY:
        return _GREEN
    return _RED if answer.startswith(("refused", "went away")) else _YELLOW


def _size() -> os.terminal_size:
    return shutil.get_terminal_size()


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    from rich.cells import set_cell_size

    return text if _width(text) <= width else set_cell_size(text, max(width - 3, 0)) + "..."[: max(width, 0)]


def _in_style(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[m" if style and not os.environ.get("NO_COLOR") else text
