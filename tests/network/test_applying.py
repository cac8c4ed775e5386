"""A network set up again as it was: what ip(8) and bridge(8) show of it is the same, whatever was there before."""

import os
import signal
import subprocess
from threading import get_native_id

import pytest

from luod.network import applying, reading
from luod.network.applying import Arrivals, apply
from luod.network.model import (
    Address,
    Bond,
    Bridge,
    BridgePort,
    FdbEntry,
    Link,
    Macvlan,
    Neighbour,
    Nexthop,
    Route,
    Rule,
    Snapshot,
    Tun,
    Vlan,
)

from .kinds import NETWORKS, commands
from .normal import addresses, links, picture, pictures
from .spaces import give_up_capabilities, need, supports
from .steps import applied, lacks, taken


def set_up(namespace, lines):
    for line in lines:
        namespace.run(*line)


@pytest.mark.parametrize("kind", NETWORKS)
def test_comes_back_as_it_was_and_then_is_left_alone(kind, namespace, another):
    set_up(namespace, commands(kind))
    wanted = taken(namespace)
    assert wanted.left_out == ()
    assert lacks(namespace, wanted) == [], "it lacks nothing to be itself"
    first = applied(another, wanted)
    assert (first.failed, first.left) == ((), ())
    restored, before = pictures(another, namespace)
    assert restored == before
    assert lacks(another, wanted) == []
    second = applied(another, wanted)
    assert (second.done, second.failed) == (0, ())
    assert second.equal == first.equal + first.done
    assert picture(another) == restored


# Whatever was there before


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_half_made_is_mended(kind, namespace, another):
    lines = commands(kind)
    set_up(namespace, lines)
    wanted = taken(namespace)
    for number, line in enumerate(lines):
        if number % 3:
            another.has(*line)
    report = applied(another, wanted)
    assert report.failed == ()
    assert lacks(another, wanted) == []


def set_otherwise(namespace):
    namespace.do(
        "ip link add v0 type veth peer name w0",
        "ip link add br0 address 02:00:00:00:00:77 type bridge ageing_time 5000",
        "ip link set v0 mtu 1300 up",
        "ip address add 10.0.0.1/24 dev v0 valid_lft 1000 preferred_lft 1000",
        "ip link set w0 up",
        "ip route add 10.1.0.0/16 via 10.0.0.9",
        "ip route add 10.2.0.0/16 via 10.0.0.9",
        "ip neighbour add 10.0.0.2 lladdr 02:00:00:00:00:09 dev v0",
    )


@pytest.fixture
def wanted(namespace):
    """A network that differs in much from one that is set otherwise."""
    need("veth", "bridge")
    namespace.do(
        "ip link add v0 type veth peer name w0",
        "ip link add br0 type bridge ageing_time 6000",
        "ip link add v1 type veth peer name w1",
        "ip link set v0 mtu 1400 up",
        "ip link set w0 mtu 1400 up",
        "ip link set v0 master br0",
        "ip link set v1 master br0",
        "ip address add 10.0.0.1/24 dev v0",
        "ip route add 10.1.0.0/16 via 10.0.0.8",
        "ip neighbour add 10.0.0.2 lladdr 02:00:00:00:00:08 dev v0",
    )
    return taken(namespace)


def test_what_differs_is_set_and_what_is_nobodys_is_left(wanted, namespace, another):
    set_otherwise(another)
    report = applied(another, wanted)
    assert (report.failed, report.left) == ((), ())
    assert links(another) == links(namespace)
    assert addresses(another) == addresses(namespace)
    destinations = {route["dst"]: route["gateway"] for route in another.ip("route") if "gateway" in route}
    assert destinations == {"10.1.0.0/16": "10.0.0.8", "10.2.0.0/16": "10.0.0.9"}


def test_what_differs_can_be_left_as_it_is(wanted, another):
    set_otherwise(another)

    def seen():
        return {link["ifname"]: {**link, "tso_max_size": None} for link in links(another)}

    before = seen()
    report = applied(another, wanted, leave=True)
    after = seen()
    assert report.failed == ()
    assert {name: after[name] for name in before} == before
    assert after["v1"]["master"] == "br0", "what wasn't there is made whole"
    left = {trouble.what: trouble.reason for trouble in report.left}
    assert left["link br0 type bridge"].startswith("ageing_time 5000, not 6000; ")
    assert left["route 10.1.0.0/16 via 10.0.0.8 dev v0"] == "nexthops [via 10.0.0.9 dev v0], not [via 10.0.0.8 dev v0]"
    assert left["link v0 type veth peer w0"].startswith("master none, not br0; mtu 1300, not 1400; address ")


# What can't be as it was


def test_a_name_that_something_else_has_is_reported_and_the_rest_is_done(wanted, another):
    another.do("ip link add br0 type veth peer name mine")
    report = applied(another, wanted)
    failed = {trouble.what: trouble.reason for trouble in report.failed if not trouble.what.startswith("vlan")}
    assert failed == {
        "link br0 type bridge": "the name br0 is taken by a veth",
        "link v0 type veth peer w0": "needs br0",
        "link v1 type veth peer w1": "needs br0",
    }
    assert [route["gateway"] for route in another.ip("route", "show", "10.1.0.0/16")] == ["10.0.0.8"]
    assert another.ip("link", "show", "br0")[0]["link"] == "mine"


