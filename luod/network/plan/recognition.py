"""Which link there is which of those that are wanted, and under whose name: the way to the names. No I/O."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from luod.network.model import FdbEntry, Link, Nexthop, Route, Settings, Snapshot

_IDENTITIES: Final[tuple[Callable[[Link], object], ...]] = (
    lambda link: link.permanent_address and link.path and (link.permanent_address, link.path),
    lambda link: link.permanent_address and (link.permanent_address, link.name),
    lambda link: link.permanent_address,
    lambda link: link.path,
    lambda link: None if link.permanent_address or link.path else link.name,
)
"""What a physical link is recognised by: the first that it has, and that fits one which is there."""


def recognise(wanted: Sequence[Link], there: Sequence[Link]) -> dict[str, str]:
    """The names that the wanted links have there, by the names that they are wanted by: physical ones by what they
    are, if there is one such; all others by their names.
    """
    names = {link.name for link in there if link.kind != "physical"}
    found = {link.name: link.name for link in wanted if link.kind != "physical" and link.name in names}
    missing = [link for link in wanted if link.kind == "physical"]
    free = [link for link in there if link.kind == "physical"]
    for identity in _IDENTITIES:
        candidates: dict[object, list[Link]] = {}
        for link in free:
            candidates.setdefault(identity(link), []).append(link)
        for link in missing:
            same = candidates.get(identity(link), []) if identity(link) else []
            if len(same) == 1:
                found[link.name] = same.pop().name
        missing = [link for link in missing if link.name not in found]
        free = [link for link in free if link.name not in found.values()]
    return found


def as_wanted(there: Snapshot, found: Mapping[str, str]) -> Snapshot:
    """`there`, with each link under the name that it is wanted by. Somebody else's that has such a name is put out of
    the way: no link has a "/" in its name.
    """
    names = {name: f"/{name}" for name in found} | {old: new for new, old in found.items()}
    if all(old == new for new, old in found.items()):
        return there

    def called(name: str | None) -> str | None:
        return None if name is None else names.get(name, name)

    def settings(given: Settings | None) -> Settings | None:
        fields = given and {name: called(getattr(given, name)) for name in _naming(type(given))}
        return given.model_copy(update=fields) if given is not None and fields else given

    def link(given: Link) -> Link:
        fields = {"name": called(given.name), "lower": called(given.lower), "master": called(given.master)}
        return given.model_copy(update=fields | {"settings": settings(given.settings), "port": settings(given.port)})

    def nexthop(given: Nexthop) -> Nexthop:
        return given.model_copy(update={"link": called(given.link)})

    def entry(given: FdbEntry) -> FdbEntry:
        return given.model_copy(update={"link": called(given.link), "via": called(given.via)})

    def route(given: Route) -> Route:
        return given.model_copy(update={"nexthops": tuple(nexthop(each) for each in given.nexthops)})

    return there.model_copy(
        update={
            "links": tuple(link(each) for each in there.links),
            "routes": tuple(route(each) for each in there.routes),
            "fdb": tuple(entry(each) for each in there.fdb),
            **{
                field: tuple(each.model_copy(update={"link": called(each.link)}) for each in getattr(there, field))
                for field in ("vids", "addresses", "neighbours")
            },
        }
    )


def _naming(settings: type[Settings]) -> frozenset[str]:
    return settings.references() | {"peer"} & set(settings.model_fields)


def without_blocked(found: Mapping[str, str], there: Sequence[Link]) -> dict[str, str]:
    """But for those whose names are taken: by somebody else's link, or by one that can't leave it either."""
    free = dict(found)
    names = {link.name for link in there}
    while blocked := [new for new, old in free.items() if old != new and new in names - set(_moving(free))]:
        for new in blocked:
            del free[new]
    return free


def _moving(found: Mapping[str, str]) -> dict[str, str]:
    return {old: new for new, old in found.items() if old != new}


def renames(found: Mapping[str, str], there: Sequence[Link]) -> Iterator[tuple[str, str, str]]:
    """Which of those that are found goes from which name to which, one after the other, so that each comes to its own;
    none is blocked. Where they go round in a circle, one makes way.
    """
    moving = _moving(found)
    final = dict(moving)
    taken = {link.name for link in there}
    while moving:
        old = next((old for old, new in moving.items() if new not in taken), None)
        if old is None:
            old, new = next(iter(moving.items()))
            between = next(name for number in range(len(taken) + 1) if (name := f"luod{number}") not in taken)
            final[between] = moving[between] = new
        else:
            between = moving[old]
        yield final[old], old, between
        del moving[old]
        taken = taken - {old} | {between}
