"""luoctl network: the host's network, written down for the next kernel and set up again there."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from luod.ctl.command import Failed, Group, Options
from luod.ctl.link import luod_at
from luod.ctl.output import count, facts, moment, print_json, print_line, show, size, styled, table, visible
from luod.ctl.parameters import LinkPattern

if TYPE_CHECKING:
    from rich.console import RenderableType

    from luod.client import Client
    from luod.config import Config
    from luod.network.handing import Held
    from luod.network.model import Link, Snapshot
    from luod.network.report import Report
    from luod.network.steps import Step

NOTHING: Final = "nothing of the network is to go over: [network] handover names no link (luoctl config cat)"
NONE_HELD: Final = "luod holds nothing of the network"

_MARKS: Final = {"add": "+", "set": "~", "remove": "-"}
_STYLES: Final = {"add": "green", "set": "yellow", "remove": "red"}
_WAIT_MAX: Final = 3600
_SHOWN: Final = 20
"""How many things are named where each is told in a line; the rest is counted. --json has all."""

config_option = click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="luod's configuration, FILE alone."
)
directory_option = click.option(
    "--runtime-directory",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where luod's report is. [default: as configured]",
)


@click.group("network", cls=Group)
def network_command() -> None:
    """Hand the host's network over to the next kernel: links, addresses, routes, rules.

    What goes over is configured, [network] in luod.toml; with a live update it is written down and set up again by
    itself, where luod-network.service and luod-network-snapshot.service are enabled.
    """


@network_command.command("snapshot")
@click.argument("patterns", type=LinkPattern(), nargs=-1, metavar="[PATTERN]...")
@config_option
@directory_option
@click.option("--unless-taken", is_flag=True, help="Not while a live update is on its way that has had it taken.")
@click.pass_obj
def snapshot_command(
    options: Options, *, patterns: Sequence[str], file: Path | None, directory: Path | None, unless_taken: bool
) -> None:
    """Write down the links that are called so, and what they depend on, for the next kernel; without PATTERN, what is
    configured. luod holds it, in place of what it held before.

    A pattern is as in a shell: 'vlan*', quoted. With --json: {"session", "snapshot", "discarded"}.
    """
    config = _config(file)
    wanted = tuple(patterns) or config.network.handover
    if not wanted:
        _say_nothing(options, NOTHING, {"session": None, "snapshot": None, "discarded": []})
        return
    with luod_at(options) as luod:
        from luod.network.handing import alone

        if unless_taken and (taken := _on_its_way(luod)) is not None:
            said = {"session": taken.name, "snapshot": _wire(taken.snapshot), "discarded": []}
            _say_nothing(options, "a live update is on its way, and has had it taken", said)
            return
        snapshot = _selected(wanted)
        with alone(directory or config.runtime_directory):
            name, unread = _kept(luod, snapshot)
    discarded = [{"session": each.name, "reason": each.reason} for each in unread]
    if options.json:
        print_json({"session": name, "snapshot": _wire(snapshot), "discarded": discarded})
        return
    print_line(f"written down: {_amount(snapshot)}, {size(len(snapshot.encode()))} in session {name}")
    for each in snapshot.left_out:
        print_line(f"left out: {each.what}: {each.reason}")
    for lost in unread:
        print_line(f"discarded: session {lost.name}, which couldn't be read: {lost.reason}")


@network_command.command("show")
@config_option
@directory_option
@click.pass_obj
def show_network(options: Options, *, file: Path | None, directory: Path | None) -> None:
    """Show what luod holds of the network, and what came of it when it was last set up again.

    With --json: {"held", "report"}, each of those held with "session", "snapshot" and "reason".
    """
    where = directory or _config(file).runtime_directory
    with luod_at(options) as luod:
        from luod.network.handing import held

        there = held(luod)
    report = _last_report(where)
    if options.json:
        shown = [
            {"session": each.session.wire(), "snapshot": _wire(each.snapshot), "reason": each.reason} for each in there
        ]
        print_json({"held": shown, "report": _wire(report)})
        return
    parts = [part for each in there for part in _shown(each)] or [styled(NONE_HELD, "")]
    show(*parts, *([] if report is None else [facts({"Set up": _came_to(report)})]))


@network_command.command("apply")
@click.option("--dry-run", "-n", is_flag=True, help="Only show the difference.")
@click.option(
    "--wait",
    type=click.FloatRange(0, _WAIT_MAX),
    metavar="SECONDS",
    help="How long a physical link that isn't there yet is waited for. [default: as configured]",
)
@click.option(
    "--differing",
    type=click.Choice(["set", "leave"]),
    help="What becomes of what is there and differs. [default: as configured]",
)
@click.option("--outgoing", is_flag=True, help="Also one that was taken in this boot, for the next kernel.")
@config_option
@directory_option
@click.pass_obj
def apply_command(
    options: Options,
    *,
    dry_run: bool,
    wait: float | None,
    differing: str | None,
    outgoing: bool,
    file: Path | None,
    directory: Path | None,
) -> None:
    """Set up again what came over with the live update. What is as it was is left alone, and so is all that didn't come
    over. When everything is there, luod lets go of it; otherwise it can be applied again.

    With --dry-run it prints a line for each difference: + is made, ~ is set, - is removed, ! can't be had.

    With --json: the report, null where nothing came over; with --dry-run {"steps", "impossible", "equal"}.
    """
    config = _config(file)
    where = directory or config.runtime_directory
    with luod_at(options) as luod:
        from luod.network.handing import held

        there = held(luod)
        newest = there[0] if there and there[0].snapshot is not None else None
        unread = [each for each in there if each.snapshot is None and not (newest and each.begun)]
        if newest is not None and newest.session.direction == "outgoing" and not outgoing:
            newest = None
            if not unread:
                said = "nothing of the network came over; what luod holds was taken in this boot (see --outgoing)"
                _say_nothing(options, said, None)
                return
        if newest is None and not unread:
            _say_nothing(options, "nothing of the network came over", None)
            return
        if dry_run:
            _print_difference(options, newest, unread)
            return
        seconds = config.network.wait_seconds if wait is None else wait
        report = _applied(newest, unread, wait=seconds, leave=(differing or config.network.differing) == "leave")
        _write(where, report)
        if newest is not None and not report.failed and newest.session.direction == "incoming":
            _let_go(luod, newest, where)
    _print_report(options, report)


# The configuration, and luod


def _config(file: Path | None) -> "Config":
    """Raises Failed."""
    from luod.config import Config, ConfigError

    try:
        return Config.load(file)
    except ConfigError as error:
        raise Failed(str(error)) from None


def _on_its_way(luod: "Client") -> "Held | None":
    """What was taken for the live update that is on its way; None where there is none."""
    from luod.network.handing import held

    if luod.status().phase != "executing":
        return None
    return next((each for each in held(luod) if each.snapshot and each.session.direction == "outgoing"), None)


def _selected(wanted: Sequence[str]) -> "Snapshot":
    """What is selected of the network as it is. Raises Failed."""
    from pyroute2 import IPRoute

    from luod.network.reading import look
    from luod.network.selection import select

    try:
        with IPRoute() as ip:
            return select(look(ip).snapshot, wanted)
    except OSError as error:
        raise Failed(f"the network can't be looked at: {error.strerror or error}") from None


def _kept(luod: "Client", snapshot: "Snapshot") -> "tuple[str, list[Held]]":
    """Raises Failed, and what luod refuses."""
    from luod.network.handing import put

    try:
        return put(luod, snapshot)
    except OSError as error:
        raise Failed(f"there is no memory for it: {error.strerror}") from None


def _let_go(luod: "Client", applied: "Held", directory: Path) -> None:
    from luod.network.handing import alone, end_applied

    with alone(directory):
        end_applied(luod, applied)


def _applied(newest: "Held | None", unread: "Sequence[Held]", *, wait: float, leave: bool) -> "Report":
    """What came of it; what can't be read at all is among what failed."""
    from luod.network.applying import apply
    from luod.network.report import Report, Trouble

    lost = tuple(Trouble(what=f"session {each.name}", reason=str(each.reason)) for each in unread)
    began = time.time()
    if newest is None or newest.snapshot is None:
        return Report(applied=began, seconds=0, done=0, equal=0, failed=lost)
    try:
        report = apply(newest.snapshot, wait=wait, leave=leave)
    except OSError as error:
        lost += (Trouble(what="rtnetlink", reason=error.strerror or str(error)),)
        report = Report(taken=newest.snapshot.taken, applied=began, seconds=time.time() - began, done=0, equal=0)
    return report.model_copy(update={"failed": report.failed + lost})


