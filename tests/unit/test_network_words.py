"""The things of a network in words, as ip(8) and bridge(8) have them."""

import pytest

from links import a_link
from luod.network.model import (
    Address,
    FdbEntry,
    Neighbour,
    Nexthop,
    Route,
    Rule,
    Tun,
    Veth,
    Vid,
    Vlan,
    Vxlan,
)
from luod.network.steps import Change
from luod.network.words import said, said_of

A_MAC = "02:00:00:00:00:01"


def an_address(address, **fields):
    return Address(link="br0", family="inet", address=address, prefixlen=24, **fields)


def a_route(destination="10.0.0.0/8", *nexthops, **fields):
    return Route(family="inet", destination=destination, nexthops=nexthops, **fields)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (a_link("eth0", "physical"), "link eth0"),
        (a_link("lo", "loopback"), "link lo"),
        (a_link("br0", "bridge"), "link br0 type bridge"),
        (a_link("tap0", "tun", settings=Tun(type=2)), "link tap0 type tap"),
        (
            a_link("tun0", "tun", settings=Tun(type=1, owner=1001, group=7, multi_queue=1)),
            "link tun0 type tun user 1001 group 7 multi_queue",
        ),
        (a_link("v5", "vlan", lower="eth0", settings=Vlan(id=5)), "link v5 type vlan id 5 on eth0"),
        (a_link("v0", "veth", settings=Veth(peer="v1")), "link v0 type veth peer v1"),
        (a_link("x0", "vxlan", settings=Vxlan(id=7, link="eth0")), "link x0 type vxlan id 7 dev eth0"),
        (a_link("m0", "macvlan", lower="eth0"), "link m0 type macvlan on eth0"),
        (Vid(link="tap0", vid=5, pvid=True, untagged=True), "vlan 5 dev tap0 pvid untagged"),
        (Vid(link="tap0", vid=2, last=4094), "vlan 2-4094 dev tap0"),
        (an_address("10.0.0.1"), "address 10.0.0.1/24 dev br0"),
        (an_address("10.0.0.1", peer="10.0.0.2"), "address 10.0.0.1 peer 10.0.0.2/24 dev br0"),
        (a_route("0.0.0.0/0", Nexthop(link="eth0", gateway="10.0.0.1")), "route default via 10.0.0.1 dev eth0"),
        (
            a_route(source="10.1.0.0/16", table=100, tos=16, priority=5, type=6),
            "route blackhole 10.0.0.0/8 from 10.1.0.0/16 table 100 tos 0x10 metric 5",
        ),
        (a_route(type=6, realms=9), "route blackhole 10.0.0.0/8 realms 9"),
        (
            a_route("10.0.0.0/8", Nexthop(link="a", weight=2), Nexthop(gateway="10.0.0.1", onlink=True)),
            "route 10.0.0.0/8 nexthop dev a weight 2 nexthop via 10.0.0.1 onlink",
        ),
        (
            Rule(family="inet", priority=5, action=1, table=100, source="10.0.0.0/8", fwmark=1),
            "rule 5: from 10.0.0.0/8 fwmark 0x1 lookup 100",
        ),
        (
            Rule(family="inet", priority=5, action=1, table=254, invert=True, dport_range=(1, 2), iifname="lo"),
            "rule 5: not from all iif lo dport 1-2 lookup main",
        ),
        (
            a_route("10.0.0.0/8", Nexthop(link="a", realms=3 << 16 | 4), Nexthop(link="b", realms=5)),
            "route 10.0.0.0/8 nexthop dev a realms 3/4 nexthop dev b realms 5",
        ),
        (Rule(family="inet", priority=5, action=1, table=7, realms=5), "rule 5: from all lookup 7 realms 5"),
        (Rule(family="inet", priority=6, action=2, goto=9), "rule 6: from all goto 9"),
        (Rule(family="inet6", priority=6, action=6, destination="fd00::/8"), "rule 6: from all to fd00::/8 blackhole"),
        (Rule(family="inet6", priority=6, action=1, table=254), "rule 6: inet6 from all lookup main"),
        (Rule(family="inet", priority=1000, action=1, l3mdev=1), "rule 1000: from all lookup [l3mdev-table]"),
        (
            Neighbour(link="br0", family="inet", address="10.0.0.2", mac=A_MAC),
            f"neighbour 10.0.0.2 lladdr {A_MAC} dev br0",
        ),
        (Neighbour(link="br0", family="inet", address="10.0.0.2", flags=8), "neighbour proxy 10.0.0.2 dev br0"),
        (
            FdbEntry(link="tap0", mac=A_MAC, state=0x40, flags=4, vlan=5),
            f"fdb {A_MAC} dev tap0 vlan 5 master static",
        ),
        (
            FdbEntry(link="x0", mac=A_MAC, state=0x80, flags=2, destination="10.0.0.1", via="eth0"),
            f"fdb {A_MAC} dev x0 dst 10.0.0.1 via eth0 permanent",
        ),
    ],
)
def test_a_thing_in_words(thing, words):
    assert said(thing) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change("mtu", 1500, 9000), "mtu 1500, not 9000"),
        (Change("master", None, "br0"), "master none, not br0"),
        (Change("up", before=False, after=True), "up off, not on"),
        (Change("settings.vlan_filtering", 0, 1), "vlan_filtering 0, not 1"),
        (Change("valid_until", None, 86400.5), "valid_until forever, not 1970-01-02 00:00:00Z"),
        (Change("altnames", (), ("a", "b")), "altnames [], not [a, b]"),
        (
            Change("nexthops", (Nexthop(link="a"),), (Nexthop(gateway="b", link="a"),)),
            "nexthops [dev a], not [via b dev a]",
        ),
    ],
)
def test_a_change_in_words(change, words):
    assert said_of(change) == words
