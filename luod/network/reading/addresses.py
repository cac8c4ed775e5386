"""The addresses that there are, but for those that the kernel makes by itself."""

import socket
from collections.abc import Iterator, Mapping
from socket import AF_INET, AF_INET6
from typing import Any, Final, TypeAlias

from pyroute2 import IPRoute

from luod.network.abi import (
    IFA_F_DADFAILED,
    IFA_F_HOMEADDRESS,
    IFA_F_MANAGETEMPADDR,
    IFA_F_MCAUTOJOIN,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_STABLE_PRIVACY,
    IFA_F_TEMPORARY,
    IFAPROT_KERNEL_LL,
    IFAPROT_KERNEL_LO,
    INFINITY_LIFE_TIME,
)
from luod.network.model import FOREVER, Address, LeftOut
from luod.network.reading.links import Links
from luod.network.reading.messages import FAMILIES, Told, dump
from luod.network.words import said

_BITS: Final[Mapping[int, int]] = {AF_INET: 32, AF_INET6: 128}
_SETTABLE: Final = IFA_F_NODAD | IFA_F_HOMEADDRESS | IFA_F_MANAGETEMPADDR | IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN

Prefix: TypeAlias = tuple[int, int, int, int]
"""Family, a link's number, the bits of the prefix, and how many they are."""


def prefix(family: int, number: int, address: str, length: int) -> Prefix:
    bits = int.from_bytes(socket.inet_pton(family, address), "big") >> (_BITS[family] - length)
    return family, number, bits, length


class Addresses:
    """`prefixes`: what the kernel has made a route to for one of them; known when all have been read."""

    def __init__(self, ip: IPRoute, links: Links, taken: float) -> None:
        self._ip = ip
        self._links = links
        self._taken = taken
        self.prefixes: set[Prefix] = set()

    def read(self) -> Iterator[Address | LeftOut]:
        for family in FAMILIES:
            for message in dump(self._ip.addr, family=family):
                if message["family"] == family and (link := self._links.name(message["index"])) is not None:
                    yield from self._address(message, link)

    def _address(self, message: Any, link: str) -> Iterator[Address | LeftOut]:
        told, family, prefixlen = Told(message), message["family"], message["prefixlen"]
        far = told("IFA_ADDRESS")
        near = told("IFA_LOCAL") or far
        flags = told("IFA_FLAGS")
        if flags is None:
            flags = message["flags"]
        if not flags & IFA_F_NOPREFIXROUTE:
            self.prefixes.add(prefix(family, message["index"], far or near, prefixlen))
        protocol = told("IFA_PROTO") or 0
        if _is_the_kernels(family, near, prefixlen, flags, protocol, self._links[message["index"]].mac):
            return
        label = told("IFA_LABEL")
        times = told("IFA_CACHEINFO")
        address = Address(
            link=link,
            family=FAMILIES[family],
            address=near,
            prefixlen=prefixlen,
            peer=far if far != near else None,
            broadcast=told("IFA_BROADCAST"),
            label=label if label != link else None,
            scope=message["scope"],
            flags=flags & _SETTABLE,
            protocol=protocol,
            priority=told("IFA_RT_PRIORITY") or 0,
            valid_until=self._end(times["ifa_valid"]) if times else FOREVER,
            preferred_until=self._end(times["ifa_preferred"]) if times else FOREVER,
        )
        if flags & IFA_F_DADFAILED:
            reason = "somebody else has this address (duplicate address detection)"
            yield LeftOut(what=said(address), reason=reason, link=link)
        else:
            yield address

    def _end(self, seconds: int) -> float | None:
        return FOREVER if seconds == INFINITY_LIFE_TIME else self._taken + seconds


def _is_the_kernels(family: int, address: str, prefixlen: int, flags: int, protocol: int, mac: str | None) -> bool:
    """Whether the kernel makes this address by itself. Older kernels, and older pyroute2, don't say so."""
    if family == AF_INET:
        return (address, prefixlen) == ("127.0.0.1", 8)
    if address == "::1" or flags & IFA_F_TEMPORARY or protocol in {IFAPROT_KERNEL_LO, IFAPROT_KERNEL_LL}:
        return True
    if protocol or not address.startswith("fe80:") or prefixlen != 64:
        return False
    return bool(flags & IFA_F_STABLE_PRIVACY) or socket.inet_pton(family, address)[8:] == _eui64(mac)


def _eui64(mac: str | None) -> bytes:
    """The interface identifier that a MAC makes (RFC 4291, appendix A)."""
    octets = bytes.fromhex((mac or "").replace(":", ""))
    return bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:] if len(octets) == 6 else b""
