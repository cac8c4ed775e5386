"""The things of a network, each in a line, as ip(8) and bridge(8) would have it. No I/O."""

import time
from collections.abc import Iterator
from typing import Final

from luod.network.abi import (
    FR_ACT_BLACKHOLE,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_UNREACHABLE,
    IFF_TAP,
    NTF_MASTER,
    NTF_PROXY,
    NUD_PERMANENT,
    RT_TABLE_DEFAULT,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BLACKHOLE,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
)
from luod.network.model import Address, FdbEntry, Link, Neighbour, Nexthop, Route, Rule, Tun, Veth, Vid, Vlan, Vxlan
from luod.network.relations import Thing
from luod.network.steps import Change

_ROUTE_TYPES: Final = {
    RTN_BLACKHOLE: "blackhole",
    RTN_UNREACHABLE: "unreachable",
    RTN_PROHIBIT: "prohibit",
    RTN_THROW: "throw",
}
_RULE_ACTIONS: Final = {
    FR_ACT_NOP: "nop",
    FR_ACT_BLACKHOLE: "blackhole",
    FR_ACT_UNREACHABLE: "unreachable",
    FR_ACT_PROHIBIT: "prohibit",
}
_TABLES: Final = {RT_TABLE_DEFAULT: "default", RT_TABLE_MAIN: "main", RT_TABLE_LOCAL: "local"}


def said(thing: Thing) -> str:
    """What it is: "address 10.0.0.1/24 dev br0"."""
    return " ".join(_words(thing))


def kind_of(link: Link) -> str:
    """What a link is, and what makes it another than its like: "vlan id 5", "tap user 1001"."""
    match link.settings:
        case Vlan(id=number) | Vxlan(id=number):
            return f"{link.kind} id {number}"
        case Tun() as tun:
            whose = (("user", tun.owner), ("group", tun.group))
            words = [f"{word} {number}" for word, number in whose if number is not None]
            return " ".join(["tap" if tun.type == IFF_TAP else "tun", *words, *["multi_queue"] * bool(tun.multi_queue)])
    return link.kind


def said_of(change: Change) -> str:
    """What is another: "mtu 1500, not 9000"."""
    value = _end if change.field.endswith("_until") else _value
    return f"{change.field.split('.')[-1]} {value(change.before)}, not {value(change.after)}"


def _end(when: object) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(when)) if isinstance(when, int | float) else "forever"


def _value(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "on" if value else "off"
        case tuple():
            return "[" + ", ".join(_value(each) for each in value) + "]"
        case Nexthop():
            return " ".join(_nexthop(value))
        case _:
            return str(value)


def _words(thing: Thing) -> Iterator[str]:
    match thing:
        case Link():
            yield from _link(thing)
        case Vid():
            yield f"vlan {thing.vid}-{thing.last}" if thing.last else f"vlan {thing.vid}"
            yield f"dev {thing.link}"
            yield from (flag for flag, on in (("pvid", thing.pvid), ("untagged", thing.untagged)) if on)
        case Address():
            yield "address"
            yield (
                f"{thing.address} peer {thing.peer}/{thing.prefixlen}"
                if thing.peer
                else f"{thing.address}/{thing.prefixlen}"
            )
            yield f"dev {thing.link}"
        case Route():
            yield from _route(thing)
        case Rule():
            yield from _rule(thing)
        case Neighbour():
            proxied = thing.flags & NTF_PROXY
            yield f"neighbour proxy {thing.address}" if proxied else f"neighbour {thing.address} lladdr {thing.mac}"
            yield f"dev {thing.link}"
        case FdbEntry():
            yield f"fdb {thing.mac} dev {thing.link}"
            yield from _fdb(thing)


def _link(link: Link) -> Iterator[str]:
    yield f"link {link.name}"
    if link.kind not in ("physical", "loopback"):
        yield f"type {kind_of(link)}"
    match link.settings:
        case Vxlan(link=lower) if lower is not None:
            yield f"dev {lower}"
        case Veth(peer=peer):
            yield f"peer {peer}"
    if link.lower is not None:
        yield f"on {link.lower}"


def _route(route: Route) -> Iterator[str]:
    yield "route"
    if route.type in _ROUTE_TYPES:
        yield _ROUTE_TYPES[route.type]
    yield "default" if route.destination == "0.0.0.0/0" else route.destination
    if route.source is not None:
        yield f"from {route.source}"
    for nexthop in route.nexthops:
        if len(route.nexthops) > 1:
            yield "nexthop"
        yield from _nexthop(nexthop)
    if route.table != RT_TABLE_MAIN:
        yield f"table {_TABLES.get(route.table, route.table)}"
    if route.realms is not None:
        yield f"realms {_realms(route.realms)}"
    if route.tos:
        yield f"tos {route.tos:#04x}"
    if route.priority:
        yield f"metric {route.priority}"


def _nexthop(nexthop: Nexthop) -> Iterator[str]:
    if nexthop.gateway is not None:
        yield f"via {nexthop.gateway}"
    if nexthop.link is not None:
        yield f"dev {nexthop.link}"
    if nexthop.weight > 1:
        yield f"weight {nexthop.weight}"
    if nexthop.realms is not None:
        yield f"realms {_realms(nexthop.realms)}"
    if nexthop.onlink:
        yield "onlink"


def _realms(both: int) -> str:
    source, destination = divmod(both, 1 << 16)
    return f"{source}/{destination}" if source else str(destination)


def _rule(rule: Rule) -> Iterator[str]:
    yield f"rule {rule.priority}:"
    if rule.family == "inet6" and rule.source is rule.destination is None:
        yield "inet6"
    if rule.invert:
        yield "not"
    yield f"from {rule.source or 'all'}"
    selectors = (
        ("to", rule.destination),
        ("tos", rule.tos or None),
        ("fwmark", None if rule.fwmark is None else f"{rule.fwmark:#x}"),
        ("iif", rule.iifname),
        ("oif", rule.oifname),
        ("ipproto", rule.ip_proto),
        ("sport", rule.sport_range and "-".join(map(str, rule.sport_range))),
        ("dport", rule.dport_range and "-".join(map(str, rule.dport_range))),
        ("uidrange", rule.uid_range and "-".join(map(str, rule.uid_range))),
        ("tun_id", rule.tun_id),
    )
    yield from (f"{word} {value}" for word, value in selectors if value is not None)
    if rule.l3mdev:
        yield "lookup [l3mdev-table]"
    elif rule.goto is not None:
        yield f"goto {rule.goto}"
    elif rule.action in _RULE_ACTIONS:
        yield _RULE_ACTIONS[rule.action]
    elif rule.table is not None:
        yield f"lookup {_TABLES.get(rule.table, rule.table)}"
    if rule.realms is not None:
        yield f"realms {_realms(rule.realms)}"


def _fdb(entry: FdbEntry) -> Iterator[str]:
    if entry.destination is not None:
        yield f"dst {entry.destination}"
    if entry.via is not None:
        yield f"via {entry.via}"
    if entry.vlan is not None:
        yield f"vlan {entry.vlan}"
    if entry.flags & NTF_MASTER:
        yield "master"
    yield "permanent" if entry.state & NUD_PERMANENT else "static"