def _write(directory: Path, report: "Report") -> None:
    """Whoever mustn't write there has the report on the terminal alone."""
    from luod.network.handing import write_report

    try:
        write_report(directory, report)
    except OSError as error:
        click.echo(f"luoctl: the report isn't in {directory}: {error.strerror}", err=True)


def _last_report(directory: Path) -> "Report | None":
    from luod.network.handing import read_report
    from luod.network.model import BadSnapshot

    try:
        return read_report(directory)
    except BadSnapshot as error:
        click.echo(f"luoctl: {visible(str(error))}", err=True)
    except OSError as error:
        click.echo(f"luoctl: {directory}: {error.strerror}", err=True)
    return None


# What is printed


def _say_nothing(options: Options, line: str, otherwise: Any) -> None:
    if options.json:
        print_json(otherwise)
    else:
        print_line(line)


def _wire(model: Any) -> Any:
    return None if model is None else model.model_dump(mode="json", exclude_none=True)


def _print_difference(options: Options, newest: "Held | None", unread: "Sequence[Held]") -> None:
    """Raises Failed where something can't be had."""
    from rich import console

    from luod.network.applying import compare
    from luod.network.steps import Plan
    from luod.network.words import said

    try:
        plan = compare(newest.snapshot) if newest is not None and newest.snapshot is not None else Plan((), (), 0)
    except OSError as error:
        raise Failed(f"the network can't be looked at: {error.strerror or error}") from None
    steps = _by_thing(plan.steps)
    impossible = [(said(thing), why) for thing, why in plan.impossible]
    impossible += [(f"session {each.name}", str(each.reason)) for each in unread]
    if options.json:
        shown = [_step_wire(each) for each in steps]
        never = [{"what": what, "reason": why} for what, why in impossible]
        print_json({"steps": shown, "impossible": never, "equal": plan.equal})
    else:
        lines = [styled(_in_a_line(each), _STYLES[each[0].action]) for each in steps]
        lines += [styled(f"! {what}: {why}", "bold red") for what, why in impossible]
        show(console.Group(*(lines or [styled(f"nothing differs: {count(plan.equal, 'thing')} as it is to be", "")])))
    if impossible:
        raise Failed(f"{count(len(impossible), 'thing')} can't be had")


