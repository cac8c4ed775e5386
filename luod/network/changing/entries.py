"""How the entries of the kernel's tables are said to it: as attributes of rtnetlink(7), in pyroute2's words. No I/O."""

import socket
import struct
import time
from typing import Any, Final

from luod.network.abi import (
    BRIDGE_FLAGS_SELF,
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_RANGE_BEGIN,
    BRIDGE_VLAN_INFO_RANGE_END,
    BRIDGE_VLAN_INFO_UNTAGGED,
    FIB_RULE_INVERT,
    INFINITY_LIFE_TIME,
    NUD_PERMANENT,
    RTNH_F_ONLINK,
)
from luod.network.changing.links import Number, nested
from luod.network.model import Address, FdbEntry, Neighbour, Nexthop, Route, Rule, Vid

FAMILIES: Final = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

_SAME_OF_RULES: Final = (
    *("priority", "action", "table", "goto", "tos", "iifname", "oifname", "fwmark", "fwmask", "ip_proto"),
    *("l3mdev", "tun_id", "suppress_prefixlen", "suppress_ifgroup", "protocol"),
)
_RANGES_OF_RULES: Final = ("sport_range", "dport_range", "uid_range")


def vid(entry: Vid, number: Number, *, of_the_bridge: bool) -> dict[str, Any]:
    flags = BRIDGE_VLAN_INFO_PVID if entry.pvid else 0
    flags |= BRIDGE_VLAN_INFO_UNTAGGED if entry.untagged else 0
    infos = [{"flags": flags, "vid": entry.vid}]
    if entry.last is not None:
        infos = [
            {"flags": flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, "vid": entry.vid},
            {"flags": flags | BRIDGE_VLAN_INFO_RANGE_END, "vid": entry.last},
        ]
    said: list[tuple[str, Any]] = [("IFLA_BRIDGE_FLAGS", BRIDGE_FLAGS_SELF)] if of_the_bridge else []
    said += [("IFLA_BRIDGE_VLAN_INFO", info) for info in infos]
    return {"index": number(entry.link), "IFLA_AF_SPEC": nested(said)}


def address(entry: Address, number: Number) -> dict[str, Any]:
    """All but its flags."""
    said: dict[str, Any] = {
        "index": number(entry.link),
        "family": FAMILIES[entry.family],
        "address": entry.peer or entry.address,
        "local": entry.address if entry.peer or entry.family == "inet" else None,
        "prefixlen": entry.prefixlen,
        "broadcast": entry.broadcast,
        "label": entry.label,
        "scope": entry.scope,
        "proto": entry.protocol or None,
        "rt_priority": entry.priority or None,
    }
    if entry.valid_until is not None or entry.preferred_until is not None:
        ends = {"valid": _left(entry.valid_until), "preferred": _left(entry.preferred_until)}
        said |= {**ends, "cacheinfo": ends}  # pyroute2 before 0.9 takes them from there
    return _given(said)


def route(entry: Route, number: Number) -> dict[str, Any]:
    said: dict[str, Any] = {
        "family": FAMILIES[entry.family],
        **_prefix("dst", entry.destination),
        **_prefix("src", entry.source),
        "tos": entry.tos,
        "table": entry.table,
        "proto": entry.protocol or "unspec",  # for pyroute2 0 is none
        "scope": entry.scope,
        "type": entry.type,
        "priority": entry.priority or None,
        "prefsrc": entry.prefsrc,
        "pref": entry.pref,
        "metrics": dict(entry.metrics) or None,
        "RTA_FLOW": entry.realms,
    }
    if entry.valid_until is not None:
        said["RTA_EXPIRES"] = struct.pack("=I", _left(entry.valid_until))
    match entry.nexthops:
        case [nexthop]:
            hop = _hop(nexthop, entry, number)
            said |= {"oif": hop["oif"] or None, "flags": hop["flags"], **dict(hop["attrs"])}
        case [_, *_] as several:
            said["multipath"] = [_hop(nexthop, entry, number) for nexthop in several]
    return _given(said)


def _hop(nexthop: Nexthop, of: Route, number: Number) -> dict[str, Any]:
    attributes: list[tuple[str, Any]] = []
    if nexthop.gateway is not None:
        family = socket.AF_INET6 if ":" in nexthop.gateway else socket.AF_INET
        if family == FAMILIES[of.family]:
            attributes.append(("RTA_GATEWAY", nexthop.gateway))
        else:
            attributes.append(("RTA_VIA", {"family": family, "addr": nexthop.gateway}))
    if nexthop.realms is not None:
        attributes.append(("RTA_FLOW", nexthop.realms))
    return {
        "oif": number(nexthop.link) if nexthop.link is not None else 0,
        "hops": nexthop.weight - 1,
        "flags": RTNH_F_ONLINK if nexthop.onlink else 0,
        **nested(attributes),
    }


def rule(entry: Rule) -> dict[str, Any]:
    ranges = {name: getattr(entry, name) for name in _RANGES_OF_RULES}
    said: dict[str, Any] = {
        "family": FAMILIES[entry.family],
        "flags": FIB_RULE_INVERT if entry.invert else 0,
        **_prefix("src", entry.source),
        **_prefix("dst", entry.destination),
        **{name: getattr(entry, name) for name in _SAME_OF_RULES},
        "FRA_FLOW": entry.realms,
        **{name: f"{of[0]}:{of[1]}" for name, of in ranges.items() if of is not None},
    }
    return _given(said)


def neighbour(entry: Neighbour, number: Number) -> dict[str, Any]:
    said = {
        "family": FAMILIES[entry.family],
        "ifindex": number(entry.link),
        "dst": entry.address,
        "lladdr": entry.mac,
        "state": NUD_PERMANENT,
        "flags": entry.flags,
    }
    return _given(said)


def fdb(entry: FdbEntry, number: Number) -> dict[str, Any]:
    said = {
        "family": socket.AF_BRIDGE,
        "ifindex": number(entry.link),
        "lladdr": entry.mac,
        "state": entry.state,
        "flags": entry.flags,
        "NDA_DST": entry.destination,
        "NDA_VLAN": entry.vlan,
        "NDA_PORT": entry.port,
        "NDA_VNI": entry.vni,
        "NDA_SRC_VNI": entry.src_vni,
        "NDA_IFINDEX": number(entry.via) if entry.via is not None else None,
    }
    return _given(said)


def _given(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def _prefix(name: str, prefix: str | None) -> dict[str, Any]:
    """A prefix as its address and its length; without the address where there is nothing in it."""
    address, _, length = (prefix or "/0").partition("/")
    return {f"{name}_len": int(length), **({name: address} if int(length) else {})}


def _left(until: float | None) -> int:
    """The seconds until then."""
    return INFINITY_LIFE_TIME if until is None else max(0, round(until - time.time()))
