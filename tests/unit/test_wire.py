"""The wire of the test bench: here the test is the machine at its other end."""

import time
from ipaddress import ip_address

import pytest

from eventually import within
from vm.wire import BROADCAST, Asks, Echo, Frame, Ping, Tells, Wire, checksum, packed, unpacked

MACHINE = bytes.fromhex("5254006c756f")
STATION = bytes.fromhex("525400000001")
OURS = {4: ip_address("10.0.0.2"), 6: ip_address("fd00::2")}
THEIRS = {4: ip_address("10.0.0.1"), 6: ip_address("fd00::1")}
FAR = {4: ip_address("192.0.2.9"), 6: ip_address("2001:db8::9")}
VERSIONS = pytest.mark.parametrize("version", [4, 6])
VLANS = pytest.mark.parametrize("vlan", [None, 5])
SOLICITED = bytes.fromhex("3333ff000001")


@pytest.fixture
def wire():
    with Wire() as wire:
        wire.theirs.settimeout(20)
        yield wire


def somebody(wire, vlan=None):
    return wire.station("52:54:00:00:00:01", *map(str, THEIRS.values()), vlan=vlan)


def hears(wire, wanted):
    """The next frame with such a message, and the message."""
    while True:
        frame = Frame.decode(wire.theirs.recv(2000))
        if isinstance(message := unpacked(frame), wanted):
            return frame, message


def says(wire, message, vlan=None, to=STATION):
    kind, payload = packed(message)
    wire.theirs.send(Frame(to, MACHINE, vlan, kind, payload).encode())


def answers(wire, vlan=None, times=3):
    """Be a machine that answers, so many requests; who asked."""
    asking = set()
    while times:
        frame, message = hears(wire, Asks | Echo)
        assert frame.vlan == vlan
        match message:
            case Asks(mac, by, of):
                says(wire, Tells(MACHINE, of, by, mac), vlan)
            case Echo(by, to, False, id_, number, data):
                assert frame.to == MACHINE
                says(wire, Echo(to, by, True, id_, number, data), vlan)
                asking.add(by)
                times -= 1
    return asking


def test_a_checksum_is_that_of_rfc_1071():
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(b"\xff\xff\x01") == 0xFFFF - 0x0100


@VERSIONS
@VLANS
@pytest.mark.parametrize(
    "message",
    [
        lambda version: Asks(STATION, THEIRS[version], OURS[version]),
        lambda version: Tells(STATION, THEIRS[version], OURS[version], MACHINE if version == 4 else b""),
        lambda version: Echo(THEIRS[version], OURS[version], False, 7, 8),
        lambda version: Echo(THEIRS[version], OURS[version], True, 7, 8, b"odd"),
    ],
)
def test_a_message_is_understood_as_it_was_meant(message, version, vlan):
    kind, payload = packed(message(version))
    frame = Frame.decode(Frame(MACHINE, STATION, vlan, kind, payload).encode())
    assert (frame.to, frame.by, frame.vlan) == (MACHINE, STATION, vlan)
    assert unpacked(frame) == message(version)


@VERSIONS
def test_whatever_is_damaged_or_cut_off_is_passed_over(version):
    kind, payload = packed(Echo(THEIRS[version], OURS[version], True, 7, 8))
    whole = Frame(MACHINE, STATION, None, kind, payload)
    for length in range(len(payload)):
        assert unpacked(Frame(MACHINE, STATION, None, kind, payload[:length])) is None
    damaged = payload[:-1] + bytes([payload[-1] ^ 1])
    assert unpacked(Frame(MACHINE, STATION, None, kind, damaged)) is None
    assert unpacked(whole) is not None
    assert unpacked(Frame(MACHINE, STATION, None, 0x88CC, payload)) is None


@VERSIONS
@VLANS
def test_a_station_tells_its_mac_and_answers(wire, version, vlan):
    somebody(wire, vlan)
    says(wire, Asks(MACHINE, OURS[version], THEIRS[version]), vlan, to=BROADCAST if version == 4 else SOLICITED)
    frame, told = hears(wire, Tells)
    assert (frame.to, frame.vlan, told.mac, told.of) == (MACHINE, vlan, STATION, THEIRS[version])
    says(wire, Echo(OURS[version], THEIRS[version], False, 1, 2), vlan)
    frame, echo = hears(wire, Echo)
    assert (frame.to, frame.vlan) == (MACHINE, vlan)
    assert echo == Echo(THEIRS[version], OURS[version], True, 1, 2)


@VERSIONS
def test_a_station_is_deaf_to_other_vlans_and_to_what_is_for_others(wire, version):
    somebody(wire, vlan=5)
    request = Echo(OURS[version], THEIRS[version], False, 1, 1)
    says(wire, request)
    says(wire, request, vlan=6)
    says(wire, request, vlan=5, to=MACHINE)
    says(wire, Echo(OURS[version], FAR[version], False, 1, 2), vlan=5)
    says(wire, Echo(OURS[version], THEIRS[version], False, 1, 3), vlan=5)
    assert hears(wire, Echo)[1].number == 3


@VERSIONS
@VLANS
def test_a_ping_asks_for_the_mac_first_and_knows_when_it_was_answered(wire, version, vlan):
    ping = Ping(somebody(wire, vlan), str(OURS[version]))
    with wire.watch(ping) as watch:
        frame, asks = hears(wire, Asks)
        assert (frame.to[0] & 1, asks.by, asks.of) == (1, THEIRS[version], OURS[version])
        began = time.monotonic()
        assert answers(wire, vlan, times=2) == {THEIRS[version]}
        within(20, lambda: len(watch.answers[ping]) >= 2)
    first, second, *_ = watch.answers[ping]
    assert began < first < second < time.monotonic()


@VERSIONS
def test_a_ping_from_elsewhere_goes_through_its_station(wire, version):
    station = somebody(wire)
    with wire.watch(Ping(station, str(OURS[version]), str(FAR[version]))):
        assert hears(wire, Asks)[1].by == THEIRS[version]
        assert answers(wire) == {FAR[version]}


def test_only_an_answer_from_whom_was_asked_counts(wire):
    ping = Ping(somebody(wire, vlan=5), str(OURS[4]))
    with wire.watch(ping) as watch:
        frame, asks = hears(wire, Asks)
        says(wire, Tells(MACHINE, asks.of, asks.by, asks.mac), vlan=5)
        frame, echo = hears(wire, Echo)
        assert frame.vlan == 5
        says(wire, Echo(echo.to, echo.by, True, echo.id, 1), vlan=None)
        says(wire, Echo(FAR[4], echo.by, True, echo.id, 1), vlan=5)
        says(wire, Echo(echo.to, FAR[4], True, echo.id, 1), vlan=5)
        says(wire, Asks(MACHINE, OURS[4], THEIRS[4]), vlan=5)
        hears(wire, Tells)
        assert watch.answers == {ping: []}


def test_a_machine_that_does_not_listen_holds_nothing_up(wire):
    station = somebody(wire)
    with pytest.raises(AssertionError, match=r"not answered for 0.5 s: 10\.0\.0\.1 to 10\.0\.0\.2$"):
        wire.answered(Ping(station, str(OURS[4])), patience=0.5)
    wire.theirs.close()
    with pytest.raises(AssertionError, match="not answered"):
        wire.answered(Ping(station, str(OURS[6])), patience=0.5)
