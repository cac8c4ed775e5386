"""What of a network is handed over: what is selected by name, with what it depends on. No I/O."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, TypeAlias, TypeVar

from luod.network.model import Address, FdbEntry, LeftOut, Link, Neighbour, Route, Rule, Snapshot, Vid
from luod.network.relations import Thing, link_of, needs, preferred
from luod.network.words import said

TO_GUESTS: Final = frozenset({"tun", "veth"})
"""Kinds that lead to guests and to containers: as ports of a bridge they don't come along with it."""

Links: TypeAlias = Mapping[str, Link]
_T = TypeVar("_T", Vid, Address, Neighbour, FdbEntry)


def select(everything: Snapshot, patterns: Sequence[str]) -> Snapshot:
    """What these patterns (fnmatch(3)) of links' names and other names select. None select nothing."""
    if not patterns:
        return Snapshot(taken=everything.taken, boot_id=everything.boot_id, kernel=everything.kernel)
    links = {link.name: link for link in everything.links}
    wanted = _with_what_comes_along(links, _matching(everything, patterns))
    needing = _needing(links, wanted)
    carried = frozenset(name for name in wanted if name in links and name not in needing)
    left_out = [
        *_unmatched(everything, patterns),
        *(each for each in everything.left_out if each.link is None or each.link in wanted),
        *(_needs(links[name], needed) for name, needed in needing.items()),
    ]
    return everything.model_copy(
        update={
            "handover": tuple(patterns),
            "links": tuple(_links(everything.links, carried, left_out)),
            "vids": _of(everything.vids, carried),
            "addresses": _of(everything.addresses, carried),
            "routes": tuple(_routes(everything.routes, carried, left_out)),
            "rules": tuple(rule for rule in everything.rules if _links_of(rule) <= carried),
            "neighbours": _of(everything.neighbours, carried),
            "fdb": tuple(_fdb(_of(everything.fdb, carried), carried, left_out)),
            "left_out": tuple(left_out),
        }
    )


def _matching(everything: Snapshot, patterns: Iterable[str]) -> set[str]:
    """The links, carried or not, that a pattern fits."""
    return {name for name, names in _all_names(everything) if any(_fits(names, pattern) for pattern in patterns)}


def _unmatched(everything: Snapshot, patterns: Iterable[str]) -> Iterator[LeftOut]:
    named = [names for _, names in _all_names(everything)]
    for pattern in patterns:
        if not any(_fits(names, pattern) for names in named):
            yield LeftOut(what=f"links {pattern}", reason="no link has such a name")


def _all_names(everything: Snapshot) -> Iterator[tuple[str, tuple[str, ...]]]:
    for link in everything.links:
        yield link.name, (link.name, *link.altnames)
    for left in everything.left_out:
        if left.link is not None:
            yield left.link, (left.link,)


def _fits(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _with_what_comes_along(links: Links, names: Iterable[str]) -> set[str]:
    """What links depend on, and the ports of their masters; also by names of what isn't carried."""
    ports = defaultdict(list)
    for link in links.values():
        if link.master is not None:
            ports[link.master].append(link)
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name not in links:
            continue
        of_bridge = links[name].kind == "bridge"
        waiting += [*_needed(links[name]), *preferred(links[name]).values()]
        waiting += [port.name for port in ports[name] if not (of_bridge and port.kind in TO_GUESTS)]
    return found


def _needed(link: Link) -> list[str]:
    """The links that this one can't be handed over without."""
    return [*needs(link), *([link.master] if link.master is not None else [])]


def _needing(links: Links, wanted: Iterable[str]) -> dict[str, str]:
    """The links that can't be handed over because of what they need: the name of that."""
    needed_by = defaultdict(list)
    for name in wanted:
        if name in links:
            for needed in _needed(links[name]):
                needed_by[needed].append(name)
    found: dict[str, str] = {}
    waiting = [name for name in needed_by if name not in links]
    while waiting:
        needed = waiting.pop()
        for name in needed_by[needed]:
            if name not in found:
                found[name] = needed
                waiting.append(name)
    return {name: found[name] for name in links if name in found}


def _needs(thing: Thing, needed: str) -> LeftOut:
    return LeftOut(what=said(thing), reason=f"needs {needed}", link=link_of(thing))


def _links(links: Iterable[Link], carried: frozenset[str], left_out: list[LeftOut]) -> Iterator[Link]:
    for link in links:
        if link.name not in carried:
            continue
        for setting, name in preferred(link).items():
            if name in carried:
                continue
            place, field = setting.split(".")
            left_out.append(LeftOut(what=f"{field} of {link.name}", reason=f"needs {name}", link=link.name))
            without = getattr(link, place).model_copy(update={field: None})
            link = link.model_copy(update={place: without})
        yield link


def _of(things: Iterable[_T], carried: frozenset[str]) -> tuple[_T, ...]:
    return tuple(thing for thing in things if thing.link in carried)


def _routes(routes: Iterable[Route], carried: frozenset[str], left_out: list[LeftOut]) -> Iterator[Route]:
    for route in routes:
        links = set(needs(route))
        if links <= carried:
            yield route
        elif links & carried:
            left_out.append(_needs(route, min(links - carried)))


def _fdb(entries: Iterable[FdbEntry], carried: frozenset[str], left_out: list[LeftOut]) -> Iterator[FdbEntry]:
    for entry in entries:
        if entry.via is None or entry.via in carried:
            yield entry
        else:
            left_out.append(_needs(entry, entry.via))


def _links_of(rule: Rule) -> set[str]:
    """The links that a rule names; `lo` stands for what this host sends itself."""
    return {name for name in (rule.iifname, rule.oifname) if name is not None and name != "lo"}
