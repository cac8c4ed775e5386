"""What a network lacks to be as it was: the steps to it, in the order in which they can be done. No I/O."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from luod.network.model import Address, FdbEntry, Link, Neighbour, Route, Rule, Snapshot, Vid

Thing: TypeAlias = Link | Vid | Address | Route | Rule | Neighbour | FdbEntry


class Action(StrEnum):
    ADD = "add"
    SET = "set"
    REMOVE = "remove"


@dataclass(frozen=True)
class Change:
    """A field of what is there, or of its `settings` or `port` ("settings.vlan_filtering"), that is another."""

    field: str
    before: object
    after: object


@dataclass(frozen=True)
class Step:
    """`thing` is as wanted; as it is, where it is removed. `there`: the name that a link has yet."""

    action: Action
    thing: Thing
    changes: tuple[Change, ...] = ()
    there: str | None = None


@dataclass(frozen=True)
class Plan:
    """`steps`, in their order; `impossible`: what can't be had, and why; `equal`: how much is as wanted already."""

    steps: tuple[Step, ...]
    impossible: tuple[tuple[Thing, str], ...]
    equal: int


def plan(wanted: Snapshot, there: Snapshot, now: float) -> Plan:
    """`now`: seconds since 1970, for what ends by itself."""
    raise NotImplementedError
