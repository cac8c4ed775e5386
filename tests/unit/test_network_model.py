"""A network says what it says once it is written down, or it can't be read."""

import json
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luod.network.model import (
    Address,
    BadSnapshot,
    Bond,
    BondPort,
    Bridge,
    BridgePort,
    FdbEntry,
    LeftOut,
    Link,
    Neighbour,
    Nexthop,
    Route,
    Rule,
    Snapshot,
    Tun,
    Veth,
    Vid,
    Vlan,
    Vxlan,
)

MAC = "02:00:00:00:00:01"

WHOLE = Snapshot(
    taken=1.5,
    boot_id="one",
    kernel="7.3",
    handover=("br0", "vlan*"),
    links=(
        Link(name="eth0", kind="physical", mtu=1500, up=True, permanent_address=MAC, path="pci-0000:00:03.0"),
        Link(name="br0", kind="bridge", mtu=1500, up=True, settings=Bridge(priority=5), altnames=("a", "b")),
        Link(name="v", kind="veth", mtu=1500, up=False, settings=Veth(peer="w"), port=BridgePort(cost=5), master="br0"),
        Link(name="w", kind="veth", mtu=1500, up=False, settings=Veth(peer="v"), port=BondPort(prio=-5)),
        Link(name="br0.5", kind="vlan", mtu=1400, up=True, lower="br0", settings=Vlan(id=5, egress_qos=((1, 2),))),
        Link(name="bond0", kind="bond", mtu=1500, up=True, settings=Bond(arp_ip_target=("10.0.0.1",), primary="w")),
        Link(name="tap0", kind="tun", mtu=1500, up=True, settings=Tun(type=2, owner=7), alias="Brücke"),
        Link(name="vx", kind="vxlan", mtu=1500, up=True, settings=Vxlan(id=5, gbp=True, port_range=(1, 2))),
    ),
    vids=(Vid(link="br0", vid=5, pvid=True),),
    addresses=(Address(link="br0", family="inet", address="10.0.0.1", prefixlen=24, valid_until=99.5),),
    routes=(
        Route(family="inet", destination="0.0.0.0/0", nexthops=(Nexthop(link="br0", gateway="10.0.0.9"),)),
        Route(family="inet6", destination="fd00::/8", type=6, metrics={"mtu": 1400, "cc_algo": "cubic"}),
    ),
    rules=(Rule(family="inet", priority=5, action=1, table=7, sport_range=(1, 2)),),
    neighbours=(Neighbour(link="br0", family="inet6", address="fd00::7", mac=MAC, flags=0x80),),
    fdb=(FdbEntry(link="vx", mac=MAC, state=0x80, flags=2, destination="10.0.0.2"),),
    left_out=(LeftOut(what="link wg0", reason="why", link="wg0"),),
)


def changed(**fields):
    return json.dumps(json.loads(WHOLE.encode()) | fields).encode()


def with_link(**fields):
    links = json.loads(WHOLE.encode())["links"]
    return changed(links=[links[0] | fields])


def refusal(data):
    with pytest.raises(BadSnapshot) as caught:
        Snapshot.decode(data)
    return str(caught.value)


def test_what_is_written_down_is_what_is_read():
    assert Snapshot.decode(WHOLE.encode()) == WHOLE


def test_what_the_kernel_did_not_tell_takes_no_room():
    assert b"null" not in WHOLE.encode()


def test_one_of_another_version_is_refused():
    assert refusal(changed(version=2)) == "it is of version 2, and this luod reads version 1"
    assert refusal(changed(version="1")) == "it is of version '1', and this luod reads version 1"
    assert refusal(b"{}") == "it is of version None, and this luod reads version 1"


