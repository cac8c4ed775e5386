"""What there is in this network namespace, by rtnetlink: all of it that somebody has set, as models.

What the kernel tells, and what it makes by itself: net/core/rtnetlink.c, net/ipv4/devinet.c, net/ipv6/addrconf.c,
net/bridge/br_fdb.c.
"""

import errno
import gc
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from socket import AF_BRIDGE, AF_INET, AF_INET6, AF_UNSPEC
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_NEWRULE
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from luod.network.lacking import complete, numbered
from luod.network.model import (
    Address,
    Bond,
    BondPort,
    Bridge,
    BridgePort,
    Family,
    FdbEntry,
    LeftOut,
    Link,
    Macvlan,
    Neighbour,
    Nexthop,
    Route,
    Rule,
    Settings,
    Snapshot,
    Tun,
    Veth,
    Vid,
    Vlan,
    Vxlan,
)

complete()

FAMILIES: Final[Mapping[int, Family]] = {AF_INET: "inet", AF_INET6: "inet6"}
BITS: Final[Mapping[int, int]] = {AF_INET: 32, AF_INET6: 128}

ARPHRD_LOOPBACK: Final = 772
IFF_UP: Final = 0x1
IFF_NOARP: Final = 0x80
IFF_PROMISC: Final = 0x100
IFF_ALLMULTI: Final = 0x200
IFF_MULTICAST: Final = 0x1000

RTEXT_FILTER_BRVLAN_COMPRESSED: Final = 0x4
RTEXT_FILTER_SKIP_STATS: Final = 0x8

BRIDGE_VLAN_INFO_PVID: Final = 0x2
BRIDGE_VLAN_INFO_UNTAGGED: Final = 0x4
BRIDGE_VLAN_INFO_RANGE_BEGIN: Final = 0x8
BRIDGE_VLAN_INFO_RANGE_END: Final = 0x10

IFA_F_TEMPORARY: Final = 0x1
IFA_F_DADFAILED: Final = 0x8
IFA_F_NOPREFIXROUTE: Final = 0x200
IFA_F_STABLE_PRIVACY: Final = 0x800
IFA_F_SETTABLE: Final = 0x2 | 0x10 | 0x100 | IFA_F_NOPREFIXROUTE | 0x400
IFAPROT_KERNEL_LO: Final = 1
IFAPROT_KERNEL_LL: Final = 3
LIFETIME_WITHOUT_END: Final = 0xFFFFFFFF

RT_TABLE_LOCAL: Final = 255
RTPROT_REDIRECT: Final = 1
RTPROT_KERNEL: Final = 2
RTN_UNICAST: Final = 1
RTN_WITHOUT_NEXTHOPS: Final = frozenset({6, 7, 8, 9})
RTM_F_CLONED: Final = 0x200
RTNH_F_ONLINK: Final = 0x4
CLOCKS_PER_SECOND: Final = 100
"""What the kernel tells the time of a route in (USER_HZ)."""

BOND_FOM_ACTIVE: Final = 1

FIB_RULE_INVERT: Final = 0x2
FR_ACT_TO_TBL: Final = 1
FR_ACT_GOTO: Final = 2
FRA_PORT_MASKS: Final = frozenset({28, 29})
USUAL_RULES: Final = frozenset({(0, 255), (32766, 254), (32767, 253)})
"""Priority and table of those that every kernel has."""

NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
NTF_SELF: Final = 0x2
NTF_MASTER: Final = 0x4
NTF_EXT_LEARNED: Final = 0x10
NTF_OFFLOADED: Final = 0x20
NTF_STICKY: Final = 0x40
NTF_ROUTER: Final = 0x80
NO_TEXT: Final = "\ufffd"
"""Where something wasn't in UTF-8."""
NO_MAC: Final = "00:00:00:00:00:00"

NLM_F_DUMP_INTR: Final = 0x10
NLA_TYPE_MASK: Final = 0x3FFF
ATTRIBUTE: Final = struct.Struct("HH")
PATIENCE: Final = 1.0
"""Seconds for which the kernel is asked again where a network changed while it told of it; then that has to do."""

