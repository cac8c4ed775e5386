"""The links that there are, and what they are set to."""

import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from socket import AF_UNSPEC
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pyroute2 import IPRoute

from luod.network.abi import (
    ARPHRD_LOOPBACK,
    BOND_FOM_ACTIVE,
    BOND_MODE_8023AD,
    BR_BOOLOPT,
    IFF_ALLMULTI,
    IFF_MULTICAST,
    IFF_NOARP,
    IFF_PROMISC,
    IFF_UP,
    IFLA_VXLAN_VNIFILTER,
    IN6_ADDR_GEN_MODE_STABLE_PRIVACY,
    MACVLAN_FLAG_NOPROMISC,
    MACVLAN_MODES,
    RTEXT_FILTER_SKIP_STATS,
)
from luod.network.model import (
    Bond,
    BondPort,
    Bridge,
    BridgePort,
    LeftOut,
    Link,
    Macvlan,
    Settings,
    Tun,
    Veth,
    Vlan,
    Vxlan,
)
from luod.network.reading.messages import NO_TEXT, Told, dump

_OF_KIND: Final[Mapping[str, type[Settings]]] = {
    settings.model_fields["kind"].default: settings for settings in (Bridge, Vlan, Bond, Veth, Tun, Vxlan, Macvlan)
}
_OF_PORT: Final[Mapping[str, type[Settings]]] = {"bridge": BridgePort, "bond": BondPort}
_WITHOUT_SETTINGS: Final = frozenset({"dummy"})
_WITH_LOWER: Final = frozenset({"vlan", "macvlan"})

_S = TypeVar("_S", bound=Settings)


class Seen:
    """A link, as far as others than itself ask for it."""

    def __init__(self, message: Any) -> None:
        self.number: int = message["index"]
        self.device_type: int = message["ifi_type"]
        self.flags: int = message["flags"]
        self.told = Told(message)
        self.name: str = self.told("IFLA_IFNAME")
        self.mac: str | None = self.told("IFLA_ADDRESS")
        info = self.told.nested("IFLA_LINKINFO")
        self.kind: str | None = info("IFLA_INFO_KIND")
        self.data = info.nested("IFLA_INFO_DATA")
        self.port_kind: str | None = info("IFLA_INFO_SLAVE_KIND")
        self.port_data = info.nested("IFLA_INFO_SLAVE_DATA")

    @property
    def addr_gen_mode(self) -> int | None:
        mode: int | None = self.told.nested("IFLA_AF_SPEC").nested("AF_INET6")("IFLA_INET6_ADDR_GEN_MODE")
        return mode

    @property
    def default_destination(self) -> str | None:
        """Where a vxlan sends what it knows no other destination for."""
        if self.kind != "vxlan":
            return None
        return self.data("IFLA_VXLAN_GROUP") or self.data("IFLA_VXLAN_GROUP6") or None

    @property
    def is_like_its_port(self) -> bool:
        """Whether it is a bond that has the address of the port that it uses."""
        return self.kind == "bond" and bool(self.data("IFLA_BOND_FAIL_OVER_MAC") == BOND_FOM_ACTIVE)


class _NotCarried(Exception):
    """A link can't be handed over. The text says why."""


