"""luoctl watch: live updates, as luod tells of them."""

import json
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from luod.ctl.command import Command, Options
from luod.ctl.link import luod_at
from luod.ctl.output import visible
from luod.ctl.parameters import KnownSession, owner_option
from luod.ctl.progress import seconds_left

if TYPE_CHECKING:
    from luod.client import Client, Event

_MEANING: Final = {
    "aborted": "it is off, everything is as before",
    "restored": "sessions came over and wait for their owner",
    "stopping": "luod stops",
}


@click.command("watch", cls=Command)
@click.argument("sessions", type=KnownSession(), nargs=-1, metavar="[SESSION]...")
@owner_option
@click.pass_obj
def watch_command(options: Options, *, sessions: Sequence[str]) -> None:
    """Tell of live updates as they come, a line each, until Ctrl-C: those of each SESSION, or of all of yours.

    It goes on when luod is restarted. With --json: on each line a reply of io.luod.Custody.Watch, without its secret.
    """
    with luod_at(options, patience=math.inf) as luod:
        _warn_of_missing(luod, options, sessions)
        with luod.watch(sessions or None, owner=options.owner) as events:
            for event in events:
                public = event.model_copy(update={"watcher": None})
                print(json.dumps(public.wire()) if options.json else _line(public), flush=True)


def _line(event: "Event") -> str:
    told = [
        _MEANING.get(event.event),
        None if event.update is None else f"live update {event.update}",
        None if event.deadline_usec is None else f"{seconds_left(event.deadline_usec)} to get ready",
        event.reason,
    ]
    said = "; ".join(each for each in told if each)
    return visible(f"{datetime.now():%H:%M:%S}  {event.event:8}  {said}".rstrip())


def _warn_of_missing(luod: "Client", options: Options, sessions: Sequence[str]) -> None:
    """A session may be made later, so its name can be watched. It may be a slip, too."""
    from luod.ctl.remedies import Asked, explained
    from luod.errors import SessionNotFound

    there = {session.name for session in luod.list(owner=options.owner)} if sessions else set()
    for name in sessions:
        if name not in there:
            slip = explained(SessionNotFound(name), Asked(luod, options.owner))
            print(f"luoctl: {visible(slip)} (watching all the same)", file=sys.stderr)
