"""What a network lacks to be as it was. No I/O.

A link that isn't there is but made; how it differs then from what is wanted shows when it is looked at again.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Final

from luod.network.model import Address, FdbEntry, Neighbour, Route, Rule, Snapshot
from luod.network.plan.links import Links
from luod.network.plan.vlans import Vlans
from luod.network.relations import Thing, key, needs
from luod.network.steps import Action, Change, Phase, Plan, Step

_ENDS: Final = frozenset({"valid_until", "preferred_until"})
_NONE_IS_NONE: Final = frozenset({"prefsrc"})
"""The fields of which None says that there is none; of all others, that nobody knows."""

_PHASES: Final[dict[type[Thing], Phase]] = {
    Address: Phase.ADDRESSES,
    Rule: Phase.RULES,
    Neighbour: Phase.NEIGHBOURS,
    FdbEntry: Phase.FDB,
}


def plan(wanted: Snapshot, there: Snapshot, now: float) -> Plan:
    """`now`: seconds since 1970, for what ends by itself."""
    links = Links(wanted, there)
    vlans = Vlans(wanted, links)
    rest = _Rest(links, now)
    rest.settle(_as_added(wanted.addresses), links.there.addresses)
    rest.settle_routes(wanted.routes, links.there.routes)
    rest.settle(wanted.rules, links.there.rules)
    rest.settle(wanted.neighbours, links.there.neighbours)
    rest.settle(wanted.fdb, links.there.fdb)
    steps = [*links.steps, *vlans.steps, *rest.steps]
    return Plan(
        tuple(sorted(steps, key=lambda step: step.phase)),
        (*links.impossible, *vlans.impossible, *rest.impossible),
        links.equal + vlans.equal + rest.equal,
        links.awaited,
        links.names,
    )


def _as_added(addresses: Iterable[Address]) -> Iterator[Address]:
    """In the order that they are dumped in again when they are added in it: the newest one of IPv6 comes first."""
    addresses = list(addresses)
    yield from (each for each in addresses if each.family == "inet")
    yield from (each for each in reversed(addresses) if each.family == "inet6")


class _Rest:
    """What links have, and routes and rules. All of its lists but `steps` as in a Plan; `steps` are in no order yet."""

    def __init__(self, links: Links, now: float) -> None:
        self._links = links
        self._now = now
        self.steps: list[Step] = []
        self.impossible: list[tuple[Thing, str]] = []
        self.equal = 0

    def settle(self, wanted: Iterable[Thing], there: Iterable[Thing]) -> None:
        """Those of which the kernel has but one of a key."""
        by_key = {key(thing): thing for thing in there}
        for thing in wanted:
            self._settle_one(thing, by_key.get(key(thing)))

    def settle_routes(self, wanted: Iterable[Route], there: Iterable[Route]) -> None:
        """Those to one destination stay beside one another where all that are there are wanted; else one that isn't
        gives way.
        """
        by_key: dict[Hashable, list[Route]] = defaultdict(list)
        for route in there:
            by_key[key(route)].append(route)
        together: dict[Hashable, list[Route]] = defaultdict(list)
        for route in wanted:
            together[key(route)].append(route)
        for which, routes in together.items():
            others = by_key[which]
            same = [next((other for other in others if not differences(route, other)), None) for route in routes]
            gives_way = next(iter(others), None) if not any(same) else None
            for route, other in zip(routes, same, strict=True):
                self._settle_one(route, other or gives_way)
                gives_way = None

    def _settle_one(self, thing: Thing, there: Thing | None) -> None:
        changes = differences(thing, there) if there is not None else ()
        if there is not None and not changes:
            self.equal += 1
        elif (missing := self._links.lacking(needs(thing))) is not None:
            self.impossible.append((thing, f"needs {missing}"))
        elif isinstance(thing, Address | Route) and _is_over(thing, self._now):
            self.impossible.append((thing, "its time is over"))
        else:
            action = Action.ADD if there is None else Action.SET
            self.steps.append(Step(action, thing, changes, phase=_phase(thing)))


def differences(thing: Thing, there: Thing) -> tuple[Change, ...]:
    """The fields of the one that are others in what is in its place. When an end is doesn't count, only whether."""
    return tuple(
        Change(field, before, after)
        for field in type(thing).model_fields
        if (after := getattr(thing, field)) != (before := getattr(there, field, None))
        and (after is not None or field in _ENDS | _NONE_IS_NONE)
        and not (field in _ENDS and None not in (before, after))
        and not (field == "nexthops" and Counter(before) == Counter(after))
    )


def _is_over(thing: Address | Route, now: float) -> bool:
    return thing.valid_until is not None and thing.valid_until <= now


def _phase(thing: Thing) -> Phase:
    if isinstance(thing, Route):
        return Phase.GATEWAYS if any(nexthop.gateway for nexthop in thing.nexthops) else Phase.ROUTES
    return _PHASES[type(thing)]
