"""The steps from one network to another, and their order. No I/O."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum, auto
from typing import Final

from luod.network.model import Link
from luod.network.relations import Thing, key


class Action(StrEnum):
    ADD = "add"
    SET = "set"
    REMOVE = "remove"


class Phase(IntEnum):
    """When a step is done: the order of everything."""

    RENAME = auto()
    MAKE = auto()
    """Those that others stand on first, as in every phase of links."""
    NAMES = auto()
    SETTINGS = auto()
    """While it is down: much of a bond can't be set any more when it is up, or has a port."""
    JOIN = auto()
    """Its master. A port of a bond loses its addresses by that."""
    PORT = auto()
    PORTS = auto()
    """What a link has to say of its ports."""
    VLANS = auto()
    LINK_LOCAL = auto()
    """How it chooses its link-local address, which it does when it comes up."""
    UP = auto()
    """With its MTU, which can't be more than that of what it stands on, its MAC and its flags. IPv4 routes and IPv6
    addresses come after it: whoever goes down loses them.
    """
    ADDRESSES = auto()
    ROUTES = auto()
    GATEWAYS = auto()
    """Routes by way of a gateway, which another route leads to."""
    RULES = auto()
    NEIGHBOURS = auto()
    FDB = auto()


OF_FIELDS: Final[Mapping[str, Phase]] = {
    "name": Phase.RENAME,
    "altnames": Phase.NAMES,
    "alias": Phase.NAMES,
    "settings": Phase.SETTINGS,
    "master": Phase.JOIN,
    "port": Phase.PORT,
    "settings.primary": Phase.PORTS,
    "addr_gen_mode": Phase.LINK_LOCAL,
}
"""When a field of a link is set; all others when it comes up."""


@dataclass(frozen=True)
class Change:
    """A field of what is there, or of its `settings` or `port` ("settings.vlan_filtering"), that is another."""

    field: str
    before: object
    after: object

    @property
    def phase(self) -> Phase:
        return OF_FIELDS.get(self.field) or OF_FIELDS.get(self.field.split(".")[0], Phase.UP)


@dataclass(frozen=True)
class Step:
    """`thing` is as wanted; as it is, where it is removed. `there`: the name that a link has yet."""

    action: Action
    thing: Thing
    changes: tuple[Change, ...] = ()
    there: str | None = None
    phase: Phase = Phase.MAKE


def by_thing(steps: Iterable[Step]) -> list[list[Step]]:
    """The steps that do the same to the same thing, together where the first of them is."""
    found: dict[tuple[Action, Hashable], list[Step]] = {}
    for step in steps:
        found.setdefault((step.action, key(step.thing)), []).append(step)
    return list(found.values())


def changes_of(steps: Sequence[Step]) -> list[Change]:
    """How that differs which all of them are of. What a link has as a port shows only when it has joined its master."""
    joins = any(step.phase is Phase.JOIN for step in steps)
    return [change for step in steps if not (joins and step.phase is Phase.PORT) for change in step.changes]


@dataclass(frozen=True)
class Plan:
    """`steps`, in their order; `impossible`: what can't be had, and why; `equal`: how much is as wanted already;
    `awaited`: the physical links that aren't there; `names`: those that the links have which are there, by the ones
    that are wanted.
    """

    steps: tuple[Step, ...]
    impossible: tuple[tuple[Thing, str], ...]
    equal: int
    awaited: tuple[Link, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