OF_KIND: Final[Mapping[str, type[Settings]]] = {
    settings.model_fields["kind"].default: settings for settings in (Bridge, Vlan, Bond, Veth, Tun, Vxlan, Macvlan)
}
OF_PORT: Final[Mapping[str, type[Settings]]] = {"bridge": BridgePort, "bond": BondPort}
WITHOUT_SETTINGS: Final = frozenset({"dummy"})
WITH_LOWER: Final = frozenset({"vlan", "macvlan"})


_S = TypeVar("_S", bound=Settings)


class _NotCarried(Exception):
    """A link can't be handed over. The text says why."""


@dataclass(frozen=True)
class Look:
    """What there is, and the numbers that links have now, by their names: also of those that are left out."""

    snapshot: Snapshot
    numbers: dict[str, int]


def look(ip: IPRoute, sysfs: Path = Path("/sys")) -> Look:
    """Look at everything. Raises OSError where the kernel doesn't answer."""
    ip.register_policy(LEAN)
    try:
        with _uncollected():
            reader = _Reader(ip, sysfs)
            return Look(reader.snapshot(), {name: number for number, name in reader.names.items()})
    finally:
        ip.register_policy(POLICY)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's garbage collector: the more there is that all lasts, the more it looks at, again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class _Message:
    """Mixed into a message of pyroute2's: its attributes are decoded when they are asked for, for most never are.

    pyroute2 before 0.9 throws away what it was told of a network that changed meanwhile: this keeps that from it.
    """

    interrupted = False

    def decode(self: Any) -> None:
        super().decode()  # type: ignore[misc]
        header = self["header"]
        if header["flags"] & NLM_F_DUMP_INTR:
            self.interrupted = True
            header["flags"] &= ~NLM_F_DUMP_INTR

    def decode_nlas(self: Any, offset: int) -> None:
        """What pyroute2 calls to have all of them decoded."""
        self.first = offset

    def places(self: Any) -> dict[int, tuple[int, int]]:
        """Where each attribute is, by its number, and how long it is."""
        found: dict[int, tuple[int, int]] = {}
        offset, end = self.first, self.offset + self.length
        while offset + ATTRIBUTE.size <= end:
            length, number = ATTRIBUTE.unpack_from(self.data, offset)
            found.setdefault(number & NLA_TYPE_MASK, (offset, length))
            offset += (max(length, ATTRIBUTE.size) + 3) & ~3
        return found

    def attribute_at(self: Any, offset: int, length: int) -> Any:
        """One attribute."""
        whole = self.length
        self.length = offset + length - self.offset
        super().decode_nlas(offset)  # type: ignore[misc]
        self.length = whole
        return self["attrs"][-1]


def _lean(message: type[Any]) -> type[Any]:
    numbers = {name: number for number, name, *_ in numbered(message.nla_map)}
    return type(message.__name__, (_Message, message), {"numbers": numbers})


POLICY: Final = {
    RTM_NEWLINK: ifinfmsg,
    RTM_NEWADDR: ifaddrmsg,
    RTM_NEWROUTE: rtmsg,
    RTM_NEWNEIGH: ndmsg,
    RTM_NEWRULE: fibmsg,
}
LEAN: Final = {number: _lean(message) for number, message in POLICY.items()}