class Links:
    """The links of this network namespace, by their numbers."""

    def __init__(self, ip: IPRoute, sysfs: Path) -> None:
        self._sysfs = sysfs
        messages = dump(ip.link, family=AF_UNSPEC, ext_mask=RTEXT_FILTER_SKIP_STATS)
        self._each = {seen.number: seen for seen in map(Seen, messages)}

    def __getitem__(self, number: int) -> Seen:
        return self._each[number]

    def name(self, number: int | None) -> str | None:
        """None where there is no such link, in this namespace."""
        seen = self._each.get(number) if number else None
        return seen.name if seen else None

    def numbers(self) -> dict[str, int]:
        return {seen.name: number for number, seen in self._each.items()}

    def has(self, *kinds: str) -> bool:
        """Whether there is one of these kinds."""
        return any(seen.kind in kinds for seen in self._each.values())

    def read(self) -> Iterator[Link | LeftOut]:
        for seen in self._each.values():
            try:
                yield self._link(seen)
            except _NotCarried as left:
                yield LeftOut(what=f"link {seen.name}", reason=str(left), link=seen.name)
                continue
            except ValidationError as error:
                yield LeftOut.refused(f"link {seen.name}", error, seen.name)
                continue
            if NO_TEXT in (seen.told("IFLA_IFALIAS") or ""):
                yield LeftOut(what=f"alias of {seen.name}", reason="it is no text", link=seen.name)
            for what, reason in _left_behind(seen):
                yield LeftOut(what=f"{what} of {seen.name}", reason=reason, link=seen.name)

    def _link(self, seen: Seen) -> Link:
        """Raises _NotCarried."""
        told, flags = seen.told, seen.flags
        if NO_TEXT in seen.name:
            raise _NotCarried("its name is no text")
        if "IFLA_LINK_NETNSID" in told:
            raise _NotCarried(f"the other end of this {seen.kind} is in another network namespace")
        permanent, path = told("IFLA_PERM_ADDRESS"), None
        match seen.kind:
            case None if seen.device_type == ARPHRD_LOOPBACK:
                kind = "loopback"
            case None:
                kind = "physical"
                path = plugged_in(self._sysfs / "class/net" / seen.name, told("IFLA_PHYS_PORT_NAME"))
                if path is None and permanent is None:
                    raise _NotCarried("it is neither a device nor of a kind that is known")
            case known if known in _OF_KIND or known in _WITHOUT_SETTINGS:
                kind = known
            case other:
                raise _NotCarried(f"links of the kind {other} aren't handed over")
        lower = self.name(told("IFLA_LINK")) if kind in _WITH_LOWER else None
        if kind in _WITH_LOWER and lower is None:
            raise _NotCarried("what it stands on isn't there")
        altnames = told.nested("IFLA_PROP_LIST").all("IFLA_ALT_IFNAME")
        alias = told("IFLA_IFALIAS")
        of_port = _OF_PORT.get(seen.port_kind or "")
        return Link(
            name=seen.name,
            kind=kind,
            altnames=tuple(name for name in altnames if isinstance(name, str)),
            alias=alias if NO_TEXT not in (alias or "") else None,
            mtu=told("IFLA_MTU"),
            address=seen.mac if kind != "loopback" and self._is_its_own(seen) else None,
            permanent_address=permanent if kind == "physical" else None,
            path=path,
            txqlen=told("IFLA_TXQLEN"),
            group=told("IFLA_GROUP") or 0,
            addr_gen_mode=None if seen.addr_gen_mode == IN6_ADDR_GEN_MODE_STABLE_PRIVACY else seen.addr_gen_mode,
            up=bool(flags & IFF_UP),
            arp=not flags & IFF_NOARP,
            multicast=bool(flags & IFF_MULTICAST),
            allmulticast=bool(flags & IFF_ALLMULTI),
            promiscuous=bool(flags & IFF_PROMISC),
            lower=lower,
            master=self.name(told("IFLA_MASTER")),
            settings=self._settings(seen) if kind in _OF_KIND else None,
            port=self._filled(of_port, seen.port_data) if of_port else None,
        )

    def _is_its_own(self, seen: Seen) -> bool:
        """Whether a link's address isn't another's: a port of a bond has that one's, or the other way round."""
        if seen.port_kind == "bond":
            bond = self._each.get(seen.told("IFLA_MASTER"))
            return bond is not None and bond.is_like_its_port
        return not seen.is_like_its_port

    def _settings(self, seen: Seen) -> Any:
        """Raises _NotCarried."""
        assert seen.kind is not None
        if seen.kind == "veth":
            peer = self.name(seen.told("IFLA_LINK"))
            if peer is None:
                raise _NotCarried("its peer isn't there")
            return Veth(peer=peer)
        if seen.kind == "vxlan" and IFLA_VXLAN_VNIFILTER in seen.data.unknown():
            raise _NotCarried("vxlans with a VNI filter aren't handed over")
        return self._filled(_OF_KIND[seen.kind], seen.data)

    def _filled(self, settings: type[_S], data: Any) -> _S:
        given = {}
        for field, attribute, reference, meaning in _fields(settings):
            if attribute in data:
                value = meaning(data(attribute)) if meaning else data(attribute)
                given[field] = self.name(value) if reference else value
        if settings is Vxlan and (inherit := data.raw("IFLA_VXLAN_TTL_INHERIT")):
            given["ttl_inherit"] = bool(inherit[0])
        return settings(**given)


_BOOLOPT_MULTI: Final = struct.Struct("=II")
_NOT_HANDED_OVER: Final = "it isn't handed over"


def _left_behind(link: Seen) -> Iterator[tuple[str, str]]:
    """What a link is set to that doesn't go with it, and why."""
    if link.addr_gen_mode == IN6_ADDR_GEN_MODE_STABLE_PRIVACY:
        yield "addr_gen_mode", f"it takes the secret that net.ipv6.conf.{link.name}.stable_secret is"
    if link.kind == "bridge" and (options := link.data.raw("IFLA_BR_MULTI_BOOLOPT")):
        on, _ = _BOOLOPT_MULTI.unpack(options)
        names = (*BR_BOOLOPT, *(f"boolopt {bit}" for bit in range(len(BR_BOOLOPT), 32)))
        yield from ((name, _NOT_HANDED_OVER) for bit, name in enumerate(names) if on >> bit & 1)
    if link.kind == "bond":
        if "IFLA_BOND_NS_IP6_TARGET" in link.data:
            yield "ns_ip6_target", _NOT_HANDED_OVER
        if link.data("IFLA_BOND_MODE") == BOND_MODE_8023AD and "IFLA_BOND_AD_ACTOR_SYSTEM" not in link.data:
            yield "ad_actor_system", "the kernel tells it only to whoever has CAP_NET_ADMIN"


_MACVLAN_MODES: Final = MACVLAN_MODES | {"none": 0}
_MACVLAN_FLAGS: Final = {"none": 0, "nopromisc": MACVLAN_FLAG_NOPROMISC}

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
