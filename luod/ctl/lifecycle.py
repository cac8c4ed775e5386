"""luoctl create, claim, finish, discard: the life of a session."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from luod.ctl.command import Command, Launcher, Options
from luod.ctl.consent import agree, loss, yes_option
from luod.ctl.link import called, luod_at, session_named
from luod.ctl.output import amount, print_json, print_line
from luod.ctl.parameters import SessionName, labels_option, owner_option, session_argument

if TYPE_CHECKING:
    from luod.client import Session


@click.command("create", cls=Command)
@click.argument("name", type=SessionName())
@labels_option
@click.option("--delegated", is_flag=True, help="Its owner preserves and retrieves: see luoctl claim.")
@owner_option
@click.pass_obj
def create_command(options: Options, *, name: str, labels: dict[str, str], delegated: bool) -> None:
    """Make a session called NAME, for files to preserve. With --json: a Session."""
    with luod_at(options) as luod:
        if delegated:
            session, lent = luod.create_delegated(name, labels, options.owner)
            lent.give_up()  # luod holds a copy
        else:
            session = luod.create(name, labels, options.owner)
    if options.json:
        print_json(session.wire())
    else:
        print_line(f"created {called(options, name)}{', a delegated session' if delegated else ''}")


@click.command("claim", cls=Launcher, launches="-- COMMAND...")
@session_argument
@owner_option
@click.pass_obj
def claim_command(options: Options, *, session: str, command: Sequence[str] | None) -> None:
    """Run COMMAND with the kernel's session behind SESSION, a delegated one, as descriptor 3.

    It is handed over by sd_listen_fds(3), named after the session. luod keeps a copy, so nothing is lost when COMMAND
    ends. luoctl prints nothing, and ends as COMMAND does. For example:

        luoctl claim vm -- my-vmm --restore
    """
    if command is None:
        raise click.UsageError("a descriptor ends with whoever has it, so say for which command: -- COMMAND")
    from luod.ctl.launch import executable, hand_to, listen_name

    program = executable(command)
    with luod_at(options) as luod, luod.claim(session, options.owner) as lent:
        hand_to(program, command, [listen_name(session, otherwise="session")], [lent.fileno()])


@click.command("finish", cls=Command)
@session_argument
@click.option("--rearm", is_flag=True, help="Preserve the same files again, for the next live update.")
@yes_option
@owner_option
@click.pass_obj
def finish_command(options: Options, *, session: str, rearm: bool, yes: bool) -> None:
    """End SESSION, which came over with a live update: its owner has all that it needs, and the rest is gone.

    On a terminal it asks before. With --rearm nothing is gone. With --json: an empty object.
    """
    with luod_at(options) as luod:
        there = session_named(luod, options, session)
        if not rearm and there.direction == "incoming" and there.lost is None:
            agree(f"Finish {called(options, session)}", loss(there), yes=yes)
        luod.finish(session, rearm=rearm, owner=options.owner)
    if options.json:
        print_json({})
    elif rearm:
        print_line(f"rearmed {called(options, session)} for the next live update{_with(there)}")
    else:
        print_line(f"finished {called(options, session)}{_with(there)}")


@click.command("discard", cls=Command)
@session_argument
@yes_option
@owner_option
@click.pass_obj
def discard_command(options: Options, *, session: str, yes: bool) -> None:
    """Give SESSION up, which hasn't gone over yet: all of it is unpreserved. Or forget a lost one.

    On a terminal it asks before. With --json: an empty object.
    """
    with luod_at(options) as luod:
        there = session_named(luod, options, session)
        if there.direction == "outgoing" or there.lost is not None:
            agree(f"Discard {called(options, session)}", loss(there), yes=yes)
        luod.discard(session, options.owner)
    if options.json:
        print_json({})
    else:
        print_line(f"discarded {called(options, session)}{_with(there)}")


def _with(session: "Session") -> str:
    """What there was in a session: `: 2 files, 5.9 KiB`."""
    if session.lost is not None:
        return ", which was lost"
    return f": {amount(session.files)}" if session.files else ""