class _Told:
    """The attributes of a message, by their names."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._places: dict[int, tuple[int, int]] = message.places()

    def _slot(self, name: str) -> Any:
        place = self._places.get(self._message.numbers.get(name))
        return None if place is None else self._message.attribute_at(*place)

    def __contains__(self, name: str) -> bool:
        return self._message.numbers.get(name) in self._places

    def __call__(self, name: str) -> Any:
        slot = self._slot(name)
        return None if slot is None else _text(slot[1])

    def nested(self, name: str) -> "_Attributes":
        return _Attributes(self(name))

    def unknown(self) -> Iterator[tuple[int, bytes]]:
        """Those that pyroute2 has no name for: their numbers and contents."""
        known = set(self._message.numbers.values())
        for number, (offset, length) in self._places.items():
            if number not in known:
                yield number, bytes(self._message.data[offset + ATTRIBUTE.size : offset + length])


class _Attributes:
    """Those of another attribute, by their names."""

    def __init__(self, attribute: Any) -> None:
        self._slots = {slot[0]: slot for slot in attribute["attrs"]} if attribute else {}

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def __call__(self, name: str) -> Any:
        slot = self._slots.get(name)
        return None if slot is None else slot[1]

    def nested(self, name: str) -> "_Attributes":
        return _Attributes(self(name))

    def raw(self, name: str) -> bytes:
        """As the kernel has sent it, without the header."""
        slot = self._slots.get(name)
        return b"" if slot is None else _payload(slot)


def _text(value: Any) -> Any:
    """A value; what isn't in UTF-8 comes as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _payload(slot: Any) -> bytes:
    nla = slot.nla
    return bytes(nla.data[nla.offset + 4 : nla.offset + nla.length])


def _unknown(message: Any) -> Iterator[tuple[int, bytes]]:
    """The attributes that pyroute2 has no name for: their numbers and contents."""
    for slot in message["attrs"]:
        if slot[0] == "UNKNOWN":
            nla = slot.nla
            yield int.from_bytes(bytes(nla.data[nla.offset + 2 : nla.offset + 4]), "little") & 0x3FFF, _payload(slot)


