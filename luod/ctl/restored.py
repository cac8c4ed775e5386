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

if TYPE_CHECKING:
    from luod.client import Session


@click.command("wait-restored", cls=Command)
@click.option("--timeout", type=Number(1, 86400), metavar="SECONDS", help="How long at most. [default: for ever]")
@click.pass_obj
def wait_restored_command(options: Options, *, timeout: int | None) -> None:
    """Wait until nothing of the last live update waits for its owner any more, and for luod itself, if need be.

    A line says who is still waited for, when that changes. What nobody comes for in time luod preserves for the next
    live update; that isn't waited for any more. The exit status is 1 at the timeout, and where something is lost. With
    --json: {"restored", "waiting", "lost"}, of sessions.
    """
    sessions: list[Session] | None = None
    told: list[Session] = []
    is_late = False
    try:
        with (
            within(timeout or 0),
            luod_at(options, patience=math.inf, wait=True) as luod,
            luod.follow() as steps,
        ):
            for _ in steps:
                sessions = luod.list(all_owners=True)
                if not options.json and _waiting(sessions) not in (told, []):
                    told = _waiting(sessions)
                    print(stamped("waiting", f"for {_named(told)}"), flush=True)
    except Late:
        is_late = True
    if sessions is None:
        raise Failed(f"luod is not running, or doesn't answer, after {timeout} s", NOT_RUNNING)
    _say_what_came_of_it(sessions, options, None if not is_late else timeout)


def _say_what_came_of_it(sessions: "list[Session]", options: Options, late: int | None) -> None:
    """`late`: after how many seconds it was no longer waited for. Raises Failed."""
    lost = [session for session in sessions if session.lost is not None]
    left = _waiting(sessions) if late else []
    if options.json:
        said = {"waiting": [each.wire() for each in left], "lost": [each.wire() for each in lost]}
        print_json({"restored": not late and not lost, **said})
    if late:
        raise Failed(f"not all is restored after {late} s: {_named(left) or 'luod is still at it'}")
    if lost:
        raise Failed(f"lost: {_named(lost)}; see luoctl list --all, luoctl discard forgets them")
    if options.json:
        return
    for session in sessions:
        if session.carried_over and not all(file.retrieved for file in session.files):
            print(stamped("waited", f"{_named([session])}: nobody came for it, the next live update carries it over"))
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
    """Those that their owners haven't finished, and luod hasn't preserved for the next live update."""
    return [
        session
        for session in sessions
        if session.direction == "incoming" and session.lost is None and not session.carried_over
    ]


def _named(sessions: "list[Session]") -> str:
    return ", ".join(f"{session.name} of {user(session.uid)}" for session in sessions)
