"""What changes a network: one step at a time, by rtnetlink(7)."""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from luod.network import taps
from luod.network.attributes import IFF_UP, making, nested, setting
from luod.network.model import (
    Address,
    BondPort,
    FdbEntry,
    Link,
    Neighbour,
    Nexthop,
    Route,
    Rule,
    Snapshot,
    Tun,
    Veth,
    Vid,
)
from luod.network.relations import is_one_of_many
from luod.network.steps import Action, Change, Phase, Step

FAMILIES: Final = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

BRIDGE_FLAGS_SELF: Final = 2
BRIDGE_VLAN_INFO_PVID: Final = 0x2
BRIDGE_VLAN_INFO_UNTAGGED: Final = 0x4
BRIDGE_VLAN_INFO_RANGE_BEGIN: Final = 0x8
BRIDGE_VLAN_INFO_RANGE_END: Final = 0x10
IFA_F_NODAD: Final = 0x2
RTNH_F_ONLINK: Final = 0x4
FIB_RULE_INVERT: Final = 0x2
NUD_PERMANENT: Final = 0x80
WITHOUT_END: Final = 0xFFFFFFFF


class Refused(Exception):
    """The kernel didn't do it. The text says why; `code` is its errno."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class Changer:
    """`wanted`: what all of it comes to; `numbers`: those of the links that are there, by their names there."""

    def __init__(self, ip: IPRoute, wanted: Snapshot, numbers: Mapping[str, int]) -> None:
        self._ip = ip
        self._wanted = {link.name: link for link in wanted.links}
        self._numbers = dict(numbers)
        self._with_its_peer: set[str] = set()
        """Those that came as the other end of a veth."""

    def do(self, step: Step) -> None:
        """Raises Refused."""
        with _refusals():
            match step.thing:
                case Link():
                    (self._set if step.action is Action.SET else self._make)(step)
                case Vid():
                    self._vid(step.action, step.thing)
                case Address():
                    self._address(step.action, step.thing)
                case Route():
                    self._ip.route("append" if step.action is Action.ADD else "replace", **self._route(step.thing))
                case Rule():
                    self._ip.rule("add", **_rule(step.thing))
                case Neighbour():
                    self._neighbour(step.thing)
                case FdbEntry():
                    self._fdb(step.thing)

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            try:
                self._numbers[name] = socket.if_nametoindex(name)
            except OSError:
                raise Refused(f"there is no link {name}", errno.ENODEV) from None
        return self._numbers[name]

    # Links

    def _make(self, step: Step) -> None:
        link = step.thing
        assert isinstance(link, Link)
        if isinstance(link.settings, Tun):
            taps.make(link.name, link.settings)
            return
        if link.name in self._with_its_peer:
            return
        peer = self._wanted.get(link.settings.peer) if isinstance(link.settings, Veth) else None
        try:
            self._ip.link("add", **making(link, peer, self._number))
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                raise Refused(f"this kernel has no links of the kind {link.kind}: {_text(error)}", error.code) from None
            raise
        if peer is not None:
            self._with_its_peer.add(peer.name)

    def _set(self, step: Step) -> None:
        link = step.thing
        assert isinstance(link, Link)
        number = self._number(step.there or link.name)
        if step.phase is Phase.RENAME:
            self._rename(number, str(step.changes[0].after))
        elif isinstance(link.settings, Tun) and step.phase is Phase.SETTINGS:
            taps.own(link.name, link.settings)
        elif step.phase is Phase.JOIN and isinstance(link.port, BondPort):
            self._ip.link("set", index=number, flags=0, change=IFF_UP)
            self._set_each(number, link, step.changes)
        elif step.phase is Phase.NAMES:
            self._name(number, link, step.changes)
        else:
            self._set_each(number, link, step.changes)

    def _rename(self, number: int, name: str) -> None:
        try:
            self._while_down(number, {"ifname": name})
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            self._ip.link("property_del", index=number, altname=[name])  # it may be one of its own
            self._while_down(number, {"ifname": name})

    def _name(self, number: int, link: Link, changes: Sequence[Change]) -> None:
        self._set_each(number, link, [change for change in changes if change.field != "altnames"])
        for change in changes:
            if change.field == "altnames" and isinstance(change.after, tuple) and isinstance(change.before, tuple):
                new = [name for name in change.after if name not in change.before]
                self._ip.link("property_add", index=number, altname=new)

    def _set_each(self, number: int, link: Link, changes: Sequence[Change]) -> None:
        """All of it at once. Where that is refused, each by itself: one alone may be what is refused."""
        if not changes:
            return
        try:
            self._while_down(number, setting(link, changes, self._number))
            return
        except NetlinkError as error:
            if len(changes) == 1:
                raise Refused(f"{_field(changes[0])}: {_text(error)}", error.code) from None
        refused = []
        for change in changes:
            try:
                self._while_down(number, setting(link, [change], self._number))
            except NetlinkError as error:
                refused.append((f"{_field(change)}: {_text(error)}", error.code))
        if refused:
            raise Refused("; ".join(text for text, _ in refused), refused[0][1])

    def _while_down(self, number: int, said: Mapping[str, Any]) -> None:
        """Where it can't be set while the link is up, take that down for the moment."""
        try:
            self._ip.link("set", index=number, **said)
        except NetlinkError as error:
            if error.code != errno.EBUSY or not self._is_up(number):
                raise
            self._ip.link("set", index=number, flags=0, change=IFF_UP)
            try:
                self._ip.link("set", index=number, **said)
            finally:
                self._ip.link("set", index=number, flags=IFF_UP, change=IFF_UP)

    def _is_up(self, number: int) -> bool:
        return any(message["flags"] & IFF_UP for message in self._ip.get_links(number))

    # Bridge VLANs

    def _vid(self, action: Action, vid: Vid) -> None:
        of_the_bridge = vid.link in self._wanted and self._wanted[vid.link].kind == "bridge"
        flags = BRIDGE_VLAN_INFO_PVID if vid.pvid else 0
        flags |= BRIDGE_VLAN_INFO_UNTAGGED if vid.untagged else 0
        entries = [(flags, vid.vid)]
        if vid.last is not None:
            entries = [
                (flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, vid.vid),
                (flags | BRIDGE_VLAN_INFO_RANGE_END, vid.last),
            ]
        said: list[tuple[str, Any]] = [("IFLA_BRIDGE_FLAGS", BRIDGE_FLAGS_SELF)] if of_the_bridge else []
        said += [("IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": number}) for flags, number in entries]
        command = "del" if action is Action.REMOVE else "add"
        self._ip.vlan_filter(command, index=self._number(vid.link), IFLA_AF_SPEC=nested(said))

    # What links have

    def _address(self, action: Action, address: Address) -> None:
        said: dict[str, Any] = {
            "index": self._number(address.link),
            "family": FAMILIES[address.family],
            "address": address.peer or address.address,
            "local": address.address if address.peer or address.family == "inet" else None,
            "prefixlen": address.prefixlen,
            "broadcast": address.broadcast,
            "label": address.label,
            "scope": address.scope,
            "proto": address.protocol or None,
            "rt_priority": address.priority or None,
        }
        if address.valid_until is not None or address.preferred_until is not None:
            ends = {"valid": _left(address.valid_until), "preferred": _left(address.preferred_until)}
            said |= {**ends, "cacheinfo": ends}
        add = "add" if action is Action.ADD else "replace"
        if address.family == "inet6" and not address.flags & IFA_F_NODAD:
            # Nobody else has taken it in the meantime: without asking around it is there at once.
            self._ip.addr(add, IFA_FLAGS=address.flags | IFA_F_NODAD, **said)
            add = "replace"
        self._ip.addr(add, IFA_FLAGS=address.flags, **said)

    def _route(self, route: Route) -> dict[str, Any]:
        said: dict[str, Any] = {
            "family": FAMILIES[route.family],
            **_prefix("dst", route.destination),
            **_prefix("src", route.source),
            "tos": route.tos,
            "table": route.table,
            "proto": route.protocol or "unspec",
            "scope": route.scope,
            "type": route.type,
            "priority": route.priority or None,
            "prefsrc": route.prefsrc,
            "pref": route.pref,
            "metrics": dict(route.metrics) or None,
        }
        if route.valid_until is not None:
            said["RTA_EXPIRES"] = struct.pack("=I", _left(route.valid_until))
        match route.nexthops:
            case []:
                return said
            case [nexthop]:
                flags = RTNH_F_ONLINK if nexthop.onlink else 0
                link = self._number(nexthop.link) if nexthop.link is not None else None
                return said | {"oif": link, "flags": flags, **dict(_gateway(nexthop, route))}
            case several:
                return said | {"multipath": [self._hop(nexthop, route) for nexthop in several]}

    def _hop(self, nexthop: Nexthop, route: Route) -> dict[str, Any]:
        return {
            "oif": self._number(nexthop.link) if nexthop.link is not None else 0,
            "hops": nexthop.weight - 1,
            "flags": RTNH_F_ONLINK if nexthop.onlink else 0,
            **nested(_gateway(nexthop, route)),
        }

    def _neighbour(self, neighbour: Neighbour) -> None:
        self._ip.neigh(
            "replace",
            family=FAMILIES[neighbour.family],
            ifindex=self._number(neighbour.link),
            dst=neighbour.address,
            lladdr=neighbour.mac,
            state=NUD_PERMANENT,
            flags=neighbour.flags,
        )

    def _fdb(self, entry: FdbEntry) -> None:
        said = {
            "NDA_DST": entry.destination,
            "NDA_VLAN": entry.vlan,
            "NDA_PORT": entry.port,
            "NDA_VNI": entry.vni,
            "NDA_SRC_VNI": entry.src_vni,
            "NDA_IFINDEX": self._number(entry.via) if entry.via is not None else None,
        }
        self._ip.neigh(
            "append" if is_one_of_many(entry) else "replace",
            family=socket.AF_BRIDGE,
            ifindex=self._number(entry.link),
            lladdr=entry.mac,
            state=entry.state,
            flags=entry.flags,
            **{name: value for name, value in said.items() if value is not None},
        )