def _dump(method: Callable[..., Iterable[Any]], **asked: Any) -> list[Any]:
    """The messages of a dump. `match` keeps pyroute2 before 0.9 from taking what is asked as a filter."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            messages = list(method("dump", match={}, **asked))
        except NetlinkError as error:
            if error.code in {errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
                return []
            raise OSError(error.code, os.strerror(error.code)) from None
        if not any(message.interrupted for message in messages) or time.monotonic() > until:
            return messages


class _Reader:
    def __init__(self, ip: IPRoute, sysfs: Path) -> None:
        self._ip = ip
        self._sysfs = sysfs
        self._taken = time.time()
        self._left_out: list[LeftOut] = []
        self._messages = [
            (message, _Told(message)) for message in _dump(ip.link, family=AF_UNSPEC, ext_mask=RTEXT_FILTER_SKIP_STATS)
        ]
        self.names: dict[int, str] = {
            message["index"]: attributes("IFLA_IFNAME") for message, attributes in self._messages
        }
        self._like_their_ports = {
            message["index"]
            for message, attributes in self._messages
            if (info := attributes.nested("IFLA_LINKINFO"))("IFLA_INFO_KIND") == "bond"
            and info.nested("IFLA_INFO_DATA")("IFLA_BOND_FAIL_OVER_MAC") == BOND_FOM_ACTIVE
        }
        """The bonds that have the address of the port that they use."""
        self._macs: dict[int, str] = {}
        self._kinds: dict[int, str] = {}
        self._default_destinations: dict[int, str] = {}
        self._prefixes: set[tuple[int, int, int, int]] = set()
        """Family, link, the bits of the prefix, their number: of each address that the kernel makes a route for."""

    def snapshot(self) -> Snapshot:
        links = tuple(self._links())
        addresses = tuple(self._addresses())
        return Snapshot(
            taken=self._taken,
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            kernel=os.uname().release,
            links=links,
            vids=tuple(self._vids()),
            addresses=addresses,
            routes=tuple(self._routes()),
            rules=tuple(self._rules()),
            neighbours=tuple(self._neighbours()),
            fdb=tuple(self._fdb()),
            left_out=tuple(self._left_out),
        )

    def _leave_out(self, what: str, reason: str, link: str | None) -> None:
        self._left_out.append(LeftOut(what=what, reason=reason, link=link))

    def _links(self) -> Iterator[Link]:
        for message, attributes in self._messages:
            name = self.names[message["index"]]
            try:
                yield self._link(message["index"], message["ifi_type"], message["flags"], attributes)
            except _NotCarried as left:
                self._leave_out(f"link {name}", str(left), name)

    def _link(self, number: int, device_type: int, flags: int, attributes: _Told) -> Link:
        name = self.names[number]
        info = attributes.nested("IFLA_LINKINFO")
        address = attributes("IFLA_ADDRESS")
        permanent = attributes("IFLA_PERM_ADDRESS")
        kind = info("IFLA_INFO_KIND")
        self._kinds[number] = kind or ""
        if address is not None:
            self._macs[number] = address
        if NO_TEXT in name:
            raise _NotCarried("its name is no text")
        if "IFLA_LINK_NETNSID" in attributes:
            raise _NotCarried(f"the other end of this {kind} is in another network namespace")
        path = None
        if kind is None:
            kind = "loopback"
            if device_type != ARPHRD_LOOPBACK:
                kind = "physical"
                path = plugged_in(self._sysfs / "class/net" / name, attributes("IFLA_PHYS_PORT_NAME"))
                if path is None and permanent is None:
                    raise _NotCarried("it is neither a device nor of a kind that is known")
        elif kind not in OF_KIND and kind not in WITHOUT_SETTINGS:
            raise _NotCarried(f"links of the kind {kind} aren't handed over")
        lower = self._name(attributes("IFLA_LINK")) if kind in WITH_LOWER else None
        port_kind = info("IFLA_INFO_SLAVE_KIND")
        inet6 = attributes.nested("IFLA_AF_SPEC").nested("AF_INET6")
        properties = attributes("IFLA_PROP_LIST")
        alias = attributes("IFLA_IFALIAS")
        if alias is not None and NO_TEXT in alias:
            self._leave_out(f"alias of {name}", "it is no text", name)
            alias = None
        return Link(
            name=name,
            kind=kind,
            altnames=tuple(slot[1] for slot in properties["attrs"] if isinstance(slot[1], str)) if properties else (),
            alias=alias,
            mtu=attributes("IFLA_MTU"),
            address=address if kind != "loopback" and self._is_its_own(number, attributes) else None,
            permanent_address=permanent if kind == "physical" else None,
            path=path,
            txqlen=attributes("IFLA_TXQLEN"),
            group=attributes("IFLA_GROUP") or 0,
            addr_gen_mode=inet6("IFLA_INET6_ADDR_GEN_MODE"),
            up=bool(flags & IFF_UP),
            arp=not flags & IFF_NOARP,
            multicast=bool(flags & IFF_MULTICAST),
            allmulticast=bool(flags & IFF_ALLMULTI),
            promiscuous=bool(flags & IFF_PROMISC),
            lower=lower,
            master=self._name(attributes("IFLA_MASTER")),
            settings=self._settings(number, kind, attributes, info) if kind in OF_KIND else None,
            port=self._filled(OF_PORT[port_kind], info.nested("IFLA_INFO_SLAVE_DATA"))
            if port_kind in OF_PORT
            else None,
        )

    def _is_its_own(self, number: int, attributes: _Told) -> bool:
        """Whether a link's address isn't another's: a port of a bond has that one's, or the other way round."""
        if attributes.nested("IFLA_LINKINFO")("IFLA_INFO_SLAVE_KIND") == "bond":
            return attributes("IFLA_MASTER") in self._like_their_ports
        return number not in self._like_their_ports

    def _name(self, number: int | None) -> str | None:
        return self.names.get(number) if number else None

    def _settings(self, number: int, kind: str, attributes: _Told, info: _Attributes) -> Any:
        if kind == "veth":
            peer = self._name(attributes("IFLA_LINK"))
            if peer is None:
                raise _NotCarried("its peer isn't there")
            return Veth(peer=peer)
        data = info.nested("IFLA_INFO_DATA")
        if kind == "vxlan":
            if VXLAN_VNIFILTER in dict(_unknown(info("IFLA_INFO_DATA"))):
                raise _NotCarried("vxlans with a VNI filter aren't handed over")
            if remote := data("IFLA_VXLAN_GROUP") or data("IFLA_VXLAN_GROUP6"):
                self._default_destinations[number] = remote
        return self._filled(OF_KIND[kind], data)

    def _filled(self, settings: type[_S], data: _Attributes) -> _S:
        given = {}
        for field, attribute, reference, meaning in _fields(settings):
            if attribute in data:
                value = meaning(data(attribute)) if meaning else data(attribute)
                given[field] = self.names.get(value) if reference else value
        if settings is Vxlan and (inherit := data.raw("IFLA_VXLAN_TTL_INHERIT")):
            given["ttl_inherit"] = bool(inherit[0])
        return settings(**given)

    def _vids(self) -> Iterator[Vid]:
        if "bridge" not in self._kinds.values():
            return
        for message in _dump(self._ip.link, family=AF_BRIDGE, ext_mask=RTEXT_FILTER_BRVLAN_COMPRESSED):
            link = self.names.get(message["index"])
            spec = _Told(message)("IFLA_AF_SPEC")
            if link is None or not spec:
                continue
            first = None
            for slot in spec["attrs"]:
                if slot[0] != "IFLA_BRIDGE_VLAN_INFO":
                    continue
                vid, flags = slot[1]["vid"], slot[1]["flags"]
                if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN:
                    first = vid
                    continue
                pvid, untagged = bool(flags & BRIDGE_VLAN_INFO_PVID), bool(flags & BRIDGE_VLAN_INFO_UNTAGGED)
                begin = first if first is not None and flags & BRIDGE_VLAN_INFO_RANGE_END else vid
                first = None
                last = vid if begin < vid else None
                yield Vid(link=link, vid=begin, last=last, pvid=pvid, untagged=untagged)

    def _addresses(self) -> Iterator[Address]:
        each = ((family, message) for family in FAMILIES for message in _dump(self._ip.addr, family=family))
        for family, message in each:
            number, prefixlen = message["index"], message["prefixlen"]
            link = self.names.get(number)
            if link is None or message["family"] != family:
                continue
            attributes = _Told(message)
            far = attributes("IFA_ADDRESS")
            near = attributes("IFA_LOCAL") or far
            flags = attributes("IFA_FLAGS")
            if flags is None:
                flags = message["flags"]
            if not flags & IFA_F_NOPREFIXROUTE:
                self._prefixes.add((family, number, _prefix(family, far or near, prefixlen), prefixlen))
            protocol = attributes("IFA_PROTO") or 0
            if _is_the_kernels(family, near, prefixlen, flags, protocol):
                continue
            if flags & IFA_F_DADFAILED:
                what = f"address {near}/{prefixlen} dev {link}"
                self._leave_out(what, "somebody else has this address (duplicate address detection)", link)
                continue
            label = attributes("IFA_LABEL")
            times = attributes("IFA_CACHEINFO")
            yield Address(
                link=link,
                family=FAMILIES[family],
                address=near,
                prefixlen=prefixlen,
                peer=far if far != near else None,
                broadcast=attributes("IFA_BROADCAST"),
                label=label if label != link else None,
                scope=message["scope"],
                flags=flags & IFA_F_SETTABLE,
                protocol=protocol,
                priority=attributes("IFA_RT_PRIORITY") or 0,
                valid_until=self._end(times["ifa_valid"]) if times else None,
                preferred_until=self._end(times["ifa_preferred"]) if times else None,
            )

    def _end(self, seconds: int) -> float | None:
        return None if seconds == LIFETIME_WITHOUT_END else self._taken + seconds

    def _routes(self) -> Iterator[Route]:
        for family in FAMILIES:
            for message in _dump(self._ip.route, family=family):
                if message["family"] != family or message["flags"] & RTM_F_CLONED:
                    continue
                if message["proto"] == RTPROT_REDIRECT:
                    continue
                attributes = _Told(message)
                table = attributes("RTA_TABLE") or message["table"]
                if message["proto"] == RTPROT_KERNEL and self._follows(message, attributes, table):
                    continue
                yield from self._route(message, attributes, table)

    def _follows(self, message: Any, attributes: _Told, table: int) -> bool:
        """Whether the kernel has made this route, or will, for an address or a link. NetworkManager makes others."""
        if table == RT_TABLE_LOCAL or message["type"] != RTN_UNICAST or "RTA_GATEWAY" in attributes:
            return table == RT_TABLE_LOCAL or message["type"] != RTN_UNICAST
        family, length, number = message["family"], message["dst_len"], attributes("RTA_OIF")
        destination = attributes("RTA_DST")
        if destination is None or number is None:
            return False
        if family == AF_INET6 and (destination, length) in {("fe80::", 64), ("ff00::", 8)}:
            return True
        return (family, number, _prefix(family, destination, length), length) in self._prefixes

    def _route(self, message: Any, attributes: _Told, table: int) -> Iterator[Route]:
        family = FAMILIES[message["family"]]
        destination = f"{attributes('RTA_DST') or ('0.0.0.0' if family == 'inet' else '::')}/{message['dst_len']}"
        hops: tuple[Nexthop, ...] = ()
        encapsulated = "RTA_ENCAP_TYPE" in attributes
        if message["type"] not in RTN_WITHOUT_NEXTHOPS:
            if several := attributes("RTA_MULTIPATH"):
                each = [(hop, _Attributes(hop)) for hop in several]
                encapsulated = any("RTA_ENCAP_TYPE" in of for _, of in each)
                hops = tuple(self._nexthop(hop["oif"], hop["flags"], of, hop["hops"] + 1) for hop, of in each)
            else:
                hops = (self._nexthop(attributes("RTA_OIF"), message["flags"], attributes, 1),)
        if encapsulated:
            what = f"route {destination}" + (f" table {table}" if table != 254 else "")
            self._leave_out(what, "routes that encapsulate aren't handed over", hops[0].link if hops else None)
            return
        expires = (attributes("RTA_CACHEINFO") or {}).get("rta_expires") or 0
        yield Route(
            family=family,
            destination=destination,
            source=f"{attributes('RTA_SRC')}/{message['src_len']}" if "RTA_SRC" in attributes else None,
            tos=message["tos"],
            table=table,
            protocol=message["proto"],
            scope=message["scope"],
            type=message["type"],
            priority=attributes("RTA_PRIORITY") or 0,
            nexthops=hops,
            prefsrc=attributes("RTA_PREFSRC"),
            metrics=_metrics(attributes("RTA_METRICS")),
            pref=attributes("RTA_PREF"),
            valid_until=self._taken + expires / CLOCKS_PER_SECOND if expires > 0 else None,
        )

    def _nexthop(self, number: int | None, flags: int, attributes: _Told | _Attributes, weight: int) -> Nexthop:
        via = attributes("RTA_VIA")
        return Nexthop(
            link=self._name(number),
            gateway=via["addr"] if via else attributes("RTA_GATEWAY"),
            weight=weight,
            onlink=bool(flags & RTNH_F_ONLINK),
        )

    def _rules(self) -> Iterator[Rule]:
        for message in _dump(self._ip.rule, family=AF_UNSPEC):
            family = FAMILIES.get(message["family"])
            if family is None:
                continue
            attributes = _Told(message)
            suppressed = attributes("FRA_SUPPRESS_PREFIXLEN")
            rule = Rule(
                family=family,
                priority=attributes("FRA_PRIORITY") or 0,
                action=message["action"],
                table=(attributes("FRA_TABLE") or None) if message["action"] == FR_ACT_TO_TBL else None,
                goto=attributes("FRA_GOTO") if message["action"] == FR_ACT_GOTO else None,
                invert=bool(message["flags"] & FIB_RULE_INVERT),
                source=f"{attributes('FRA_SRC')}/{message['src_len']}" if "FRA_SRC" in attributes else None,
                destination=f"{attributes('FRA_DST')}/{message['dst_len']}" if "FRA_DST" in attributes else None,
                tos=message["tos"],
                iifname=attributes("FRA_IIFNAME"),
                oifname=attributes("FRA_OIFNAME"),
                fwmark=attributes("FRA_FWMARK"),
                fwmask=attributes("FRA_FWMASK"),
                ip_proto=attributes("FRA_IP_PROTO"),
                sport_range=_range(attributes("FRA_SPORT_RANGE")),
                dport_range=_range(attributes("FRA_DPORT_RANGE")),
                uid_range=_range(attributes("FRA_UID_RANGE")),
                l3mdev=attributes("FRA_L3MDEV"),
                tun_id=attributes("FRA_TUN_ID"),
                suppress_prefixlen=suppressed if suppressed != 0xFFFFFFFF else None,
                suppress_ifgroup=attributes("FRA_SUPPRESS_IFGROUP"),
                protocol=attributes("FRA_PROTOCOL"),
            )
            more = [number for number, value in attributes.unknown() if not _is_a_whole_port(number, value)]
            if more or "FRA_FLOW" in attributes:
                what = f"rule {rule.priority} of {family}"
                self._leave_out(what, "it has a selector that isn't handed over", rule.iifname or rule.oifname)
            elif not _is_usual(rule):
                yield rule

    def _neighbours(self) -> Iterator[Neighbour]:
        for message in _dump(self._ip.neigh, family=AF_UNSPEC):
            family, link = FAMILIES.get(message["family"]), self.names.get(message["ifindex"])
            if family is None or link is None or not message["state"] & NUD_PERMANENT:
                continue
            attributes = _Told(message)
            mac = attributes("NDA_LLADDR")
            if mac:
                flags = message["flags"] & NTF_ROUTER
                yield Neighbour(link=link, family=family, address=attributes("NDA_DST"), mac=mac, flags=flags)

    def _fdb(self) -> Iterator[FdbEntry]:
        if not {"bridge", "vxlan"} & set(self._kinds.values()):
            return
        for message in _dump(self._ip.neigh, family=AF_BRIDGE):
            number, state, flags = message["ifindex"], message["state"], message["flags"]
            link = self.names.get(number)
            if link is None or not (state & (NUD_PERMANENT | NUD_NOARP) or flags & NTF_EXT_LEARNED):
                continue
            vxlan = self._kinds.get(number) == "vxlan"
            if flags & NTF_OFFLOADED or (flags & NTF_SELF and not vxlan):
                continue
            attributes = _Told(message)
            mac, master, destination = attributes("NDA_LLADDR"), attributes("NDA_MASTER"), attributes("NDA_DST")
            if flags & NTF_SELF:
                if mac == NO_MAC and destination == self._default_destinations.get(number):
                    continue
            elif master is None or (state & NUD_PERMANENT and mac in {self._macs.get(number), self._macs.get(master)}):
                continue
            else:
                flags |= NTF_SELF if number == master else NTF_MASTER
            yield FdbEntry(
                link=link,
                mac=mac,
                state=state,
                flags=flags & (NTF_SELF | NTF_MASTER | NTF_EXT_LEARNED | NTF_STICKY),
                vlan=attributes("NDA_VLAN"),
                destination=destination,
                port=attributes("NDA_PORT"),
                vni=attributes("NDA_VNI"),
                src_vni=attributes("NDA_SRC_VNI"),
                via=self._name(attributes("NDA_IFINDEX")),
            )


VXLAN_VNIFILTER: Final = 30

_MACVLAN_MODES: Final = {"none": 0, "private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16}
_MACVLAN_FLAGS: Final = {"none": 0, "nopromisc": 1}

_MEANINGS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "IFLA_VLAN_FLAGS": lambda value: value["flags"],
    "IFLA_VLAN_EGRESS_QOS": lambda value: tuple((slot[1]["from"], slot[1]["to"]) for slot in value["attrs"]),
    "IFLA_VLAN_INGRESS_QOS": lambda value: tuple((slot[1]["from"], slot[1]["to"]) for slot in value["attrs"]),
    "IFLA_VXLAN_PORT_RANGE": lambda value: (value["low"], value["high"]),
    "IFLA_VXLAN_LABEL": socket.ntohl,
    "IFLA_MACVLAN_MODE": lambda value: _MACVLAN_MODES.get(value, value),
    "IFLA_MACVLAN_FLAGS": lambda value: _MACVLAN_FLAGS.get(value, value),
    "IFLA_MACVLAN_MACADDR_DATA": lambda value: tuple(slot[1] for slot in value["attrs"]),
}
"""What a field is by what pyroute2 makes of its attribute, where that isn't the same."""

