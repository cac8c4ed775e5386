"""What a machine's network card is plugged into: a wire, the stations on it, and the host's clock.

Each Ethernet frame is a datagram of a pair of sockets, so that nothing of the host's own network takes part.
"""

import select
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

INTERVAL = 0.05
"""Seconds between two echo requests: how exact the times of answers are."""

FORGETFUL = 1.0
"""Seconds without an answer after which a station asks for a MAC again."""

PATIENCE = 120
"""Seconds that an answer is waited for."""

ARP, VLAN, IPV4, IPV6 = 0x0806, 0x8100, 0x0800, 0x86DD
ICMP, ICMPV6 = 1, 58
ECHO = {4: (8, 0), 6: (128, 129)}
"""The types of a request and of a reply."""
SOLICIT, ADVERTISE = 135, 136
FROM_LINK, TO_LINK = 1, 2
"""The options of neighbour discovery with a MAC: whose asks, and whose is told (RFC 4861)."""
BROADCAST = b"\xff" * 6
LEAST = 60
"""Bytes of the shortest frame, without its checksum."""


@dataclass(frozen=True)
class Station:
    """Somebody on the wire, maybe in a VLAN: tells its MAC, answers echo requests, and is a router to everywhere."""

    mac: str
    addresses: tuple[str, ...]
    vlan: int | None = None

    def address(self, version):
        return next(given for given in map(ip_address, self.addresses) if given.version == version)


@dataclass(frozen=True)
class Ping:
    """An echo request of a station: from an address of its own, or from `source`, which it is a router for."""

    station: Station
    target: str
    source: str | None = None

    @property
    def to(self):
        return ip_address(self.target)

    @property
    def by(self):
        return ip_address(self.source) if self.source else self.station.address(self.to.version)

    def __str__(self):
        return f"{self.by} to {self.to}" + (f" in VLAN {self.station.vlan}" if self.station.vlan else "")


@dataclass(frozen=True)
class Frame:
    to: bytes
    by: bytes
    vlan: int | None
    type: int
    payload: bytes

    def encode(self):
        tag = b"" if self.vlan is None else struct.pack("!HH", VLAN, self.vlan)
        frame = self.to + self.by + tag + struct.pack("!H", self.type) + self.payload
        return frame.ljust(LEAST, b"\0")

    @classmethod
    def decode(cls, data):
        data = data.ljust(LEAST, b"\0")
        to, by, kind = struct.unpack_from("!6s6sH", data)
        if kind != VLAN:
            return cls(to, by, None, kind, data[14:])
        tag, kind = struct.unpack_from("!HH", data, 14)
        return cls(to, by, tag & 0xFFF, kind, data[18:])


@dataclass(frozen=True)
class Asks:
    """Who has the address `of`?"""

    mac: bytes
    by: IPv4Address | IPv6Address
    of: IPv4Address | IPv6Address


@dataclass(frozen=True)
class Tells:
    """`mac` has the address `of`, somebody is told."""

    mac: bytes
    of: IPv4Address | IPv6Address
    to: IPv4Address | IPv6Address
    whose: bytes


@dataclass(frozen=True)
class Echo:
    by: IPv4Address | IPv6Address
    to: IPv4Address | IPv6Address
    reply: bool
    id: int
    number: int
    data: bytes = b"luod"


