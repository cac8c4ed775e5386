"""Where the time of a live update went: its parts, one after the other, and the blackout. From events; no I/O here.

The blackout is when owners of sessions aren't at work: from the moment when they are paused until each has its first
descriptor back. They are paused by a live update that goes `direct` with `freeze`, else with the first `frozen`, else
when everything is `sealed`; by `systemd`, which stops them in its order, with `leaving`; without any announcement, with
the last sign of life. All times are of the clock of the kernel that was left (CLOCK_REALTIME, in microseconds).
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from luod.blackbox import LEAVING, Event

SECOND: Final = 1_000_000

_OLD: Final = LEAVING | {"stopping", "stopped", "shutdown", "kexec", "last"}
"""What happened in the kernel that was left."""

_LEAVING: Final = {
    "asked": "clients get ready",
    "carried": "carry over",
    "network": "network",
    "loaded": "sync, load again",
    "freeze": "last checks",
    "frozen": "owners are paused",
    "sealed": "seal",
    "leaving": "last checks",
    "stopped": "services stop",
    "kexec": "systemd-shutdown",
    "aborted": "brought back",
}
_ARRIVING: Final = {
    "kernel": "kexec",
    "pid1": "kernel starts",
    "userspace": "initrd",
    "begin": "PID 1 starts luod",
    "serving": "luod starts",
}
"""The parts, each by what it ends with."""

_ANSWERS: Final = ("ready", "veto", "unready")
_CLOCKS_DIFFER: Final = SECOND
"""A kernel sets its clock from the RTC, in whole seconds."""

_STEP: Final = 20_000
"""The kernel tells in steps of 10 ms when a process began, and rounds down."""

_LATE: Final = 3
_LATE_AT_LEAST: Final = 5 * SECOND


@dataclass(frozen=True)
class Part:
    """A part of a live update. `dark` is how long of it the blackout was, and `share` what that is of it in percent."""

    what: str
    title: str
    start: int
    end: int
    dark: int = 0
    share: float = 0.0

    @property
    def usec(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Client:
    """Somebody who takes part or has sessions. `answer` is ready, veto or unready, and when. `blackout` is its own, in
    microseconds. `late`: it came so much later than luod that it was somewhere else.
    """

    who: str
    answer: str | None = None
    answered: int | None = None
    reason: str | None = None
    first: int | None = None
    finished: int | None = None
    blackout: int | None = None
    late: bool = False


@dataclass(frozen=True)
class Blackout:
    """From `start`, with the event `since`, until `end`: `who` had its first descriptor then, as the last one; luod
    served, where nobody has come.
    """

    start: int
    end: int
    since: str
    who: str | None

    @property
    def usec(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Timeline:
    """A live update. `left` is when the old kernel showed its last sign of life. `uncertain_usec`: so much there may be
    more or less between the two kernels. `notes` say what is to be known besides, for people.
    """

    generation: int
    via: str | None
    aborted: str | None
    start: int
    end: int
    left: int | None
    parts: Sequence[Part]
    clients: Sequence[Client]
    blackout: Blackout | None
    corrected_usec: int | None
    uncertain_usec: int
    notes: Sequence[str] = field(default=())

    def wire(self) -> Any:
        """As JSON, with names like those of the interface: what is None is left out."""
        dark = self.blackout
        whole = {
            "generation": self.generation,
            "via": self.via,
            "aborted": self.aborted,
            "startUSec": self.start,
            "endUSec": self.end,
            "leftUSec": self.left,
            "blackout": dark and {"startUSec": dark.start, "endUSec": dark.end, "since": dark.since, "who": dark.who},
            "parts": [
                {
                    "what": part.what,
                    "title": part.title,
                    "startUSec": part.start,
                    "endUSec": part.end,
                    "blackoutUSec": part.dark,
                    "share": round(part.share, 2),
                }
                for part in self.parts
            ],
            "clients": [
                {
                    "who": client.who,
                    "answer": client.answer,
                    "answeredUSec": client.answered,
                    "reason": client.reason,
                    "firstUSec": client.first,
                    "finishedUSec": client.finished,
                    "blackoutUSec": client.blackout,
                    "late": client.late,
                }
                for client in self.clients
            ],
            "correctedUSec": self.corrected_usec,
            "uncertainUSec": self.uncertain_usec,
            "notes": list(self.notes),
        }
        return _without_none(whole)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


class _Event(NamedTuple):
    what: str
    usec: int
    who: str | None
    said: dict[str, Any]


class _Moment(NamedTuple):
    """What a part ends with, and when."""

    what: str
    usec: int


def timeline(generation: int, events: Iterable[Event]) -> Timeline | None:
    """The live update that these events are of; None where they tell of none."""
    told = sorted(
        (_Event(said["what"], said["usec"], said.get("who"), said) for said in events), key=lambda event: event.usec
    )
    dropped = sum(event.said.get("count", 0) for event in told if event.what == "dropped")
    notes = [f"there was no room for {dropped} more events"] if dropped else []
    old = _last_attempt(event for event in told if event.what in _OLD)
    if any(event.what == "last" for event in old):
        return _gone(generation, old, told, notes)
    return _begun(generation, old, notes) if any(event.what == "prepare" for event in old) else None


def _last_attempt(old: Iterable[_Event]) -> list[_Event]:
    """What came of the attempt before: nothing, where the machine then left without any."""
    attempt: list[_Event] = []
    for event in old:
        if event.what == "prepare":
            attempt.clear()
        if event.what == "last" and any(earlier.what == "aborted" for earlier in attempt):
            attempt.clear()
        attempt.append(event)
    return attempt


def _begun(generation: int, old: list[_Event], notes: list[str]) -> Timeline | None:
    """A live update that was aborted, or is under way."""
    aborted = next((event for event in reversed(old) if event.what == "aborted"), None)
    parts = _parts(_leaving(old), _via(old), None)
    if not parts:
        return None
    return Timeline(
        generation=generation,
        via=_via(old),
        aborted=None if aborted is None else str(aborted.said.get("reason", "")),
        start=parts[0].start,
        end=parts[-1].end,
        left=None,
        parts=parts,
        clients=_clients(old, [], None, 0),
        blackout=None,
        corrected_usec=None,
        uncertain_usec=0,
        notes=notes,
    )


def _gone(generation: int, old: list[_Event], told: list[_Event], notes: list[str]) -> Timeline | None:
    """A live update that went into the next kernel."""
    left = max(event.usec for event in old if event.what in ("last", "kexec", "leaving"))
    new, corrected, uncertain = _by_the_old_clock(told, left)
    arriving = _arriving(new, left)
    dark, late_from = _blackout(old, new, left, arriving)
    back = [_Moment("back", dark.end)] if dark is not None and dark.who is not None else []
    via = _via(old)
    parts = _parts([*_leaving(old), *arriving, *back], via, dark)
    if not parts:
        return None
    clients = _clients(old, new, dark, late_from)
    finished = [client.finished for client in clients if client.finished is not None and client.finished <= late_from]
    if uncertain >= SECOND:
        notes.append("the clocks of the two kernels differ by up to a second, for there is no RTC to compare them with")
    elif corrected:
        more = ": more than it takes to set one, and what was lost there is in the kexec"
        notes.append(
            f"corrected by {duration(abs(corrected))}, which the clocks of the two kernels differ by"
            f"{more if abs(corrected) > _CLOCKS_DIFFER + _CLOCKS_DIFFER // 2 else ''}"
        )
    notes += [
        f"{client.who} came {duration(client.first - left)} after the kexec, and isn't counted"
        for client in clients
        if client.late and client.first is not None
    ]
    return Timeline(
        generation=generation,
        via=via,
        aborted=None,
        start=parts[0].start,
        end=max([parts[-1].end, *finished]),
        left=left,
        parts=parts,
        clients=clients,
        blackout=dark,
        corrected_usec=corrected,
        uncertain_usec=uncertain,
        notes=notes,
    )


def _via(old: Iterable[_Event]) -> str | None:
    """By which way it went, as far as anybody said so."""
    return next((str(event.said["via"]) for event in old if event.said.get("via")), None)


# The clocks


def _by_the_old_clock(told: list[_Event], left: int) -> tuple[list[_Event], int | None, int]:
    """What happened in the new kernel, by the clock of the old one; by how much it was corrected for that, where it
    could be; and by how much it may still be wrong.
    """
    new = [event for event in told if event.what not in _OLD and event.what != "clock"]
    kernel = next((event for event in new if event.what == "kernel"), None)
    if kernel is not None and kernel.usec < left - 2 * SECOND:
        # The machine has been there all the time: the kernel is a simulated one, with the same clock.
        of_the_machine = ("kernel", "pid1", "initrd", "userspace")
        return [event for event in new if event.what not in of_the_machine and event.usec >= left - _STEP], 0, 0
    clocks: dict[bool, _Event] = {}
    for event in told:
        if event.what == "clock" and isinstance(event.said.get("offsetUSec"), int):
            leaving = event.said.get("leaving") is True
            if leaving or leaving not in clocks:  # the last one before, the first one after
                clocks[leaving] = event
    corrected: int | None = None
    uncertain = _CLOCKS_DIFFER
    if len(clocks) == 2:
        corrected = clocks[True].said["offsetUSec"] - clocks[False].said["offsetUSec"]
        uncertain = sum(int(event.said.get("withinUSec", 0)) for event in clocks.values())
    shift = corrected or 0
    earliest = min((event.usec for event in new), default=left) + shift
    shift += max(0, left - earliest)  # nothing happens there before it has left
    return [event._replace(usec=event.usec + shift) for event in new], corrected, uncertain


# The parts


def _leaving(old: list[_Event]) -> list[_Moment]:
    """What the parts in the old kernel begin and end with, by time."""
    latest = {event.what: event.usec for event in old}  # by time: of several, the last one
    answers = [latest[what] for what in _ANSWERS if what in latest]
    if answers:
        latest["asked"] = max(answers)
    if latest.get("last", 0) < max(latest.get("stopped", 0), latest.get("kexec", 0)):
        del latest["last"]  # only luod's own: PID 1 lived longer
    if "prepare" not in latest:
        latest.pop("loaded", None)  # by an operator, some day
    moments = [_Moment(what, latest[what]) for what in ("prepare", *_LEAVING, "last") if what in latest]
    return sorted(moments, key=lambda moment: moment.usec)


def _arriving(new: list[_Event], left: int) -> list[_Moment]:
    """What the parts in the new kernel end with, in their order, of each the first."""
    moments: list[_Moment] = []
    earliest = left
    has_initrd = any(event.what == "initrd" for event in new)
    for what in _ARRIVING:
        found = next((event.usec for event in new if event.what == what and event.usec >= earliest - _STEP), None)
        if found is not None and (what != "userspace" or has_initrd):
            earliest = max(found, earliest)
            moments.append(_Moment(what, earliest))
    return moments


def _parts(moments: Sequence[_Moment], via: str | None, dark: Blackout | None) -> list[Part]:
    parts = []
    for before, after in pairwise(moments):
        shaded = 0 if dark is None else max(0, min(after.usec, dark.end) - max(before.usec, dark.start))
        share = 100 * shaded / dark.usec if dark is not None and dark.usec else 0.0
        parts.append(Part(after.what, _title(before.what, after.what, via), before.usec, after.usec, shaded, share))
    return parts


def _title(before: str, what: str, via: str | None) -> str:
    """Of the part between two moments."""
    match before, what:
        case "prepare", "carried":
            return "checks, carry over"
        case "loaded", "frozen":
            return "last checks"
        case "sealed", "leaving":
            return "all are told"
        case "kexec", "last":
            return "reboot()"
        case "stopped", "last":
            return "systemd-shutdown"
        case _, "last":
            return {"direct": "sync, reboot()", "systemd": "services stop"}.get(via or "", "until it left")
        case "kernel", "begin":
            return "kernel, PID 1 start"
        case _, "pid1" | "begin" if before not in _ARRIVING:
            return "kexec to luod"
        case _, "back":
            return "owners come back"
    return (_LEAVING | _ARRIVING)[what]


def _blackout(old: list[_Event], new: list[_Event], left: int, arriving: list[_Moment]) -> tuple[Blackout | None, int]:
    """The blackout, and until when whoever comes has been waited for; None where nobody is there yet."""
    since, start = _paused(old, left)
    firsts = sorted(_each_first(new, "first").items(), key=lambda item: item[1])
    serving = next((moment.usec for moment in arriving if moment.what == "serving"), None)
    if serving is None and not firsts:
        return None, left
    there = firsts[0][1] if serving is None else serving
    late_from = there + max(_LATE_AT_LEAST, _LATE * (there - start))
    in_time = [(who, usec) for who, usec in firsts if usec <= late_from]
    if not in_time:
        return Blackout(start, there, since, None), late_from
    who, end = in_time[-1]
    return Blackout(start, end, since, who), late_from


def _paused(old: list[_Event], left: int) -> tuple[str, int]:
    """With what owners are paused, and when."""
    earliest: dict[str, int] = {}
    for event in old:
        earliest.setdefault(event.what, event.usec)
    for what in ("leaving",) if _via(old) == "systemd" else ("freeze", "frozen", "sealed"):
        if what in earliest:
            return what, earliest[what]
    return "last", left


# Those that it is done for


def _each_first(events: Iterable[_Event], *whats: str) -> dict[str, int]:
    """When each of them had the first event of these."""
    found: dict[str, int] = {}
    for event in events:
        if event.what in whats and event.who is not None:
            found.setdefault(event.who, event.usec)
    return found


def _clients(old: list[_Event], new: list[_Event], dark: Blackout | None, late_from: int) -> list[Client]:
    """Whoever took part, or came afterwards: those who came first are the first."""
    answers = {event.who: event for event in old if event.what in _ANSWERS and event.who is not None}
    firsts, finished = _each_first(new, "first"), _each_first(new, "finished")
    clients = []
    for who in sorted({*answers, *firsts, *finished}, key=lambda who: (firsts.get(who, sys.maxsize), who)):
        answer, first = answers.get(who), firsts.get(who)
        reason = None if answer is None else answer.said.get("reason")
        clients.append(
            Client(
                who,
                answer=None if answer is None else answer.what,
                answered=None if answer is None else answer.usec,
                reason=None if reason is None else str(reason),
                first=first,
                finished=finished.get(who),
                blackout=None if dark is None or first is None else first - dark.start,
                late=first is not None and first > late_from,
            )
        )
    return clients


def duration(usec: int) -> str:
    """As people read it: 1.2 ms, 0.35 s, 2 min 5 s."""
    match usec / SECOND:
        case seconds if seconds < 0.1:
            return f"{seconds * 1000:.1f} ms"
        case seconds if seconds < 99.995:
            return f"{seconds:.2f} s"
        case seconds:
            minutes, rest = divmod(round(seconds), 60)
            if minutes < 10:
                return f"{minutes} min {rest} s"
            return f"{minutes // 60} h {minutes % 60} min" if minutes >= 100 else f"{minutes} min"