def _by_thing(steps: "Sequence[Step]") -> "list[list[Step]]":
    """The steps that do the same to the same thing, together where the first of them is."""
    from luod.network.relations import key

    found: dict[Any, list[Step]] = {}
    for step in steps:
        found.setdefault((step.action, key(step.thing)), []).append(step)
    return list(found.values())


def _in_a_line(steps: "Sequence[Step]") -> str:
    """`~ link br0 type bridge: mtu 1500, not 9000`."""
    from luod.network.words import said, said_of

    first = steps[0]
    changes = [said_of(change) for step in steps for change in step.changes] if first.action == "set" else []
    return f"{_MARKS[first.action]} {said(first.thing)}{': ' if changes else ''}{'; '.join(changes)}"


def _step_wire(steps: "Sequence[Step]") -> dict[str, Any]:
    from pydantic_core import to_jsonable_python

    from luod.network.words import said

    changes = [
        {"field": change.field, "before": change.before, "after": change.after}
        for step in steps
        for change in step.changes
    ]
    plain: Any = to_jsonable_python(changes)
    return {"action": steps[0].action, "what": said(steps[0].thing), "changes": plain}


def _print_report(options: Options, report: "Report") -> None:
    """Raises Failed where something isn't as it was."""
    if options.json:
        print_json(_wire(report))
    else:
        print_line(f"{_when(report)}{_counts(report)}")
        for word, those in (("failed", report.failed), ("left as it is", report.left)):
            for each in those:
                print_line(f"{word}: {each.what}: {each.reason}")
    if report.failed:
        raise Failed(f"{count(len(report.failed), 'thing')} of the network couldn't be set up; see luoctl network show")


