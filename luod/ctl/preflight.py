"""luoctl preflight: what a live update would meet now."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from luod.ctl.command import Command, Failed, Options
from luod.ctl.link import luod_at
from luod.ctl.output import count, print_json, show, styled, table
from luod.errors import PreflightFailed

if TYPE_CHECKING:
    from rich.console import RenderableType

    from luod.client import Check

VIAS: Final = ("systemd", "direct")

via_option = click.option(
    "--via",
    type=click.Choice(VIAS),
    help="systemd stops all services in their order, then goes; direct pauses those who own sessions, and goes at "
    "once. [default: systemd where luod is its service, else direct]",
)

_STYLES: Final = {"pass": "green", "warn": "bold yellow", "fail": "bold red"}


@click.command("preflight", cls=Command)
@via_option
@click.pass_obj
def preflight_command(options: Options, *, via: str | None) -> None:
    """Check what a live update would meet now, what it would lose, and what can be done about it.

    The exit status is 0 where nothing would be lost: no check fails. With --json: the reply of
    io.luod.Update.Preflight.
    """
    with luod_at(options) as luod:
        checks = luod.preflight(via)
    if options.json:
        print_json({"checks": [check.wire() for check in checks]})
    else:
        show(*report(checks), summary(checks))
    if failed := failed_of(checks):
        raise Failed(str(PreflightFailed(failed)))


def report(checks: "Sequence[Check]") -> "list[RenderableType]":
    """What came of each check, what to do about it, and what would be lost."""
    from rich.console import Group

    parts: list[RenderableType] = [
        table("CHECK", "", "FOUND", rows=[(check.name, _outcome(check), _found(check)) for check in checks])
    ]
    if lost := list(dict.fromkeys(line for check in checks for line in check.loses or ())):
        lines = [styled("A live update would lose now:", "bold red"), *(styled(f"  {line}", "red") for line in lost)]
        parts.append(Group(*lines))
    return parts


def failed_of(checks: "Sequence[Check]") -> list[str]:
    return [check.name for check in checks if check.outcome == "fail"]


def _outcome(check: "Check") -> Any:
    return styled(check.outcome, _STYLES[check.outcome])


def _found(check: "Check") -> Any:
    """What was found, and for what doesn't pass the remedy on the next line."""
    from rich.text import Text

    from luod.ctl.output import visible

    found = Text(visible(check.detail))
    if check.outcome != "pass" and check.remedy:
        found.append(f"\n-> {visible(check.remedy)}", "cyan")
    return found


def summary(checks: "Sequence[Check]") -> "RenderableType":
    """How many came to what."""
    by = {outcome: sum(check.outcome == outcome for check in checks) for outcome in _STYLES}
    said = f"{count(len(checks), 'check')}: {by['pass']} passed, {by['warn']} to look at, {by['fail']} failed"
    return styled(said, _STYLES["fail" if by["fail"] else "warn" if by["warn"] else "pass"])
