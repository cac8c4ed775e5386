"""luoctl list, luoctl show."""

from typing import TYPE_CHECKING, Any

import click

from luod.ctl.command import Command, Options
from luod.ctl.link import luod_at, session_named
from luod.ctl.output import (
    age,
    amount,
    count,
    facts,
    moment,
    print_json,
    print_line,
    show,
    size,
    styled,
    table,
    user,
    whose,
)
from luod.ctl.parameters import owner_option, session_argument

if TYPE_CHECKING:
    from rich.table import Table

    from luod.client import Session


@click.command("list", cls=Command)
@click.option("--all", "all_owners", is_flag=True, help="Of every owner.")
@owner_option
@click.pass_obj
def list_command(options: Options, *, all_owners: bool) -> None:
    """List your sessions. With --json: an array of Session."""
    if all_owners and options.owner is not None:
        raise click.UsageError("--all and --owner exclude each other")
    with luod_at(options) as luod:
        sessions = luod.list(all_owners=all_owners, owner=options.owner)
    if options.json:
        print_json([session.wire() for session in sessions])
    elif sessions:
        show(sessions_table(sessions, with_owner=all_owners))
    else:
        print_line("no sessions" if all_owners else f"no sessions of {whose(options.owner)}")


@click.command("show", cls=Command)
@session_argument
@owner_option
@click.pass_obj
def show_command(options: Options, *, session: str) -> None:
    """Show SESSION and its files. With --json: a Session."""
    with luod_at(options) as luod:
        found = session_named(luod, options, session)
    if options.json:
        print_json(found.wire())
        return
    parts = [facts(_facts(found))]
    if found.files:
        parts.append(
            table(
                ">TOKEN",
                "NAME",
                ">SIZE",
                "RETRIEVED",
                rows=[(f.token, f.name, size(f.size), "yes" if f.retrieved else "no") for f in found.files],
            )
        )
    show(*parts)


def sessions_table(sessions: "list[Session]", *, with_owner: bool) -> "Table":
    """One session a line."""
    owner = ("OWNER",) if with_owner else ()
    return table(
        "NAME",
        *owner,
        "STATE",
        "MODE",
        ">FILES",
        ">SIZE",
        ">UPDATES",
        "CREATED",
        rows=[
            (
                session.name,
                *((user(session.uid),) if with_owner else ()),
                _state(session),
                session.mode,
                *_holds(session),
                session.generation,
                age(session.created_usec),
            )
            for session in sessions
        ],
    )


def _facts(session: "Session") -> dict[str, Any]:
    return {
        "Name": session.name,
        "Owner": f"{user(session.uid)} (uid {session.uid}, gid {session.gid})",
        "State": _state(session),
        "Reason": session.lost,
        "Mode": session.mode,
        "Holds": None if session.mode == "delegated" else amount(session.files),
        "Unit": session.unit,
        "Labels": [f"{key}={value}" for key, value in session.labels.items()] or None,
        "Created": moment(session.created_usec),
        "Lived through": count(session.generation, "live update"),
        "In the kernel": session.kernel_name,
    }


def _holds(session: "Session") -> tuple[int | None, str | None]:
    """How many files, and their size; of a delegated session only its owner knows."""
    if session.mode == "delegated":
        return None, None
    return len(session.files), size(sum(file.size or 0 for file in session.files))


def _state(session: "Session") -> Any:
    if session.lost is not None:
        return styled("lost", "bold red")
    return styled(session.direction, "yellow" if session.direction == "incoming" else "green")
