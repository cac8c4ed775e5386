"""The routes that there are, but for those that the kernel makes by itself."""

from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path
from socket import AF_INET6, inet_pton
from typing import Any, NamedTuple, TypeAlias

from pyroute2 import IPRoute

from luod.network.abi import (
    RT_TABLE_LOCAL,
    RTF_ADDRCONF,
    RTM_F_CLONED,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    RTPROT_KERNEL,
    RTPROT_RA,
    RTPROT_REDIRECT,
    USER_HZ,
)
from luod.network.model import FOREVER, WITHOUT_NEXTHOPS, LeftOut, Nexthop, Route
from luod.network.reading.addresses import Prefix, prefix
from luod.network.reading.links import Links
from luod.network.reading.messages import FAMILIES, Nested, Told, dump
from luod.network.words import said


def routes(ip: IPRoute, links: Links, prefixes: Set[Prefix], taken: float) -> Iterator[Route | LeftOut]:
    """`prefixes`: those of the addresses."""
    advertised = cache(_advertised)
    for family in FAMILIES:
        for message in dump(ip.route, family=family):
            if message["family"] != family or message["flags"] & RTM_F_CLONED or message["proto"] == RTPROT_REDIRECT:
                continue
            told = Told(message)
            table = told("RTA_TABLE") or message["table"]
            if message["proto"] == RTPROT_KERNEL and _follows(message, told, table, prefixes):
                continue
            is_of_router = family == AF_INET6 and message["proto"] == RTPROT_RA
            if is_of_router and _of_router(message, told, links) in advertised():
                continue
            if (route := _route(message, told, table, links, taken)) is not None:
                yield route


def _follows(message: Any, told: Told, table: int, prefixes: Set[Prefix]) -> bool:
    """Whether the kernel has made this route, or will, for an address or a link. NetworkManager makes others."""
    if table == RT_TABLE_LOCAL or message["type"] != RTN_UNICAST:
        return True
    family, length = message["family"], message["dst_len"]
    destination, number = told("RTA_DST"), told("RTA_OIF")
    if "RTA_GATEWAY" in told or destination is None or number is None:
        return False
    if family == AF_INET6 and (destination, length) in {("fe80::", 64), ("ff00::", 8)}:
        return True
    return prefix(family, number, destination, length) in prefixes


_Advertised: TypeAlias = tuple[str | None, bytes, int, bytes, int]
"""Link, destination and its length, gateway, metric."""


def _advertised() -> set[_Advertised]:
    """The routes that the kernel itself has made of what routers advertise, and will again, if there is none like it:
    beside one that isn't its own it heeds no advertisement any more (ndisc_router_discovery). Others make such routes,
    too, and only here it says which are its own.
    """
    try:
        lines = Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()
    except OSError:  # a kernel without IPv6
        return set()
    found: set[_Advertised] = set()
    for line in lines:
        destination, length, _, _, gateway, metric, _, _, flags, link = line.split()
        if int(flags, 16) & RTF_ADDRCONF:
            found.add((link, bytes.fromhex(destination), int(length, 16), bytes.fromhex(gateway), int(metric, 16)))
    return found


def _of_router(message: Any, told: Told, links: Links) -> _Advertised:
    destination, gateway = (inet_pton(AF_INET6, told(name) or "::") for name in ("RTA_DST", "RTA_GATEWAY"))
    link = links.name(told("RTA_OIF"))
    return link, destination, message["dst_len"], gateway, told("RTA_PRIORITY") or 0


def _route(message: Any, told: Told, table: int, links: Links, taken: float) -> Route | LeftOut | None:
    """None where its link has come since the links were looked at."""
    family = FAMILIES[message["family"]]
    destination = f"{told('RTA_DST') or ('0.0.0.0' if family == 'inet' else '::')}/{message['dst_len']}"
    hops = _hops(message, told)
    if any(hop.number and links.name(hop.number) is None for hop in hops):
        return None
    expires = (told("RTA_CACHEINFO") or {}).get("rta_expires") or 0
    route = Route(
        family=family,
        destination=destination,
        source=f"{told('RTA_SRC')}/{message['src_len']}" if "RTA_SRC" in told else None,
        tos=message["tos"],
        table=table,
        protocol=message["proto"],
        scope=message["scope"],
        type=message["type"],
        priority=told("RTA_PRIORITY") or 0,
        nexthops=tuple(_nexthop(links, hop) for hop in hops),
        prefsrc=told("RTA_PREFSRC"),
        realms=told("RTA_FLOW") if not hops else None,
        metrics=_metrics(told("RTA_METRICS")),
        pref=told("RTA_PREF"),
        valid_until=taken + expires / USER_HZ if expires > 0 else FOREVER,
    )
    if "RTA_ENCAP_TYPE" in told or any("RTA_ENCAP_TYPE" in hop.told for hop in hops):
        link = route.nexthops[0].link if hops else None
        return LeftOut(what=said(route), reason="routes that encapsulate aren't handed over", link=link)
    if hops and not (hops[0].number or hops[0].told("RTA_GATEWAY")):
        reason = "the kernel doesn't tell its next hops (net.ipv4.nexthop_compat_mode)"
        return LeftOut(what=said(route), reason=reason)
    return route


class _Hop(NamedTuple):
    number: int | None
    flags: int
    told: Told | Nested
    weight: int


def _hops(message: Any, told: Told) -> list[_Hop]:
    if message["type"] in WITHOUT_NEXTHOPS:
        return []
    if several := told("RTA_MULTIPATH"):
        return [_Hop(hop["oif"], hop["flags"], Nested(hop), hop["hops"] + 1) for hop in several]
    return [_Hop(told("RTA_OIF"), message["flags"], told, 1)]


def _nexthop(links: Links, hop: _Hop) -> Nexthop:
    via = hop.told("RTA_VIA")
    return Nexthop(
        link=links.name(hop.number),
        gateway=via["addr"] if via else hop.told("RTA_GATEWAY"),
        weight=hop.weight,
        onlink=bool(hop.flags & RTNH_F_ONLINK),
        realms=hop.told("RTA_FLOW"),
    )


def _metrics(value: Any) -> dict[str, int | str]:
    if not value:
        return {}
    named = ((slot[0], slot[1]) for slot in value["attrs"] if slot[0].startswith("RTAX_"))
    return {name.removeprefix("RTAX_").lower(): metric for name, metric in named}