def packed(message):
    """The type of the frame that a message goes in, and its payload."""
    match message:
        case Asks(mac, by, of) if of.version == 4:
            return ARP, struct.pack("!HHBBH6s4s6s4s", 1, IPV4, 6, 4, 1, mac, by.packed, b"", of.packed)
        case Tells(mac, of, to, whose) if of.version == 4:
            return ARP, struct.pack("!HHBBH6s4s6s4s", 1, IPV4, 6, 4, 2, mac, of.packed, whose, to.packed)
        case Asks(mac, by, of):
            body = struct.pack("!BBHI16sBB6s", SOLICIT, 0, 0, 0, of.packed, FROM_LINK, 1, mac)
            return IPV6, _ipv6(by, solicited(of), body, hops=255)
        case Tells(mac, of, to, _):
            solicited_and_override = 0x6000_0000
            body = struct.pack("!BBHI16sBB6s", ADVERTISE, 0, 0, solicited_and_override, of.packed, TO_LINK, 1, mac)
            return IPV6, _ipv6(of, to, body, hops=255)
        case Echo(by, to, reply, id_, number, data):
            body = struct.pack("!BBHHH", ECHO[to.version][reply], 0, 0, id_, number) + data
            return (IPV4, _ipv4(by, to, body)) if to.version == 4 else (IPV6, _ipv6(by, to, body, hops=64))


def unpacked(frame):
    """The message in a frame; None where it is none of those here, or damaged."""
    understand = {ARP: _arp, IPV4: _icmp, IPV6: _icmpv6}.get(frame.type)
    with suppress(struct.error, ValueError, IndexError):
        return understand and understand(frame.payload)
    return None


def solicited(address):
    """The multicast address at which the owner of an IPv6 address is asked for it."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def checksum(data):
    """RFC 1071."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _with_checksum(body, place, before=b""):
    return body[:place] + struct.pack("!H", checksum(before + body)) + body[place + 2 :]


def _ipv4(by, to, body):
    body = _with_checksum(body, 2)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, ICMP, 0, by.packed, to.packed)
    return _with_checksum(header, 10) + body


def _ipv6(by, to, body, hops):
    body = _with_checksum(body, 2, _pseudo_header(by, to, body))
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), ICMPV6, hops, by.packed, to.packed) + body


def _pseudo_header(by, to, body):
    return by.packed + to.packed + struct.pack("!II", len(body), ICMPV6)


def _arp(payload):
    *kind, operation, mac, by, whose, to = struct.unpack_from("!HHBBH6s4s6s4s", payload)
    by, to = IPv4Address(by), IPv4Address(to)
    if kind != [1, IPV4, 6, 4]:
        return None
    return Asks(mac, by, to) if operation == 1 else Tells(mac, by, to, whose)


def _icmp(payload):
    length, protocol = struct.unpack_from("!2xH5xB", payload)
    header, body = payload[: 4 * (payload[0] & 0xF)], payload[4 * (payload[0] & 0xF) : length]
    if protocol != ICMP or checksum(header) or checksum(body):
        return None
    return _echo(IPv4Address(payload[12:16]), IPv4Address(payload[16:20]), body)


def _icmpv6(payload):
    length, protocol, by, to = struct.unpack_from("!4xHBx16s16s", payload)
    by, to, body = IPv6Address(by), IPv6Address(to), payload[40 : 40 + length]
    if protocol != ICMPV6 or checksum(_pseudo_header(by, to, body) + body):
        return None
    if body[0] not in (SOLICIT, ADVERTISE):
        return _echo(by, to, body)
    of, option, mac = *map(IPv6Address, struct.unpack_from("!8x16s", body)), body[24], body[26:32]
    if body[0] == SOLICIT and option == FROM_LINK:
        return Asks(mac, by, of)
    return Tells(mac, of, to, b"") if body[0] == ADVERTISE and option == TO_LINK else None


def _echo(by, to, body):
    kind, id_, number = struct.unpack_from("!BxxxHH", body)
    return Echo(by, to, bool(ECHO[to.version].index(kind)), id_, number, body[8:])


class Watch:
    """When what was answered, by the host's clock, of pings that are sent all the time."""

    def __init__(self, pings):
        self.answers = {ping: [] for ping in pings}


