"""What the links of a network lack to be as they were. No I/O."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from luod.network.model import BondPort, Link, Settings, Snapshot
from luod.network.plan.recognition import as_wanted, recognise, renames, without_blocked
from luod.network.relations import PREFERRED, lower_first, needs
from luod.network.steps import Action, Change, Phase, Step

_IN_PASSING: Final = frozenset({"master", *PREFERRED})
"""The fields that name a link without which a link can be nevertheless."""
_NOT_SET: Final = frozenset({"name", "kind", "permanent_address", "path", "lower", "altnames", "settings", "port"})
_UNORDERED: Final = frozenset({"macaddr"})
"""What the kernel tells in the order of a hash table."""


class Links:
    """`steps` to them; `impossible`, `equal`, `awaited` and `names` as in a Plan. `there` is what was seen, with each
    link under the name that it is wanted by; `lost`: those that can't be had, and why.
    """

    def __init__(self, wanted: Snapshot, there: Snapshot) -> None:
        known = recognise(wanted.links, there.links)
        self.names = without_blocked(known, there.links)
        self.there = as_wanted(there, self.names)
        self.by_name = {link.name: link for link in self.there.links}
        self.wanted = {link.name: link for link in wanted.links}
        self.awaited = tuple(link for link in wanted.links if link.kind == "physical" and link.name not in known)
        self.lost: dict[str, str] = {}
        self.steps: list[Step] = []
        self.impossible: list[tuple[Link, str]] = []
        self.equal = 0
        for name, before, after in renames(self.names, there.links):
            change = Change("name", before, after)
            self.steps.append(Step(Action.SET, self.wanted[name], (change,), before, Phase.RENAME))
        self._plan(lower_first(wanted.links))
        self.names = {name: there for name, there in self.names.items() if name not in self.lost}

    def lacking(self, names: list[str]) -> str | None:
        """The first of them that neither is there nor can be."""
        return next((name for name in names if name in self.lost or not self._is_somewhere(name)), None)

    def _is_somewhere(self, name: str) -> bool:
        return name in self.by_name or name in self.wanted

    def _plan(self, order: list[Link]) -> None:
        self.lost = {link.name: why for link in order if (why := self._barred(link)) is not None}
        for link in order:
            if link.name not in self.lost and (name := self.lacking(needs(link))) is not None:
                self.lost[link.name] = f"needs {name}"
        for link in order:
            if link.name in self.lost:
                self.impossible.append((link, self.lost[link.name]))
            elif link.name not in self.by_name:
                self.steps.append(Step(Action.ADD, link))
            else:
                self._set(link, self.by_name[link.name])

    def _barred(self, link: Link) -> str | None:
        """Why it can't be had, by what is there in its place."""
        if link in self.awaited:
            return f"no link with {identity(link)} is there"
        there = self.by_name.get(link.name)
        if link.kind == "physical" and link.name not in self.names:
            return f"the name {link.name} is taken" + (f" by {_a(there.kind)}" if there else "")
        if there is None:
            return None
        if there.kind != link.kind:
            return f"the name {link.name} is taken by {_a(there.kind)}"
        if link.lower is not None and there.lower != link.lower:
            return f"the name {link.name} is taken by one on {there.lower}, not on {link.lower}"
        for name in sorted(type(link.settings).FIXED) if link.settings and there.settings else ():
            ours, theirs = getattr(link.settings, name), getattr(there.settings, name)
            if None not in (ours, theirs) and ours != theirs:
                return f"the name {link.name} is taken by one with {name} {theirs}, not {ours}"
        return None

    def _set(self, link: Link, there: Link) -> None:
        """The steps to what differs, one for each phase."""
        steps: dict[Phase, list[Change]] = defaultdict(list)
        missing: str | None = None
        for change in changes(link, there):
            named = [str(change.after)] if change.field in _IN_PASSING and change.after is not None else []
            if lacking := self.lacking(named):
                missing = missing or lacking
            else:
                steps[change.phase].append(change)
        if missing is not None:
            self.impossible.append((link, f"needs {missing}"))
            if link.master is not None and self.lacking([link.master]):
                steps.pop(Phase.PORT, None)
        self.steps += [Step(Action.SET, link, tuple(of), link.name, phase) for phase, of in steps.items()]
        self.equal += not steps and missing is None and self.names.get(link.name, link.name) == link.name


def changes(link: Link, there: Link) -> Iterator[Change]:
    """Its fields that are others there, as far as it says what they should be."""
    if missing := [name for name in link.altnames if name not in there.altnames]:
        yield Change("altnames", there.altnames, (*there.altnames, *missing))
    for name in Link.model_fields:
        before, after = getattr(there, name), getattr(link, name)
        if name not in _NOT_SET and before != after and (after is not None or name == "master"):
            yield Change(name, before, after)
    yield from _settings("settings", link.settings, there.settings)
    joins = link.master is not None and link.master != there.master
    yield from _settings("port", link.port, _at_first(link.port) if joins else there.port)


def _at_first(port: Settings | None) -> Settings | None:
    """What is set of a port as soon as it is one, where that is known."""
    return BondPort(queue_id=0, prio=0) if isinstance(port, BondPort) else None


def _settings(field: str, ours: Settings | None, theirs: Settings | None) -> Iterator[Change]:
    for name, after in ours.given().items() if ours else ():
        before = getattr(theirs, name, None)
        if name in _UNORDERED and before is not None and set(before) == set(after):
            continue
        if before != after:
            yield Change(f"{field}.{name}", before, after)


def identity(link: Link) -> str:
    """What it is known by, as one that is physical."""
    if link.permanent_address is None:
        return f"the path {link.path}" if link.path else f"the name {link.name}"
    return f"the permanent address {link.permanent_address}" + (f" ({link.path})" if link.path else "")


def _a(kind: str) -> str:
    return {"physical": "another physical link", "loopback": "the loopback link"}.get(kind, f"a {kind}")
