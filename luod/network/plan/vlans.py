"""What the VLANs of a network's bridges lack to be as they were: a port is in exactly those that it was in. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from luod.network.model import Bridge, Link, Snapshot, Vid
from luod.network.plan.links import Links
from luod.network.relations import Thing
from luod.network.steps import Action, Change, Phase, Step

Flags: TypeAlias = tuple[bool, bool]
"""Whether it is the pvid, and untagged."""


class Vlans:
    """`steps` to them; `impossible` and `equal` as in a Plan."""

    def __init__(self, wanted: Snapshot, links: Links) -> None:
        self._links = links
        self.steps: list[Step] = []
        self.impossible: list[tuple[Thing, str]] = []
        self.equal = 0
        entries: dict[str, list[Vid]] = {link.name: [] for link in wanted.links}
        for entry in wanted.vids:
            entries.setdefault(entry.link, []).append(entry)
        self._there = spread(links.there.vids)
        for name, of_link in entries.items():
            self._settle(name, of_link)

    def _settle(self, name: str, entries: list[Vid]) -> None:
        link = self._links.wanted.get(name)
        bridge = self._bridge(link) if link else None
        if not entries and bridge is None:
            return
        master = [link.master] if link and link.master else []
        if missing := self._links.lacking([name, *master]):
            self.impossible += [(entry, f"needs {missing}") for entry in entries]
            return
        wanted = spread(entries).get(name, {})
        there = self._there.get(name, {}) if self._has_joined(name, link) else self._at_first(bridge)
        self.equal += sum(all(there.get(vid) == wanted[vid] for vid in spread([entry])[name]) for entry in entries)
        if wanted != there:
            self.steps += _steps(name, wanted, there, exactly=bridge is not None)

    def _bridge(self, link: Link) -> Link | None:
        """The one whose VLANs it has, where the kernel that they come from had them."""
        bridge = link if link.kind == "bridge" else self._links.wanted.get(link.master or "")
        settings = bridge.settings if bridge else None
        return bridge if isinstance(settings, Bridge) and settings.vlan_default_pvid is not None else None

    def _has_joined(self, name: str, link: Link | None) -> bool:
        there = self._links.by_name.get(name)
        return link is None or (there is not None and there.master == link.master)

    def _at_first(self, bridge: Link | None) -> dict[int, Flags]:
        """Those that a link is in as soon as it is a port."""
        there = self._links.by_name.get(bridge.name) if bridge else None
        if bridge is None or there is None:
            return {}
        ours, theirs = bridge.settings, there.settings
        if not isinstance(ours, Bridge) or not isinstance(theirs, Bridge) or theirs.vlan_default_pvid is None:
            return {}
        return {ours.vlan_default_pvid: (True, True)} if ours.vlan_default_pvid else {}


def _steps(link: str, wanted: Mapping[int, Flags], there: Mapping[int, Flags], *, exactly: bool) -> Iterator[Step]:
    if exactly:
        surplus = {vid: flags for vid, flags in there.items() if vid not in wanted}
        for entry in ranges(link, surplus):
            yield Step(Action.REMOVE, entry, phase=Phase.VLANS)
    for entry in ranges(link, {vid: flags for vid, flags in wanted.items() if vid not in there}):
        yield Step(Action.ADD, entry, phase=Phase.VLANS)
    for entry in ranges(link, {vid: flags for vid, flags in wanted.items() if there.get(vid, flags) != flags}):
        before = there[entry.vid]
        after = (entry.pvid, entry.untagged)
        changes = [Change(field, *pair) for field, *pair in zip(("pvid", "untagged"), before, after, strict=True)]
        yield Step(
            Action.SET, entry, tuple(change for change in changes if change.before != change.after), phase=Phase.VLANS
        )


def spread(vids: Iterable[Vid]) -> dict[str, dict[int, Flags]]:
    """By link, whether each number is the pvid, and untagged."""
    by_link: dict[str, dict[int, Flags]] = {}
    for each in vids:
        numbers = range(each.vid, (each.last or each.vid) + 1)
        by_link.setdefault(each.link, {}).update(dict.fromkeys(numbers, (each.pvid, each.untagged)))
    return by_link


def ranges(link: str, flags: Mapping[int, Flags]) -> Iterator[Vid]:
    """The VLANs of these numbers, in as few as can be; each with whether it is the pvid, and untagged."""
    run: list[int] = []
    for vid in sorted(flags):
        if run and not (vid == run[-1] + 1 and flags[vid] == flags[run[-1]]):
            yield _range(link, run, flags[run[0]])
            run = []
        run.append(vid)
    if run:
        yield _range(link, run, flags[run[0]])


def _range(link: str, run: list[int], flags: Flags) -> Vid:
    last = run[-1] if len(run) > 1 else None
    return Vid(link=link, vid=run[0], last=last, pvid=flags[0], untagged=flags[1])