class Wire:
    """A wire, and a thread that is all stations on it. `card` is the MAC at the end that the machine has: `theirs`."""

    def __init__(self, card="52:54:00:6c:75:6f"):
        self.card = card
        self.stations = []
        self._pings = {}
        self._macs = {}
        self._known = {}
        self._heard = threading.Condition()
        self._over = threading.Event()

    def __enter__(self):
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.setblocking(False)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        self._thread.join()
        self._ours.close()
        self.theirs.close()

    def station(self, mac, *addresses, vlan=None):
        """Put somebody on the wire."""
        station = Station(mac, addresses, vlan)
        with self._heard:
            self.stations.append(station)
        return station

    @contextmanager
    def watch(self, *pings):
        """Send these all the time; the `Watch`."""
        watch = Watch(pings)
        with self._heard:
            first = max(self._pings, default=0) + 1
            mine = dict(enumerate(((ping, watch) for ping in pings), start=first))
            self._pings |= mine
        try:
            yield watch
        finally:
            with self._heard:
                for number in mine:
                    del self._pings[number]

    def answered(self, *pings, patience=PATIENCE):
        """Send each until it is answered."""
        with self.watch(*pings) as watch, self._heard:
            self._heard.wait_for(lambda: all(watch.answers.values()), patience)
        silent = [str(ping) for ping, times in watch.answers.items() if not times]
        assert not silent, f"not answered for {patience} s: {'; '.join(silent)}"

    def _live(self):
        number, due = 0, time.monotonic()
        while not self._over.is_set():
            readable, _, _ = select.select([self._ours], [], [], max(0, due - time.monotonic()))
            if readable:
                frame = Frame.decode(self._ours.recv(1 << 16))
                with self._heard:
                    self._hear(frame, time.monotonic())
            else:
                number, due = number + 1, time.monotonic() + INTERVAL
                with self._heard:
                    for id_, (ping, _) in self._pings.items():
                        self._ask(id_, number & 0xFFFF, ping)

    def _hear(self, frame, now):
        message = unpacked(frame)
        for station in self.stations:
            if frame.vlan == station.vlan and (frame.to[0] & 1 or frame.to == _mac(station.mac)):
                self._obey(station, frame, message, now)

    def _obey(self, station, frame, message, now):
        own = [ip_address(address) for address in station.addresses]
        match message:
            case Asks(mac, by, of) if of in own:
                self._send(station, mac, Tells(_mac(station.mac), of, by, mac))
            case Tells(mac, of):
                self._learn(station, of, mac, now)
            case Echo(by, to, False) if to in own:
                self._send(station, frame.by, Echo(to, by, True, message.id, message.number, message.data))
            case Echo(by, to, True) if message.id in self._pings:
                ping, watch = self._pings[message.id]
                if (station, by, to) == (ping.station, ping.to, ping.by):
                    watch.answers[ping].append(now)
                    self._known[station, by] = now
                    self._heard.notify_all()

    def _ask(self, id_, number, ping):
        station, to = ping.station, ping.to
        if time.monotonic() - self._known.get((station, to), 0) > FORGETFUL:
            multicast = BROADCAST if to.version == 4 else b"\x33\x33" + solicited(to).packed[12:]
            self._send(station, multicast, Asks(_mac(station.mac), station.address(to.version), to))
        if mac := self._macs.get((station, to)):
            self._send(station, mac, Echo(ping.by, to, False, id_, number))

    def _learn(self, station, address, mac, now):
        """Ask at once who was waiting for that."""
        self._known[station, address] = now
        if self._macs.get((station, address)) == mac:
            return
        self._macs[station, address] = mac
        for id_, (ping, _) in self._pings.items():
            if (ping.station, ping.to) == (station, address):
                self._ask(id_, 0, ping)

    def _send(self, station, to, message):
        """A machine that doesn't listen has a full queue before it: what there is no room for is lost."""
        kind, payload = packed(message)
        with suppress(OSError):
            self._ours.send(Frame(to, _mac(station.mac), station.vlan, kind, payload).encode())


def _mac(text):
    return bytes.fromhex(text.replace(":", ""))