def test_a_name_that_a_link_has_which_is_none_of_a_snapshot_is_reported(wanted, namespace, another):
    another.do("ip link add br0 type veth peer name far")
    another.do(f"ip link set far netns {namespace(get_native_id)}")
    failed = {trouble.what: trouble.reason for trouble in applied(another, wanted).failed}
    assert failed["link br0 type bridge"] == "the name br0 is taken"
    assert failed["link v1 type veth peer w1"] == "needs br0"


A_LINK = {
    "dummy": Link(name="n0", kind="dummy", mtu=1500, up=True),
    "bond": Link(name="n0", kind="bond", mtu=1500, up=True, settings=Bond(mode=1)),
    "vlan": Link(name="n0", kind="vlan", mtu=1500, up=True, lower="v0", settings=Vlan(id=5)),
    "macvlan": Link(name="n0", kind="macvlan", mtu=1500, up=True, lower="v0", settings=Macvlan(mode=4)),
}


def of_a_kind_that_this_kernel_lacks():
    for kind, link in A_LINK.items():
        if not supports(kind):
            return link
    return A_LINK["dummy"].model_copy(update={"kind": "quantum"})


def test_a_kernel_that_lacks_a_kind_is_told_of_and_the_rest_is_done(wanted, another):
    link = of_a_kind_that_this_kernel_lacks()
    more = Address(link="n0", family="inet", address="10.7.0.1", prefixlen=24)
    wanted = wanted.model_copy(update={"links": (*wanted.links, link), "addresses": (*wanted.addresses, more)})
    things = sum(len(each) for each in (wanted.links, wanted.vids, wanted.addresses, wanted.routes, wanted.neighbours))
    report = applied(another, wanted)
    assert [trouble.reason for trouble in report.failed] == [
        f"this kernel has no links of the kind {link.kind}",
        "needs n0",
    ]
    assert report.done + report.equal == things - 2


def test_a_setting_that_is_refused_does_not_stop_the_others(wanted, another):
    bad = Bridge(ageing_time=6000, priority=9, mcast_hash_max=3, group_addr="02:00:00:00:00:01")
    links = [each.model_copy(update={"settings": bad}) if each.name == "br0" else each for each in wanted.links]
    report = applied(another, wanted.model_copy(update={"links": tuple(links)}))
    (trouble,) = report.failed
    assert trouble.what == "link br0 type bridge"
    assert trouble.reason.startswith("group_addr: ")
    assert another.ip("link", "show", "br0")[0]["linkinfo"]["info_data"]["priority"] == 9


def test_a_gateway_that_nobody_can_reach_is_told_of_and_the_rest_is_done(wanted, another):
    lost = Route(family="inet", destination="10.5.0.0/16", nexthops=(Nexthop(link="v0", gateway="10.99.0.1"),))
    report = applied(another, wanted.model_copy(update={"routes": (lost, *wanted.routes)}))
    (trouble,) = report.failed
    assert trouble.what == "route 10.5.0.0/16 via 10.99.0.1 dev v0"
    assert "invalid gateway" in trouble.reason
    assert another.ip("route", "show", "10.1.0.0/16")


IMPOSSIBLE = [
    Address(link="br0", family="inet", address="10.0.0,1", prefixlen=24),
    Address(link="br0", family="inet", address="", prefixlen=24),
    Address(link="br0", family="inet6", address="fd00::1", prefixlen=200),
    Address(link="br0", family="inet6", address="fd00::1", prefixlen=64, valid_until=4e9, preferred_until=5e9),
    Route(family="inet", destination="10.0.0.0", nexthops=(Nexthop(link="br0"),)),
    Route(family="inet", destination="10.0.0.0/8", nexthops=(Nexthop(link="br0", gateway="a"),)),
    Route(family="inet", destination="10.0.0.0/8", nexthops=(Nexthop(link="br0"),), metrics={"what": 1}),
    Rule(family="inet", priority=1, action=1, table=5, source="10.0.0.0/x"),
    Neighbour(link="br0", family="inet", address="x", mac="02:00:00:00:00:01"),
    Neighbour(link="br0", family="inet", address="10.0.0.1", mac="02"),
    FdbEntry(link="br0", mac="02", state=0x80, flags=4),
]


@pytest.mark.parametrize("nonsense", IMPOSSIBLE, ids=repr)
def test_nonsense_is_told_of_and_the_rest_is_done(nonsense, another):
    field = {Address: "addresses", Route: "routes", Rule: "rules", Neighbour: "neighbours", FdbEntry: "fdb"}
    br0 = Link(name="br0", kind="bridge", mtu=1500, up=True)
    good = Rule(family="inet", priority=9, action=1, table=7, protocol=3)
    wanted = Snapshot(taken=1, boot_id="b", kernel="7.3", links=(br0,), rules=(good,))
    those = (nonsense, *getattr(wanted, field[type(nonsense)]))
    report = applied(another, wanted.model_copy(update={field[type(nonsense)]: those}))
    (failed,) = report.failed
    assert failed.reason not in ("", "None")
    assert [rule["priority"] for rule in another.ip("rule", "show")].count(9) == 1