def _when(report: "Report") -> str:
    return "" if report.taken is None else f"network of {moment(round(report.taken * 1e6))}: "


def _counts(report: "Report") -> str:
    """`12 set up in 0.31 s, 30 as they were, 1 failed`."""
    said = [f"{report.done} set up in {report.seconds:.2f} s", f"{report.equal} as they were"]
    said += [
        f"{len(those)} {word}" for those, word in ((report.failed, "failed"), (report.left, "left as it is")) if those
    ]
    return ", ".join(said)


def _came_to(report: "Report") -> "list[str]":
    lines = [f"{moment(round(report.applied * 1e6))}: {_counts(report)}"]
    lines += [f"failed: {each.what}: {each.reason}" for each in _first(report.failed)]
    lines += [f"left as it is: {each.what}: {each.reason}" for each in _first(report.left)]
    return lines


def _first(those: Sequence[Any]) -> Sequence[Any]:
    return those[:_SHOWN]


def _amount(snapshot: "Snapshot") -> str:
    """`3 links, 5 addresses, 2 routes`."""
    many = (
        (snapshot.links, "link", "links"),
        (snapshot.addresses, "address", "addresses"),
        (snapshot.routes, "route", "routes"),
        (snapshot.rules, "rule", "rules"),
        (snapshot.neighbours, "neighbour", "neighbours"),
        (snapshot.vids, "VLAN of a port", "VLANs of ports"),
        (snapshot.fdb, "forwarding entry", "forwarding entries"),
    )
    return (
        ", ".join(f"{len(those)} {one if len(those) == 1 else more}" for those, one, more in many if those) or "nothing"
    )


def _shown(held: "Held") -> "Iterator[RenderableType]":
    """What is in a session of them."""
    from luod.network.words import said

    snapshot, incoming = held.snapshot, held.session.direction == "incoming"
    what = "incoming: it came over" if incoming else "outgoing: it goes over with the next live update"
    if snapshot is None:
        yield facts({"Session": held.name, "Unreadable": styled(str(held.reason), "bold red")})
        return
    yield facts(
        {
            "Session": f"{held.name}, {what}",
            "Taken": moment(round(snapshot.taken * 1e6)),
            "Of": f"Linux {snapshot.kernel}, boot {snapshot.boot_id}",
            "Selected": ", ".join(snapshot.handover) or "everything",
            "Has": _amount(snapshot),
        }
    )
    if snapshot.links:
        yield table("LINK", "KIND", "STATE", ">MTU", "MAC", "ON", "MASTER", rows=map(_link, snapshot.links))
    parts: tuple[tuple[str, Sequence[Any]], ...] = (
        ("ADDRESSES", snapshot.addresses),
        ("ROUTES", snapshot.routes),
        ("RULES", snapshot.rules),
        ("NEIGHBOURS", snapshot.neighbours),
        ("VLANS OF PORTS", snapshot.vids),
        ("FORWARDING ENTRIES", snapshot.fdb),
    )
    for heading, things in parts:
        if things:
            yield table(heading, rows=[(said(thing),) for thing in things])
    if snapshot.left_out:
        yield table("LEFT OUT", "WHY", rows=[(each.what, each.reason) for each in snapshot.left_out])


def _link(link: "Link") -> Sequence[Any]:
    """One a line."""
    peer = getattr(link.settings, "peer", None) or getattr(link.settings, "link", None)
    where = link.lower or peer or link.path
    return (
        link.name,
        link.kind,
        "up" if link.up else "down",
        link.mtu,
        link.address or link.permanent_address,
        where,
        link.master,
    )
