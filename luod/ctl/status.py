"""luoctl status."""

from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

import click

from luod.ctl.command import Command, Options
from luod.ctl.kernel import kind
from luod.ctl.link import luod_at
from luod.ctl.output import age, count, facts, print_json, show, size, styled, styled_lines
from luod.timeline import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from luod.interface.update import StatusReply

_PHASES: Final = {"unavailable": "bold red", "idle": "green"}

_REASONS_SHOWN: Final = 3
"""How many reasons are told why something of the network couldn't be set up."""

_LINE_SHOWN: Final = 130
"""How much of a command line is shown, in characters."""


@click.command("status", cls=Command)
@click.pass_obj
def status_command(options: Options) -> None:
    """Show how luod and its kernel are doing: what is loaded and held, who takes part in live updates, how the last one
    went, and what is wrong. With --json: the reply of io.luod.Update.Status.

    Phase `unavailable` means that this boot can't give anything back: nobody should start afresh.
    """
    with luod_at(options) as luod:
        status = luod.status()
    if options.json:
        print_json(status.wire())
        return
    show(facts(_facts(status)))


def who_takes_part(participant: "Mapping[str, Any]") -> str:
    """Somebody who takes part in live updates, in a line: the name, and what else luod says of it."""
    whose = {} if "name" in participant else {"uid": participant.get("uid")}
    others = {key: value for key, value in participant.items() if key not in ("name", "uid")}
    return _words({"name": participant.get("name", "somebody")} | whose | others, "name") or ""


def _facts(status: "StatusReply") -> dict[str, Any]:
    unavailable = status.phase == "unavailable"
    holds = f"{count(status.sessions, 'session')}, {count(status.files, 'file')}, {size(status.bytes)}"
    return {
        "Phase": styled(status.phase, _PHASES.get(status.phase, "bold yellow")),
        "Kernel": _kernel(status.kernel),
        "Generation": None if unavailable else status.generation,
        "Updated": _last(status.last_update or {}),
        "Loaded": _loaded(status.image or {}),
        "Holds": None if unavailable else holds,
        "Network": _network(status.network or {}),
        "Takes part": [who_takes_part(each) for each in status.participants or ()] or None,
        "Device": _words(status.device, "path"),
        "Fd store": _kept(status.fd_store or {}),
        "Unclear": None if status.problems else (status.fd_store or {}).get("unclear") or None,
        "Problems": styled_lines(status.problems, "bold red") if status.problems else None,
    }


def _kernel(said: "Mapping[str, Any]") -> str | None:
    """`7.3.4, boot 6ba7b810-…`."""
    boot = said.get("bootId")
    return _words({name: value for name, value in said.items() if name != "bootId"} | {"boot": boot}, "release")


def _loaded(image: "Mapping[str, Any]") -> list[str] | None:
    """The next kernel, and what there is room for of its command line."""
    if not image:
        return None
    first = [str(image.get("release") or image.get("version") or "a kernel"), kind(image)]
    if (when := image.get("loadedUSec")) is not None:
        first.append(age(when))
    line = image.get("commandLine")
    return [", ".join(each for each in first if each), *([_shortened(str(line))] if line else [])]


def _shortened(line: str) -> str:
    """A command line with its first words and its last: what luod puts there is the last of it."""
    if len(line) <= _LINE_SHOWN:
        return line
    half = _LINE_SHOWN // 2
    return f"{shorten(line, half, placeholder='')} ... {line[-half:].partition(' ')[2]}"


def _last(update: "Mapping[str, Any]") -> str | None:
    """The last live update: `3 h ago via direct, blackout 1.24 s`."""
    usec, blackout, via = update.get("usec"), update.get("blackoutUSec"), update.get("via")
    when = " ".join(
        each for each in (age(usec) if isinstance(usec, int) else None, f"via {via}" if via else None) if each
    )
    dark = f"blackout {duration(blackout)}" if isinstance(blackout, int) else None
    return ", ".join(each for each in (when, dark) if each) or None


def _network(said: "Mapping[str, Any]") -> "RenderableType | None":
    """What came of the network that came over: `set up 3 s ago, 1 failed`, and why."""
    if not said:
        return None
    when, failed, left = said.get("appliedUSec"), said.get("failed") or 0, said.get("left") or 0
    parts = [f"set up {age(when)}" if isinstance(when, int) else "set up"]
    if failed:
        parts.append(f"{failed} failed")
    if left:
        parts.append(f"{left} left as it is")
    if not failed:
        parts.append("all is well" if not left else "the rest is well")
        return styled(", ".join(parts), "green")
    reasons = [str(each) for each in said.get("reasons") or ()][:_REASONS_SHOWN]
    rest = failed - len(reasons)
    more = [f"and {rest} more: luoctl network show"] if reasons and rest > 0 else []
    return styled_lines([", ".join(parts), *reasons, *more], "bold red")


def _kept(said: dict[str, Any]) -> "RenderableType | None":
    """What the service manager keeps when luod ends."""
    if not said:
        return None
    if not said.get("limit"):
        return styled("none: what luod holds is lost when it ends", "yellow")
    return f"{said.get('entries')} of {said['limit']} entries"


def _words(said: "Mapping[str, Any]", first: str) -> str | None:
    """What an object says: the member `first` as it is, the others with their names."""
    words = [str(said[first])] if first in said else []
    for name, value in said.items():
        if value is False:
            words.append(f"not {name}")
        elif value is True:
            words.append(name)
        elif name != first and value not in (None, []):
            words.append(f"{name}: {' '.join(map(str, value)) if isinstance(value, list) else value}")
    return ", ".join(words) or None
