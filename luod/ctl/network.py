"""luoctl network: the host's network, written down for the next kernel and set up again there."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from luod.ctl.command import Failed, Group, Options
from luod.ctl.link import luod_at
from luod.ctl.output import count, facts, print_json, print_line, show, size, styled, visible
from luod.ctl.parameters import LinkPattern, Number
from luod.ctl.topology import amount, contents, difference, difference_wire, last_result, result, wire

if TYPE_CHECKING:
    from luod.client import Client
    from luod.config import Config
    from luod.network.handing import Coming, Held, Put
    from luod.network.model import Snapshot
    from luod.network.report import Report, Trouble
    from luod.network.steps import Plan

NOTHING: Final = "nothing of the network is to go over: [network] handover names no link (luoctl config cat)"
NOTHING_CAME: Final = "nothing of the network came over"
ONLY_OF_THIS_BOOT: Final = f"{NOTHING_CAME}; what luod holds was taken in this boot (see --same-boot)"
NONE_HELD: Final = "luod holds nothing of the network"

_WAIT_MAX: Final = 3600

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
def snapshot_network(
    options: Options, *, patterns: Sequence[str], file: Path | None, directory: Path | None, unless_taken: bool
) -> None:
    """Write the network down for the next kernel.

    Of it, the links that are called so, and what they depend on; without PATTERN, what is configured. luod holds it, in
    place of what it held before. A pattern is as in a shell: 'vlan*', quoted.

    With --json: {"session", "snapshot", "discarded"}.
    """
    config = _config(file)
    wanted = tuple(patterns) or config.network.handover
    if not wanted:
        _say_nothing(options, NOTHING, {"session": None, "snapshot": None, "discarded": []})
        return
    with luod_at(options) as luod:
        from luod.network.handing import alone

        if unless_taken and (taken := _on_its_way(luod)) is not None:
            said = {"session": taken.name, "snapshot": wire(taken.snapshot), "discarded": []}
            _say_nothing(options, "a live update is on its way, and has had it taken", said)
            return
        with alone(directory or config.runtime_directory):
            snapshot = _selected(wanted)
            kept = _kept(luod, snapshot)
    discarded = [{"session": each.name, "reason": each.reason} for each in kept.unread]
    if options.json:
        print_json({"session": kept.name, "snapshot": wire(snapshot), "discarded": discarded})
        return
    print_line(f"written down: {amount(snapshot)}, {size(kept.size)} in session {kept.name}")
    for each in snapshot.left_out:
        print_line(f"left out: {each.what}: {each.reason}")
    for lost in kept.unread:
        print_line(f"discarded: session {lost.name}, which couldn't be read: {lost.reason}")


@network_command.command("show")
@config_option
@directory_option
@click.pass_obj
def show_network(options: Options, *, file: Path | None, directory: Path | None) -> None:
    """Show what luod holds of the network.

    And what came of it when it was last set up again in this kernel.

    With --json: {"held", "report"}, each of those held with "session", "snapshot" and "reason".
    """
    where = directory or _config(file).runtime_directory
    with luod_at(options) as luod:
        from luod.network.handing import held

        there = held(luod)
    report = _last_report(where)
    if options.json:
        shown = [
            {"session": each.session.wire(), "snapshot": wire(each.snapshot), "reason": each.reason} for each in there
        ]
        print_json({"held": shown, "report": wire(report)})
        return
    parts = [part for each in there for part in contents(each)] or [styled(NONE_HELD, "")]
    show(*parts, *([] if report is None else [facts({"Set up": last_result(report)})]))


@network_command.command("apply")
@click.option("--dry-run", "-n", is_flag=True, help="Only show the difference.")
@click.option(
    "--wait",
    type=Number(0, _WAIT_MAX),
    metavar="SECONDS",
    help="How long a physical link that isn't there yet is waited for. [default: as configured]",
)
@click.option(
    "--differing",
    type=click.Choice(["set", "leave"]),
    help="What becomes of what is there and differs. [default: as configured]",
)
@click.option("--same-boot", is_flag=True, help="Also what was taken in this boot, for the next kernel.")
@config_option
@directory_option
@click.pass_obj
def apply_network(
    options: Options,
    *,
    dry_run: bool,
    wait: int | None,
    differing: str | None,
    same_boot: bool,
    file: Path | None,
    directory: Path | None,
) -> None:
    """Set up again what came over.

    What is as it was is left alone, and so is all that didn't come over. When everything is there, luod lets go of it;
    otherwise it can be applied again.

    With --dry-run it prints a line for each difference: + is made, ~ is set, - is removed, ! can't be had.

    With --json: the report, null where nothing came over; with --dry-run {"steps", "impossible", "equal"}.
    """
    config = _config(file)
    where = directory or config.runtime_directory
    with luod_at(options) as luod:
        import_module("luod.network.applying")  # while luod starts: what comes next waits for that
        from luod.network.handing import coming

        over = coming(luod, same_boot=same_boot)
        if not over:
            _say_nothing(options, ONLY_OF_THIS_BOOT if over.waits else NOTHING_CAME, None)
            return
        if dry_run:
            _print_difference(options, over)
            return
        seconds = config.network.wait_seconds if wait is None else wait
        report = _applied(over, wait=seconds, leave=(differing or config.network.differing) == "leave")
        _write(where, report)
        if over.newest is not None and not report.failed and over.newest.came_over:
            _let_go(luod, over.newest, where)
    _print_result(options, report)


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
    return next((each for each in held(luod) if each.snapshot and not each.came_over), None)


@contextmanager
def _looking() -> Iterator[None]:
    """Raises Failed where the kernel tells nothing of the network."""
    try:
        yield
    except OSError as error:
        raise Failed(f"the network can't be looked at: {error.strerror or error}") from None


def _selected(wanted: Sequence[str]) -> "Snapshot":
    """What is selected of the network as it is. Raises Failed."""
    from luod.network.reading import everything
    from luod.network.selection import select

    with _looking():
        return select(everything(), wanted)


def _compared(newest: "Held | None") -> "Plan":
    """What differs of the network as it is. Raises Failed."""
    from luod.network.applying import compare
    from luod.network.steps import Plan

    if newest is None or newest.snapshot is None:
        return Plan((), (), 0)
    with _looking():
        return compare(newest.snapshot)


def _kept(luod: "Client", snapshot: "Snapshot") -> "Put":
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


def _unreadable(unread: "Sequence[Held]") -> "tuple[Trouble, ...]":
    from luod.network.report import Trouble

    return tuple(Trouble(what=f"session {each.name}", reason=str(each.reason)) for each in unread)


def _applied(over: "Coming", *, wait: float, leave: bool) -> "Report":
    """What came of it; what can't be read at all is among what failed."""
    from luod.network.applying import apply
    from luod.network.report import Report, Trouble

    lost = _unreadable(over.unread)
    began = time.time()
    if over.newest is None or over.newest.snapshot is None:
        return Report(applied=began, seconds=0, done=0, equal=0, failed=lost)
    try:
        report = apply(over.newest.snapshot, wait=wait, leave=leave)
    except OSError as error:
        lost += (Trouble(what="rtnetlink", reason=error.strerror or str(error)),)
        report = Report(taken=over.newest.snapshot.taken, applied=began, seconds=time.time() - began, done=0, equal=0)
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
    return None


# What is printed


def _say_nothing(options: Options, line: str, otherwise: Any) -> None:
    if options.json:
        print_json(otherwise)
    else:
        print_line(line)


def _print_difference(options: Options, over: "Coming") -> None:
    """Raises Failed where something can't be had."""
    from luod.network.report import Trouble
    from luod.network.words import said

    plan = _compared(over.newest)
    troubles = [Trouble(what=said(thing), reason=why) for thing, why in plan.impossible]
    troubles += _unreadable(over.unread)
    if options.json:
        print_json(difference_wire(plan, troubles))
    else:
        show(difference(plan, troubles))
    if troubles:
        raise Failed(f"{count(len(troubles), 'thing')} can't be had")


def _print_result(options: Options, report: "Report") -> None:
    """Raises Failed where something isn't as it was."""
    if options.json:
        print_json(wire(report))
    else:
        for line in result(report):
            print_line(line)
    if report.failed:
        raise Failed(f"{count(len(report.failed), 'thing')} of the network couldn't be set up; see luoctl network show")