_ELSEWHERE: Final = {"IFLA_MACVLAN_MACADDR": "IFLA_MACVLAN_MACADDR_DATA"}
"""Attributes that are told under another name than they are set by."""


@cache
def _fields(settings: type[Settings]) -> tuple[tuple[str, str, bool, Callable[[Any], Any] | None], ...]:
    """Of each field its name, its attribute, whether that is the number of a link, and what is to be done to it."""
    references = settings.references()
    named = ((field, settings.PREFIX + field.upper()) for field in settings.model_fields if field != "kind")
    told = ((field, _ELSEWHERE.get(attribute, attribute)) for field, attribute in named)
    return tuple((field, attribute, field in references, _MEANINGS.get(attribute)) for field, attribute in told)


def plugged_in(directory: Path, port: str | None) -> str | None:
    """Where a link is, by its directory in sysfs and the name of its port; None if it is no device."""
    device = Path(os.path.realpath(directory / "device"))
    if not device.exists():
        return None
    while device.name.startswith("virtio"):  # numbered as they come
        device = device.parent
    bus = os.path.basename(os.path.realpath(device / "subsystem"))
    if not port:
        try:
            port = (directory / "dev_port").read_text().strip()
        except OSError:
            port = ""
    return f"{bus}-{device.name}" + (f"/{port}" if port not in {"", "0"} else "")


