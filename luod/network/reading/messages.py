"""What the kernel tells when it is asked for all that there is of something, as pyroute2 has it: messages, and their
attributes.
"""

import errno
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from socket import AF_INET, AF_INET6
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_NEWRULE
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from luod.network.abi import NLA_TYPE_MASK, NLM_F_DUMP_INTR
from luod.network.model import Family
from luod.network.reading.lacking import complete, numbered

complete()

FAMILIES: Final[Mapping[int, Family]] = {AF_INET: "inet", AF_INET6: "inet6"}

NO_TEXT: Final = "\ufffd"
"""Where something wasn't in UTF-8."""

PATIENCE: Final = 1.0
"""Seconds for which the kernel is asked again where a network changed while it told of it; then that has to do."""

_HEADER: Final = struct.Struct("=HH")
"""Of an attribute: its length, and its number."""


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
        while offset + _HEADER.size <= end:
            length, number = _HEADER.unpack_from(self.data, offset)
            found.setdefault(number & NLA_TYPE_MASK, (offset, length))
            offset += (max(length, _HEADER.size) + 3) & ~3
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


_POLICY: Final = {
    RTM_NEWLINK: ifinfmsg,
    RTM_NEWADDR: ifaddrmsg,
    RTM_NEWROUTE: rtmsg,
    RTM_NEWNEIGH: ndmsg,
    RTM_NEWRULE: fibmsg,
}
_LEAN: Final = {number: _lean(message) for number, message in _POLICY.items()}


@contextmanager
def lean(ip: IPRoute) -> Iterator[None]:
    """Have dumps come as `Told` takes them."""
    ip.register_policy(_LEAN)
    try:
        yield
    finally:
        ip.register_policy(_POLICY)


def dump(method: Callable[..., Iterable[Any]], **asked: Any) -> list[Any]:
    """The messages of a dump; none where the kernel has no such thing. Raises OSError."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            # Without these pyroute2 takes what is asked as a filter of the answer: `match` is for those before 0.9.
            messages = list(method("dump", match={}, dump_filter=None, **asked))
        except NetlinkError as error:
            if error.code in {errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
                return []
            raise OSError(error.code, os.strerror(error.code)) from None
        if not any(message.interrupted for message in messages) or time.monotonic() > until:
            return messages


class Told:
    """The attributes of a message, by their names."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._places: dict[int, tuple[int, int]] = message.places()

    def __contains__(self, name: str) -> bool:
        return self._message.numbers.get(name) in self._places

    def __call__(self, name: str) -> Any:
        """What is in it; where that is text that isn't in UTF-8, with NO_TEXT in it."""
        place = self._places.get(self._message.numbers.get(name))
        if place is None:
            return None
        value = self._message.attribute_at(*place)[1]
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def nested(self, name: str) -> "Nested":
        return Nested(self(name))

    def unknown(self) -> Iterator[tuple[int, bytes]]:
        """Those that pyroute2 has no name for: their numbers and contents."""
        known = set(self._message.numbers.values())
        for number, (offset, length) in self._places.items():
            if number not in known:
                yield number, bytes(self._message.data[offset + _HEADER.size : offset + length])


class Nested:
    """The attributes in another one, by their names."""

    def __init__(self, attribute: Any) -> None:
        self._all = attribute["attrs"] if attribute else ()
        self._slots = {slot[0]: slot for slot in self._all}

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def __call__(self, name: str) -> Any:
        slot = self._slots.get(name)
        return None if slot is None else slot[1]

    def nested(self, name: str) -> "Nested":
        return Nested(self(name))

    def all(self, name: str) -> list[Any]:
        """What is in each of this name."""
        return [slot[1] for slot in self._all if slot[0] == name]

    def raw(self, name: str) -> bytes:
        """As the kernel has sent it, without the header."""
        slot = self._slots.get(name)
        return b"" if slot is None else bytes(slot.nla.data[slot.nla.offset + 4 : slot.nla.offset + slot.nla.length])

    def unknown(self) -> Iterator[int]:
        """The numbers of those that pyroute2 has no name for."""
        for slot in self._all:
            if slot[0] == "UNKNOWN":
                yield _HEADER.unpack_from(bytes(slot.nla.data), slot.nla.offset)[1] & NLA_TYPE_MASK
