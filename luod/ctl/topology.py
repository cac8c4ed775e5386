"""A network as luoctl prints it: what is in a snapshot, how the host differs from it, what came of setting it up."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from luod.ctl.output import facts, moment, styled, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from luod.network.handing import Held
    from luod.network.model import Link, Record, Snapshot
    from luod.network.report import Report, Trouble
    from luod.network.steps import Plan, Step

_MARKS: Final = {"add": "+", "set": "~", "remove": "-"}
_STYLES: Final = {"add": "green", "set": "yellow", "remove": "red"}
_CAME: Final = "it came over"
_GOES: Final = "it goes over with the next live update"
_SHOWN: Final = 20
"""How many things are named where each is told in a line; the rest is counted. --json has all."""


def wire(model: "Record | None") -> Any:
    """As --json has it."""
    return None if model is None else model.model_dump(mode="json", exclude_none=True)


# A snapshot


def amount(snapshot: "Snapshot") -> str:
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
    said = [f"{len(those)} {one if len(those) == 1 else more}" for those, one, more in many if those]
    return ", ".join(said) or "nothing"


def contents(held: "Held") -> "Iterator[RenderableType]":
    """All that a session has of a network."""
    from luod.network.words import said

    snapshot, direction = held.snapshot, held.session.direction.value
    if snapshot is None:
        yield facts({"Session": held.name, "Unreadable": styled(str(held.reason), "bold red")})
        return
    yield facts(
        {
            "Session": f"{held.name}, {direction}: {_CAME if held.came_over else _GOES}",
            "Taken": _moment(snapshot.taken),
            "Of": f"Linux {snapshot.kernel}, boot {snapshot.boot_id}",
            "Selected": ", ".join(snapshot.handover) or "everything",
            "Has": amount(snapshot),
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
    from luod.network.words import kind_of

    other = getattr(link.settings, "peer", None) or getattr(link.settings, "link", None)
    return (
        link.name,
        kind_of(link),
        "up" if link.up else "down",
        link.mtu,
        link.address or link.permanent_address,
        link.lower or other or link.path,
        link.master,
    )


# How the host differs


def difference(plan: "Plan", troubles: "Sequence[Trouble]") -> "RenderableType":
    """A line for each thing that differs, as in a diff. `troubles`: what can't be had."""
    from rich.console import Group

    from luod.network.steps import by_thing

    lines = [styled(_in_a_line(each), _STYLES[each[0].action]) for each in by_thing(plan.steps)]
    lines += [styled(f"! {each.what}: {each.reason}", "bold red") for each in troubles]
    return Group(*lines) if lines else styled(f"nothing differs: {plan.equal} as they were", "")


def difference_wire(plan: "Plan", troubles: "Sequence[Trouble]") -> Mapping[str, Any]:
    from luod.network.steps import by_thing

    steps = [_step_wire(each) for each in by_thing(plan.steps)]
    return {"steps": steps, "impossible": [wire(each) for each in troubles], "equal": plan.equal}


def _in_a_line(steps: "Sequence[Step]") -> str:
    """`~ link br0 type bridge: mtu 1500, not 9000`."""
    from luod.network.steps import changes_of
    from luod.network.words import said, said_of

    first = steps[0]
    changes = "; ".join(map(said_of, changes_of(steps))) if first.action == "set" else ""
    return f"{_MARKS[first.action]} {said(first.thing)}{': ' if changes else ''}{changes}"


def _step_wire(steps: "Sequence[Step]") -> Mapping[str, Any]:
    from pydantic_core import to_jsonable_python

    from luod.network.steps import changes_of
    from luod.network.words import said

    changes = [{"field": each.field, "before": each.before, "after": each.after} for each in changes_of(steps)]
    return {"action": steps[0].action, "what": said(steps[0].thing), "changes": to_jsonable_python(changes)}


# What came of it


def result(report: "Report") -> list[str]:
    """All of a report, for whoever has it set up now."""
    of = "" if report.taken is None else f"network of {_moment(report.taken)}: "
    return [f"{of}{_counts(report)}", *_troubles(report)]


def last_result(report: "Report") -> list[str]:
    """What there is room for of an earlier one."""
    troubles = _troubles(report)
    rest = len(troubles) - _SHOWN
    more = [f"and {rest} more: luoctl network show --json"] if rest > 0 else []
    return [f"{_moment(report.applied)}: {_counts(report)}", *troubles[:_SHOWN], *more]


def _troubles(report: "Report") -> list[str]:
    return [
        f"{word}: {each.what}: {each.reason}"
        for word, those in (("failed", report.failed), ("left as it is", report.left))
        for each in those
    ]


def _counts(report: "Report") -> str:
    """`12 set up in 0.31 s, 30 as they were, 1 failed`."""
    said = [f"{report.done} set up in {report.seconds:.2f} s", f"{report.equal} as they were"]
    many = ((report.failed, "failed"), (report.left, "left as it is"))
    return ", ".join(said + [f"{len(those)} {word}" for those, word in many if those])


def _moment(seconds: float) -> str:
    return moment(round(seconds * 1e6))