def _prefix(family: int, address: str, length: int) -> int:
    return int.from_bytes(socket.inet_pton(family, address), "big") >> (BITS[family] - length)


def _is_the_kernels(family: int, address: str, prefixlen: int, flags: int, protocol: int) -> bool:
    """Whether the kernel makes this address by itself. Older kernels, and older pyroute2, don't say so."""
    if family == AF_INET:
        return (address, prefixlen) == ("127.0.0.1", 8)
    if address == "::1" or flags & IFA_F_TEMPORARY or protocol in {IFAPROT_KERNEL_LO, IFAPROT_KERNEL_LL}:
        return True
    if protocol or not address.startswith("fe80:") or prefixlen != 64:
        return False
    interface = socket.inet_pton(family, address)[8:]
    return bool(flags & IFA_F_STABLE_PRIVACY) or interface[3:5] == b"\xff\xfe"  # made of a MAC (EUI-64)


def _metrics(value: Any) -> dict[str, int | str]:
    if not value:
        return {}
    named = ((slot[0], slot[1]) for slot in value["attrs"] if slot[0].startswith("RTAX_"))
    return {name.removeprefix("RTAX_").lower(): metric for name, metric in named}


def _range(value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    first, last = value.split(":")
    return int(first), int(last)


def _is_a_whole_port(number: int, value: bytes) -> bool:
    """Whether an attribute of a rule says of a port only that all of it counts."""
    return number in FRA_PORT_MASKS and value[:2] in {b"\xff\xff", b"\0\0"}


def _is_usual(rule: Rule) -> bool:
    """Whether each kernel has this rule: or one with VRFs."""
    if rule.l3mdev:
        return rule.protocol == RTPROT_KERNEL
    if (rule.priority, rule.table) not in USUAL_RULES:
        return False
    same = Rule(family=rule.family, priority=rule.priority, action=FR_ACT_TO_TBL, table=rule.table)
    return rule == same.model_copy(update={"protocol": rule.protocol})
