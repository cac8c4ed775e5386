"""What the things of a network are to one another: which is which, and which needs which. No I/O."""

from collections.abc import Hashable, Iterable
from typing import Final, TypeAlias

from luod.network.abi import NTF_MASTER, NTF_PROXY
from luod.network.model import Address, FdbEntry, Link, Neighbour, Route, Rule, Veth, Vid, Vxlan

PREFERRED: Final = ("settings.primary", "port.backup_port")
"""The settings that name a link without which a link can be."""

Thing: TypeAlias = Link | Vid | Address | Route | Rule | Neighbour | FdbEntry


def key(thing: Thing) -> Hashable:
    """What makes it this one and no other: the kernel has but one of a key, except of routes."""
    match thing:
        case Link():
            return Link, thing.name
        case Vid():
            return Vid, thing.link, thing.vid
        case Address(family="inet"):
            return Address, thing.link, thing.address, thing.prefixlen, thing.peer
        case Address():
            return Address, thing.link, thing.address
        case Route():
            return Route, thing.family, thing.destination, thing.source, thing.tos, thing.table, thing.priority
        case Rule():
            return thing
        case Neighbour():
            return Neighbour, thing.link, thing.family, thing.address, thing.flags & NTF_PROXY
        case FdbEntry() if is_one_of_many(thing):
            return FdbEntry, thing.link, thing.mac, thing.destination, thing.port, thing.vni, thing.src_vni, thing.via
        case FdbEntry():
            return FdbEntry, thing.link, thing.mac, thing.vlan, thing.src_vni, thing.flags & NTF_MASTER


def is_one_of_many(entry: FdbEntry) -> bool:
    """Whether a vxlan sends to several destinations what it is for: multicast, or all that it knows no other for."""
    return entry.destination is not None and (bool(int(entry.mac[:2], 16) & 1) or set(entry.mac) == {"0", ":"})


def needs(thing: Thing) -> list[str]:
    """The links without which it can't be."""
    match thing:
        case Link(settings=Veth(peer=other)) | Link(settings=Vxlan(link=other)):
            names = [thing.lower, other]
        case Link():
            names = [thing.lower]
        case Route():
            names = [nexthop.link for nexthop in thing.nexthops]
        case Rule():
            names = []
        case FdbEntry():
            names = [thing.link, thing.via]
        case _:
            names = [thing.link]
    return [name for name in names if name is not None]


def preferred(link: Link) -> dict[str, str]:
    """The links that those name, by the setting."""
    found = {}
    for setting in PREFERRED:
        place, field = setting.split(".")
        name = getattr(getattr(link, place), field, None)
        if name is not None:
            found[setting] = name
    return found


def link_of(thing: Thing) -> str | None:
    """The link that it is, or is of; None where it is of several, or of none."""
    match thing:
        case Link():
            return thing.name
        case Route() | Rule():
            return None
        case _:
            return thing.link


def lower_first(links: Iterable[Link]) -> list[Link]:
    """So that each stands behind those that it stands on."""
    pending = {link.name: link for link in links}
    order: list[Link] = []
    while pending:
        waiting = {name for name, link in pending.items() if any(lower in pending for lower in _lower(link))}
        waiting = waiting if len(waiting) < len(pending) else set()
        order += [link for name, link in pending.items() if name not in waiting]
        pending = {name: pending[name] for name in pending if name in waiting}
    return order


def _lower(link: Link) -> list[str]:
    return [] if isinstance(link.settings, Veth) else needs(link)
