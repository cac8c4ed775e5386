"""luoctl wait-restored, luoctl start-afresh: after a live update."""

import math
from typing import TYPE_CHECKING

import click

from luod.ctl.command import Command, Failed, Late, Options, within
from luod.ctl.consent import agree, yes_option
from luod.ctl.link import NOT_RUNNING, luod_at
from luod.ctl.output import print_json, print_line, user
from luod.ctl.parameters import Number
from luod.ctl.progress import stamped
from luod.errors import RestoreUnavailable

if TYPE_CHECKING:
    from luod.client import Session


@click.command("wait-restored", cls=Command)
@click.option("--timeout", type=Number(1, 86400), metavar="SECONDS", help="How long at most. [default: for ever]")
@click.pass_obj
def wait_restored_command(options: Options, *, timeout: int | None) -> None:
    """Wait until nothing of the last live update waits for its owner any more, and for luod itself, if need be.

    A line says who is still waited for, when that changes. The exit status is 1 at the timeout, and where something is
    lost. With --json: {"restored", "waiting", "lost"}, of sessions.
    """
    sessions: list[Session] = []
    waiting: list[Session] | None = None
    is_late = False
    try:
        with (
            within(timeout or 0),
            luod_at(options, patience=math.inf, wait=True) as luod,
            luod.follow() as steps,
        ):
            for step in steps:
                if step.phase == "unavailable":
                    raise RestoreUnavailable(str(luod.status().device.get("reason") or "luod says no more"))
                sessions = luod.list(all_owners=True)
                before, waiting = waiting, _waiting(sessions)
                if not options.json and waiting and waiting != before:
                    print(stamped("waiting", f"for {_named(waiting)}"), flush=True)
    except Late:
        if waiting is None:
            raise Failed(f"luod is not running, or doesn't answer, after {timeout} s", NOT_RUNNING) from None
        is_late = True
    lost = [session for session in sessions if session.lost is not None]
    left = _waiting(sessions) if is_late else []
    if options.json:
        restored = not is_late and not lost
        print_json({"restored": restored, "waiting": [s.wire() for s in left], "lost": [s.wire() for s in lost]})
    if is_late:
        raise Failed(f"not all is restored after {timeout} s: {_named(left) or 'luod is still at it'}")
    if lost:
        raise Failed(f"lost: {_named(lost)}; see luoctl list --all, luoctl discard forgets them")
    if not options.json:
        print(stamped("restored", "nothing waits for its owner"))


@click.command("start-afresh", cls=Command)
@yes_option
@click.pass_obj
def start_afresh_command(options: Options, *, yes: bool) -> None:
    """Accept that what this boot can't give back is lost: luod starts anew, with nothing.

    On a terminal it asks before. With --json: {}.
    """
    with luod_at(options) as luod:
        status = luod.status()
        if status.phase != "unavailable":
            raise Failed("this boot gives back what there is, so nothing has to be given up; see luoctl status")
        reason = status.device.get("reason") or "luod doesn't say why"
        agree("Start afresh", f"All that came over will be gone: {reason}.", yes=yes)
        luod.start_afresh()
    if options.json:
        print_json({})
    else:
        print_line("luod starts afresh, with nothing")


def _waiting(sessions: "list[Session]") -> "list[Session]":
    """Those that their owners haven't finished."""
    return [session for session in sessions if session.direction == "incoming" and session.lost is None]


def _named(sessions: "list[Session]") -> str:
    return ", ".join(f"{session.name} of {user(session.uid)}" for session in sessions)
