"""What changes a network: one step at a time, by rtnetlink(7)."""

import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from luod.network.abi import IFA_F_NODAD, IFF_UP
from luod.network.changing import entries, taps
from luod.network.changing.links import making, setting
from luod.network.model import (
    Address,
    BondPort,
    FdbEntry,
    Link,
    Neighbour,
    Route,
    Rule,
    Snapshot,
    Tun,
    Veth,
    Vid,
)
from luod.network.relations import is_one_of_many
from luod.network.steps import Action, Change, Phase, Step

_NO_SUCH_KIND: Final = frozenset({"Unknown device type", os.strerror(errno.EOPNOTSUPP)})


class Refused(Exception):
    """The kernel didn't do it. The text says why; `code` is its errno."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class Changer:
    """`wanted`: what all of it comes to; `numbers`: those of its links that are there, whatever they are called yet."""

    def __init__(self, ip: IPRoute, wanted: Snapshot, numbers: Mapping[str, int]) -> None:
        self._ip = ip
        self._wanted = {link.name: link for link in wanted.links}
        self._numbers = dict(numbers)

    def do(self, step: Step) -> None:
        """Raises Refused."""
        with _refusals():
            match step.thing:
                case Link() as link if step.action is Action.ADD:
                    self._make(link)
                case Link() as link:
                    self._set(step, link)
                case Vid() as vid:
                    self._vid(step.action, vid)
                case Address() as address:
                    self._address(step.action, address)
                case Route() as route:
                    # Beside those of the same key, for the plan knows that they are wanted.
                    add = "append" if step.action is Action.ADD else "replace"
                    self._ip.route(add, **entries.route(route, self._number))
                case Rule() as rule:
                    self._ip.rule("add", **entries.rule(rule))
                case Neighbour() as neighbour:
                    self._ip.neigh("replace", **entries.neighbour(neighbour, self._number))
                case FdbEntry() as entry:
                    add = "append" if is_one_of_many(entry) else "replace"
                    self._ip.neigh(add, **entries.fdb(entry, self._number))

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            raise Refused(f"needs {name}", errno.ENODEV)
        return self._numbers[name]

    # Links

    def _make(self, link: Link) -> None:
        if link.name in self._numbers:
            return  # it came as the other end of a veth
        if isinstance(link.settings, Tun):
            self._make_tun(link, link.settings)
            return
        peer = self._wanted.get(link.settings.peer) if isinstance(link.settings, Veth) else None
        self._add(link, peer)
        for made in (link, peer) if peer else (link,):
            self._numbers[made.name] = socket.if_nametoindex(made.name)

    def _make_tun(self, link: Link, tun: Tun) -> None:
        taps.make(link.name, tun)
        self._numbers[link.name] = number = socket.if_nametoindex(link.name)
        if link.address is not None:
            with suppress(NetlinkError):  # another look shows it. Later, udev may have given it one of its own
                self._ip.link("set", index=number, address=link.address)

    def _add(self, link: Link, peer: Link | None) -> None:
        try:
            self._ip.link("add", **making(link, peer, self._number))
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                raise Refused(f"the name {link.name} is taken", error.code) from None
            if error.code == errno.EOPNOTSUPP and _text(error) in _NO_SUCH_KIND:
                raise Refused(f"this kernel has no links of the kind {link.kind}", error.code) from None
            raise

    def _set(self, step: Step, link: Link) -> None:
        number = self._number(link.name)
        match step.phase:
            case Phase.RENAME:
                self._rename(number, str(step.changes[0].after))
            case Phase.NAMES:
                self._name(number, link, step.changes)
            case Phase.SETTINGS if isinstance(link.settings, Tun):
                taps.own(link.name, link.settings)
            case Phase.JOIN if isinstance(link.port, BondPort):
                self._take_down(number)
                self._set_each(number, link, step.changes)
            case _:
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
        refused = []
        for name in (name for change in changes if change.field == "altnames" for name in _new_names(change)):
            try:
                self._ip.link("property_add", index=number, altname=[name])
            except NetlinkError as error:
                refused.append(Refused(f"altname {name}: {_text(error)}", error.code))
        _raise_all(refused)

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
                refused.append(Refused(f"{_field(change)}: {_text(error)}", error.code))
        _raise_all(refused)

    def _while_down(self, number: int, said: Mapping[str, Any]) -> None:
        """Where it can't be set while the link is up, take that down for the moment."""
        try:
            self._ip.link("set", index=number, **said)
        except NetlinkError as error:
            if error.code != errno.EBUSY or not self._is_up(number):
                raise
            self._take_down(number)
            try:
                self._ip.link("set", index=number, **said)
            finally:
                self._ip.link("set", index=number, flags=IFF_UP, change=IFF_UP)

    def _take_down(self, number: int) -> None:
        self._ip.link("set", index=number, flags=0, change=IFF_UP)

    def _is_up(self, number: int) -> bool:
        return any(message["flags"] & IFF_UP for message in self._ip.get_links(number))

    # Entries

    def _address(self, action: Action, address: Address) -> None:
        said = entries.address(address, self._number)
        add = "add" if action is Action.ADD else "replace"
        if address.family == "inet6" and not address.flags & IFA_F_NODAD:
            # Nobody else has taken it in the meantime: without asking around it is there at once.
            self._ip.addr(add, IFA_FLAGS=address.flags | IFA_F_NODAD, **said)
            add = "replace"
        self._ip.addr(add, IFA_FLAGS=address.flags, **said)

    def _vid(self, action: Action, vid: Vid) -> None:
        link = self._wanted.get(vid.link)
        of_the_bridge = link is not None and link.kind == "bridge"
        said = entries.vid(vid, self._number, of_the_bridge=of_the_bridge)
        self._ip.vlan_filter("del" if action is Action.REMOVE else "add", **said)


def _raise_all(refused: Sequence[Refused]) -> None:
    if refused:
        raise Refused("; ".join(map(str, refused)), refused[0].code)


def _new_names(change: Change) -> list[str]:
    assert isinstance(change.before, tuple)
    assert isinstance(change.after, tuple)
    return [name for name in change.after if name not in change.before]


def _field(change: Change) -> str:
    return change.field.split(".")[-1]


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise Refused(_text(error), error.code) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Refused(f"{where}{error.strerror or error}", error.errno or 0) from None
    except Refused:
        raise
    except Exception as error:
        # What pyroute2 makes of values that the kernel never gave is its own affair; it mustn't stop the rest.
        raise Refused(f"it can't be said to the kernel: {error}") from None


def _text(error: NetlinkError) -> str:
    return str(error.args[1]) if len(error.args) > 1 else os.strerror(error.code)