def _rule(rule: Rule) -> dict[str, Any]:
    same = ("priority", "action", "table", "goto", "tos", "iifname", "oifname", "fwmark", "fwmask", "ip_proto")
    more = ("l3mdev", "tun_id", "suppress_prefixlen", "suppress_ifgroup", "protocol")
    ranges = ("sport_range", "dport_range", "uid_range")
    said: dict[str, Any] = {
        "family": FAMILIES[rule.family],
        "flags": FIB_RULE_INVERT if rule.invert else 0,
        **_prefix("src", rule.source),
        **_prefix("dst", rule.destination),
        **{name: getattr(rule, name) for name in (*same, *more)},
        **{name: value and f"{value[0]}:{value[1]}" for name in ranges for value in [getattr(rule, name)]},
    }
    return {name: value for name, value in said.items() if value is not None}


def _prefix(name: str, prefix: str | None) -> dict[str, Any]:
    """A prefix as its address and its length; without the address where there is nothing in it."""
    address, _, length = (prefix or "/0").partition("/")
    return {f"{name}_len": int(length), **({name: address} if int(length) else {})}


def _gateway(nexthop: Nexthop, route: Route) -> list[tuple[str, Any]]:
    if nexthop.gateway is None:
        return []
    family = socket.AF_INET6 if ":" in nexthop.gateway else socket.AF_INET
    if family == FAMILIES[route.family]:
        return [("RTA_GATEWAY", nexthop.gateway)]
    return [("RTA_VIA", {"family": family, "addr": nexthop.gateway})]


def _left(until: float | None) -> int:
    """The seconds until then."""
    return WITHOUT_END if until is None else max(0, round(until - time.time()))


def _field(change: Change) -> str:
    return change.field.split(".")[-1]


def _text(error: NetlinkError) -> str:
    return str(error.args[1]) if len(error.args) > 1 else os.strerror(error.code)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise Refused(_text(error), error.code) from None
    except OSError as error:
        raise Refused(error.strerror or str(error), error.errno or 0) from None