def test_fields_that_a_newer_luod_has_added_are_passed_over():
    assert Snapshot.decode(changed(more=[1, 2])) == WHOLE
    links = Snapshot.decode(with_link(more={"a": 1})).links
    assert links == WHOLE.links[:1]


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xfe", b"{", b"nothing", b'{"version": 1', WHOLE.encode()[:-1]])
def test_what_is_no_json_is_refused(data):
    assert refusal(data) == "it is no JSON"


@pytest.mark.parametrize("data", [b"[]", b"1", b'"version"', b"null", b"NaN"])
def test_what_is_no_snapshot_is_refused(data):
    assert refusal(data) == "it is of version None, and this luod reads version 1"


def test_what_is_too_deep_or_too_long_for_json_is_refused():
    assert refusal(b"[" * 100000) == "it is no JSON"
    assert refusal(changed().replace(b"1500", b"1" * 5000)) == "it is no JSON"


@pytest.mark.parametrize("field", ["taken", "boot_id", "kernel"])
def test_one_that_lacks_a_field_is_refused(field):
    data = json.loads(WHOLE.encode())
    del data[field]
    assert refusal(json.dumps(data).encode()) == f"{field}: Field required"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a:b", "a\tb", "sixteen-letters!", "a\n"])
def test_a_name_that_no_link_can_have_is_refused(name):
    assert refusal(with_link(name=name)).startswith("links.0.name: ")


@pytest.mark.parametrize("name", ["a", "fifteen-letters", "tap-5_x", "ü"])
def test_a_name_that_a_link_can_have_is_read(name):
    assert Snapshot.decode(with_link(name=name)).links[0].name == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "wireguard"),
        ("mtu", -1),
        ("mtu", 1 << 32),
        ("mtu", None),
        ("up", "perhaps"),
        ("address", "02:00:00:00:00:zz"),
        ("permanent_address", "2"),
        ("altnames", ["x" * 128]),
        ("settings", {"kind": "wireguard"}),
        ("settings", {"kind": "veth"}),
        ("settings", {"kind": "bridge", "vlan_filtering": 256}),
        ("settings", {"kind": "vlan", "id": 5, "egress_qos": [[1]]}),
        ("port", {"kind": "vrf"}),
    ],
)
def test_a_link_that_cannot_be_is_refused(field, value):
    assert refusal(with_link(**{field: value})).startswith(f"links.0.{field}")


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("vids", {"link": "br0", "vid": 0}),
        ("vids", {"link": "br0", "vid": 4095}),
        ("addresses", {"link": "br0", "family": "ipx", "address": "10.0.0.1", "prefixlen": 24}),
        ("addresses", {"link": "br0", "family": "inet", "address": "10.0.0.1", "prefixlen": 24, "valid_until": -1}),
        ("routes", {"family": "inet", "destination": "10.0.0.0/8", "nexthops": [{"weight": 0}]}),
        ("routes", {"family": "inet", "destination": "10.0.0.0/8", "metrics": {"mtu": []}}),
        ("rules", {"family": "inet", "priority": 5, "action": 1, "sport_range": [1]}),
        ("neighbours", {"link": "br0", "family": "inet", "address": "10.0.0.2", "mac": "0"}),
        ("fdb", {"link": "br0", "mac": MAC, "state": 1 << 16, "flags": 2}),
    ],
)
def test_a_thing_that_cannot_be_is_refused(what, value):
    assert refusal(changed(**{what: [value]})).startswith(f"{what}.0.")


def test_a_neighbour_that_nobody_answers_for_has_a_mac():
    neighbour = {"link": "br0", "family": "inet", "address": "10.0.0.2"}
    assert refusal(changed(neighbours=[neighbour])) == "neighbours.0: Value error, it has no MAC"


def test_the_fields_that_name_a_link_are_known():
    assert Bond.references() == {"primary"}
    assert Vxlan.references() == {"link"}
    assert BridgePort.references() == {"backup_port"}
    assert Bridge.references() == frozenset()


def test_what_a_link_is_set_to_is_what_was_told():
    assert Tun(type=2, owner=7).given() == {"type": 2, "owner": 7, "pi": 0, "vnet_hdr": 0, "multi_queue": 0}
    assert Bridge(priority=5).given() == {"priority": 5}
    assert Bridge().given() == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


def read_or_refuse(data):
    with suppress(BadSnapshot):
        assert isinstance(Snapshot.decode(data), Snapshot)


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data):
    read_or_refuse(data)


@settings(max_examples=300)
@given(st.data())
def test_no_damage_in_the_bytes_does_harm(data):
    whole = bytearray(WHOLE.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    read_or_refuse(bytes(whole))


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*path, number))


PLACES = [path for path in places(json.loads(WHOLE.encode())) if path]


@settings(max_examples=300)
@given(st.sampled_from(PLACES), JSON)
@example(("links", 0, "name"), "\ud800")
@example(("taken",), float("inf"))
@example(("taken",), float("nan"))
@example(("links", 0, "mtu"), 1e300)
def test_no_other_value_anywhere_does_harm(path, value):
    data = json.loads(WHOLE.encode())
    inside = data
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    read_or_refuse(json.dumps(data).encode())


@given(st.sampled_from(PLACES))
def test_nothing_that_is_missing_does_harm(path):
    data = json.loads(WHOLE.encode())
    inside = data
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    read_or_refuse(json.dumps(data).encode())
