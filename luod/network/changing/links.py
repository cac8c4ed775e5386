"""How a link is said to the kernel: as attributes of rtnetlink(7), in pyroute2's words. No I/O."""

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from luod.network.abi import (
    IFF_ALLMULTI,
    IFF_MULTICAST,
    IFF_NOARP,
    IFF_PROMISC,
    IFF_UP,
    MACVLAN_MACADDR_SET,
    VLAN_FLAGS,
)
from luod.network.model import Link, Settings, Veth
from luod.network.steps import Change

FLAGS: Final[Mapping[str, tuple[int, bool]]] = {
    "up": (IFF_UP, True),
    "arp": (IFF_NOARP, False),
    "multicast": (IFF_MULTICAST, True),
    "allmulticast": (IFF_ALLMULTI, True),
    "promiscuous": (IFF_PROMISC, True),
}
"""The flag of a field, and what the field is where it is set."""

Attributes: TypeAlias = list[tuple[str, Any]]

Number: TypeAlias = Callable[[str], int]
"""Of a link, by its name."""


def nested(attributes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {"attrs": list(attributes)}


def making(link: Link, peer: Link | None, number: Number) -> dict[str, Any]:
    """What a link is made with. `peer`: a veth's other end, which comes with it."""
    said: dict[str, Any] = {"ifname": link.name}
    if link.address is not None:
        said["address"] = link.address
    if link.lower is not None:
        said["link"] = number(link.lower)
    info: Attributes = [("IFLA_INFO_KIND", link.kind)]
    if link.settings is not None:
        first = type(link.settings).FIXED | type(link.settings).MADE_WITH
        given = {name: value for name, value in link.settings.given().items() if name in first}
        info.append(("IFLA_INFO_DATA", nested(_settings(link.settings, given, number, peer))))
    return said | {"IFLA_LINKINFO": nested(info)}


def setting(link: Link, changes: Iterable[Change], number: Number) -> dict[str, Any]:
    """What the changes of a link are made with, in one message."""
    said: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    port: dict[str, Any] = {}
    for change in changes:
        match change.field.split("."):
            case ["settings", name]:
                settings[name] = change.after
            case ["port", name]:
                port[name] = change.after
            case ["name"]:
                said["ifname"] = change.after
            case ["alias"]:
                said["IFLA_IFALIAS"] = change.after
            case ["master"]:
                said["master"] = number(str(change.after)) if change.after is not None else 0
            case ["addr_gen_mode"]:
                inet6 = nested([("IFLA_INET6_ADDR_GEN_MODE", change.after)])
                said["IFLA_AF_SPEC"] = nested([("AF_INET6", inet6)])
            case [name] if name in FLAGS:
                flag, when = FLAGS[name]
                said["change"] = said.get("change", 0) | flag
                said["flags"] = said.get("flags", 0) | (flag if change.after is when else 0)
            case [name]:
                said[name] = change.after
    info: Attributes = []
    if settings and link.settings is not None:
        info.append(("IFLA_INFO_KIND", link.kind))
        info.append(("IFLA_INFO_DATA", nested(_settings(link.settings, settings, number, None))))
    if port and link.port is not None:
        info.append(("IFLA_INFO_SLAVE_KIND", link.port.kind))
        info.append(("IFLA_INFO_SLAVE_DATA", nested(_settings(link.port, port, number, None))))
    return said | ({"IFLA_LINKINFO": nested(info)} if info else {})


def _settings(of: Settings, given: Mapping[str, Any], number: Number, peer: Link | None) -> Attributes:
    """The attributes that these of its fields are set by."""
    if isinstance(of, Veth):
        address = [("IFLA_ADDRESS", peer.address)] if peer and peer.address else []
        return [("VETH_INFO_PEER", nested([("IFLA_IFNAME", of.peer), *address]))]
    attributes: Attributes = []
    for name, value in given.items():
        attribute = of.PREFIX + name.upper()
        if name in type(of).references():
            attributes.append((attribute, number(value)))
        elif attribute in _WRITTEN:
            attributes += _WRITTEN[attribute](attribute, value)
        elif isinstance(value, bool):
            attributes += [(attribute, None)] if value else []
        else:
            attributes.append((attribute, value))
    return attributes


def _qos(attribute: str, pairs: Iterable[tuple[int, int]]) -> Attributes:
    mappings = [("IFLA_VLAN_QOS_MAPPING", {"from": first, "to": second}) for first, second in pairs]
    return [(attribute, nested(mappings))]


def _source_macs(attribute: str, macs: Iterable[str]) -> Attributes:
    data = nested(("IFLA_MACVLAN_MACADDR", mac) for mac in macs)
    return [("IFLA_MACVLAN_MACADDR_MODE", MACVLAN_MACADDR_SET), ("IFLA_MACVLAN_MACADDR_DATA", data)]


def _if_on(attribute: str, value: int) -> Attributes:
    """For the kernel it is on as soon as it is named: vxlan_nl2conf counts it among the bits that are in use."""
    return [(attribute, value)] if value else []


_WRITTEN: Final[Mapping[str, Callable[[str, Any], Attributes]]] = {
    "IFLA_VLAN_FLAGS": lambda attribute, flags: [(attribute, {"flags": flags, "mask": VLAN_FLAGS})],
    "IFLA_VLAN_EGRESS_QOS": _qos,
    "IFLA_VLAN_INGRESS_QOS": _qos,
    "IFLA_VXLAN_PORT_RANGE": lambda attribute, ports: [(attribute, {"low": ports[0], "high": ports[1]})],
    "IFLA_VXLAN_REMCSUM_TX": _if_on,
    "IFLA_VXLAN_REMCSUM_RX": _if_on,
    "IFLA_VXLAN_LABEL": lambda attribute, label: [(attribute, socket.htonl(label))],
    "IFLA_MACVLAN_MACADDR": _source_macs,
    "IFLA_BOND_AD_ACTOR_SYSTEM": lambda attribute, mac: [(attribute, bytes.fromhex(mac.replace(":", "")))],
}
"""The attributes of fields that aren't said as they are."""