def test_what_another_does_meanwhile_is_no_failure(another, monkeypatch):
    done_by_another = ["ip rule add pref 9 lookup 7", "ip link add br0 type bridge", "ip link set br0 up"]

    def look(ip):
        seen = reading.look(ip)
        for line in done_by_another:
            subprocess.run(line.split(), check=True)
        done_by_another.clear()
        return seen

    monkeypatch.setattr(applying, "look", look)
    br0 = Link(name="br0", kind="bridge", mtu=1500, up=True)
    rule = Rule(family="inet", priority=9, action=1, table=7, protocol=0)
    wanted = Snapshot(taken=1, boot_id="b", kernel="7.3", links=(br0,), rules=(rule,))
    assert applied(another, wanted).failed == ()


def test_a_link_that_somebody_removes_again_and_again_does_not_stop_the_rest(another, monkeypatch):
    def look(ip):
        subprocess.run(["ip", "link", "del", "br0"], stderr=subprocess.DEVNULL, check=False)
        return reading.look(ip)

    monkeypatch.setattr(applying, "look", look)
    bridges = tuple(Link(name=f"br{number}", kind="bridge", mtu=1500, up=True) for number in range(2))
    address = Address(link="br1", family="inet", address="10.0.0.1", prefixlen=24)
    route = Route(family="inet", destination="10.1.0.0/16", nexthops=(Nexthop(link="br1", gateway="10.0.0.9"),))
    wanted = Snapshot(taken=1, boot_id="b", kernel="7.3", links=bridges, addresses=(address,), routes=(route,))
    report = applied(another, wanted)
    assert [failed.what for failed in report.failed] == ["link br0 type bridge"]
    assert report.done == 3


def test_what_is_over_is_told_of(wanted, another):
    over = Address(link="v0", family="inet", address="10.7.0.1", prefixlen=24, valid_until=1.0)
    (trouble,) = applied(another, wanted.model_copy(update={"addresses": (*wanted.addresses, over)})).failed
    assert (trouble.what, trouble.reason) == ("address 10.7.0.1/24 dev v0", "its time is over")


def test_who_may_not_is_told_once(wanted, another):
    def without_capabilities():
        give_up_capabilities()
        return apply(wanted, wait=5, leave=False)

    (trouble,) = another(without_capabilities).failed
    assert trouble.what == "the network"
    assert "CAP_NET_ADMIN" in trouble.reason


# What comes late


A_CARD = Link(name="eth7", kind="physical", mtu=1500, up=True, permanent_address="02:00:00:00:00:77", path="pci-7")


def test_a_card_that_does_not_come_is_waited_for_and_told_of(wanted, another):
    wanted = wanted.model_copy(update={"links": (*wanted.links, A_CARD)})
    report = applied(another, wanted, wait=0.2)
    (trouble,) = report.failed
    assert trouble.what == "link eth7"
    assert trouble.reason == "no link with the permanent address 02:00:00:00:00:77 (pci-7) has come for 0.2 s"
    assert report.seconds >= 0.2


def test_links_that_come_and_go_hold_nobody_up(namespace, wanted, another):
    wanted = wanted.model_copy(update={"links": (*wanted.links, A_CARD)})
    another.do("ip link add flaps type veth peer name flapped")
    flap = "while ip link set flaps up && ip link set flaps down; do :; done"
    with another(subprocess.Popen, ["timeout", "20", "sh", "-c", flap], start_new_session=True) as flapping:
        report = applied(another, wanted, wait=0.5)
        os.killpg(flapping.pid, signal.SIGTERM)
    assert [trouble.what for trouble in report.failed] == ["link eth7"]
    assert report.seconds < 10


def test_links_that_come_are_heard_of(namespace):
    need("bridge")
    with namespace(Arrivals) as arrivals:
        assert not arrivals.wait(0)
        namespace.do("ip link add br0 type bridge", "ip link add br1 type bridge")
        assert arrivals.wait(5)
        assert not arrivals.wait(0)


# Many


def test_a_thousand_taps(namespace, another):
    need("tun", "bridge")
    settings = Bridge()
    bridge = Link(name="br0", kind="bridge", mtu=1500, up=True, settings=settings)
    taps = [
        Link(
            name=f"tap{number}",
            kind="tun",
            mtu=1500,
            address=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
            up=True,
            master="br0",
            settings=Tun(type=2, owner=1000),
            port=BridgePort(isolated=1),
        )
        for number in range(1000)
    ]
    wanted = taken(namespace).model_copy(update={"links": (bridge, *taps)})
    report = applied(another, wanted)
    assert report.failed == ()
    assert report.done == 1001
    assert lacks(another, wanted) == []
