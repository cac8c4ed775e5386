"""Of a network what is named comes along, with what that depends on, and nothing else; what can't is told."""

import pytest

from links import a_link
from luod.network.model import (
    Address,
    Bond,
    BondPort,
    Bridge,
    BridgePort,
    FdbEntry,
    LeftOut,
    Macvlan,
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
from luod.network.selection import select

MAC = "02:00:00:00:00:01"


def bridge(name, **more):
    return a_link(name, "bridge", settings=Bridge(), **more)


def physical(name, **more):
    return a_link(name, "physical", permanent_address=MAC, **more)


def tap(name, **more):
    return a_link(name, "tun", settings=Tun(type=2), **more)


def vlan(name, lower, **more):
    return a_link(name, "vlan", lower=lower, settings=Vlan(id=5), **more)


def veth(name, peer, **more):
    return a_link(name, "veth", settings=Veth(peer=peer), **more)


def network(*links, **more):
    return Snapshot(taken=1, boot_id="one", kernel="7.3", links=links, **more)


def names(snapshot):
    return [link.name for link in snapshot.links]


def left_out(snapshot):
    return [(left.what, left.reason) for left in snapshot.left_out]


def route(*links, **more):
    hops = tuple(Nexthop(link=name) for name in links)
    return Route(family="inet", destination="10.0.0.0/8", nexthops=hops, **more)


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (["eth0"], ["eth0"]),
        (["eth*"], ["eth0", "eth1"]),
        (["eth[1-9]"], ["eth1"]),
        (["a-long-*"], ["dummy0"]),
        (["eth1", "dummy?"], ["eth1", "dummy0"]),
        (["*"], ["eth0", "eth1", "dummy0"]),
        ([], []),
    ],
)
def test_links_are_selected_by_names_and_other_names(patterns, selected):
    everything = network(physical("eth0"), physical("eth1"), a_link("dummy0", altnames=("a-long-name",)))
    assert names(select(everything, patterns)) == selected


def test_without_patterns_there_is_nothing():
    everything = network(
        physical("eth0"),
        routes=(route(type=6),),
        rules=(Rule(family="inet", priority=5, action=1),),
        left_out=(LeftOut(what="rule 7 of inet", reason="why"),),
    )
    assert select(everything, []) == network()


def test_it_says_what_it_was_selected_by_and_when_it_was_taken():
    selected = select(network(physical("eth0")), ["eth0", "br*"])
    assert (selected.handover, selected.taken, selected.boot_id) == (("eth0", "br*"), 1, "one")


def test_names_differ_by_their_case():
    assert names(select(network(a_link("Eth0")), ["eth0"])) == []


def test_a_pattern_that_fits_nothing_is_told():
    assert left_out(select(network(physical("eth0")), ["eth0", "br*"])) == [("links br*", "no link has such a name")]


@pytest.mark.parametrize(
    ("chosen", "brought"),
    [
        (vlan("new", "eth0"), ["eth0"]),
        (a_link("new", "macvlan", lower="eth0", settings=Macvlan()), ["eth0"]),
        (a_link("new", "vxlan", settings=Vxlan(id=5, link="eth0")), ["eth0"]),
        (a_link("new", "vxlan", settings=Vxlan(id=5)), []),
        (a_link("new", "bond", settings=Bond(primary="eth0")), ["eth0"]),
        (tap("new", master="br0"), ["br0"]),
        (tap("new", master="br0", port=BridgePort(backup_port="eth1")), ["br0", "eth1"]),
        (veth("new", "peer"), ["peer"]),
        (vlan("new", "vlan5"), ["eth1", "vlan5"]),
    ],
)
def test_with_a_link_comes_what_it_depends_on(chosen, brought):
    others = [physical("eth0"), physical("eth1"), bridge("br0"), veth("peer", "new"), vlan("vlan5", "eth1")]
    everything = network(chosen, *others, a_link("dummy0"))
    assert sorted(names(select(everything, ["new"]))) == sorted(["new", *brought])


def test_what_stands_on_a_link_does_not_come_with_it():
    assert names(select(network(physical("eth0"), vlan("eth0.5", "eth0")), ["eth0"])) == ["eth0"]


def test_with_a_bond_come_its_ports():
    ports = [physical(name, master="bond0", port=BondPort()) for name in ("eth0", "eth1")]
    assert names(select(network(*ports, a_link("bond0", "bond", settings=Bond())), ["bond0"])) == [
        *("eth0", "eth1", "bond0")
    ]


def test_with_a_bridge_come_the_ports_that_lead_out_of_the_host():
    ports = {
        port.name: port.model_copy(update={"master": "br0", "port": BridgePort()})
        for port in (
            *(physical("eth0"), vlan("eth1.5", "eth1"), a_link("bond0", "bond", settings=Bond()), a_link("dummy0")),
            *(
                a_link("vx", "vxlan", settings=Vxlan(id=5)),
                tap("tap0"),
                veth("veth0", "inside"),
                veth("veth1", "veth2"),
            ),
        )
    }
    everything = network(
        *ports.values(), veth("inside", "veth0"), veth("veth2", "veth1"), physical("eth1"), bridge("br0")
    )
    assert sorted(names(select(everything, ["br0"]))) == [
        *("bond0", "br0", "dummy0", "eth0", "eth1", "eth1.5", "vx"),
    ]
    assert sorted(names(select(everything, ["br0", "tap0", "veth1"]))) == [
        *("bond0", "br0", "dummy0", "eth0", "eth1", "eth1.5", "tap0", "veth1", "veth2", "vx"),
    ]


def test_with_a_tap_comes_its_bridge_and_the_way_out():
    everything = network(
        physical("eth0", master="br0", port=BridgePort()), bridge("br0"), tap("tap0", master="br0"), tap("tap1")
    )
    assert names(select(everything, ["tap0"])) == ["eth0", "br0", "tap0"]


def test_what_is_of_a_link_comes_with_it_and_nothing_else_does():
    def of(name):
        return {
            "vids": (Vid(link=name, vid=5),),
            "addresses": (Address(link=name, family="inet", address="10.0.0.1", prefixlen=24),),
            "routes": (route(name),),
            "rules": (Rule(family="inet", priority=5, action=1, iifname=name),),
            "neighbours": (Neighbour(link=name, family="inet", address="10.0.0.2", mac=MAC),),
            "fdb": (FdbEntry(link=name, mac=MAC, state=0x40, flags=4),),
        }

    one, two = of("eth0"), of("eth1")
    everything = network(physical("eth0"), physical("eth1"), **{what: one[what] + two[what] for what in one})
    selected = select(everything, ["eth1"])
    assert {what: getattr(selected, what) for what in two} == two
    assert selected.left_out == ()


def test_routes_and_rules_without_a_link_come_along():
    everything = network(
        physical("eth0"),
        routes=(route(type=6),),
        rules=(Rule(family="inet", priority=5, action=1), Rule(family="inet", priority=6, action=1, iifname="lo")),
    )
    selected = select(everything, ["eth0"])
    assert (selected.routes, selected.rules) == (everything.routes, everything.rules)


def test_a_rule_comes_only_with_every_link_that_it_names():
    both = Rule(family="inet", priority=5, action=1, iifname="eth0", oifname="eth1")
    everything = network(physical("eth0"), physical("eth1"), rules=(both,))
    assert select(everything, ["eth0"]).rules == ()
    assert select(everything, ["eth*"]).rules == (both,)


def test_a_route_by_several_ways_comes_only_with_all_of_them():
    everything = network(physical("eth0"), physical("eth1"), routes=(route("eth0", "eth1"),))
    assert select(everything, ["eth*"]).routes == everything.routes
    selected = select(everything, ["eth0"])
    assert selected.routes == ()
    assert left_out(selected) == [("route 10.0.0.0/8 nexthop dev eth0 nexthop dev eth1", "needs eth1")]


def test_an_fdb_entry_comes_only_with_the_link_that_it_goes_by():
    entry = FdbEntry(link="vx", mac=MAC, state=0x80, flags=2, destination="10.0.0.2", via="eth0")
    everything = network(a_link("vx", "vxlan", settings=Vxlan(id=5)), physical("eth0"), fdb=(entry,))
    assert select(everything, ["*"]).fdb == (entry,)
    selected = select(everything, ["vx"])
    assert selected.fdb == ()
    assert left_out(selected) == [(f"fdb {MAC} dev vx dst 10.0.0.2 via eth0 permanent", "needs eth0")]


UNKNOWN = LeftOut(what="link wg0", reason="links of the kind wireguard aren't handed over", link="wg0")


def test_what_cannot_be_carried_is_told_where_it_was_selected():
    everything = network(physical("eth0"), left_out=(UNKNOWN,))
    assert select(everything, ["wg*"]).left_out == (UNKNOWN,)
    assert select(everything, ["eth0"]).left_out == ()


def test_what_needs_what_cannot_be_carried_is_left_out_too():
    everything = network(
        physical("eth0"), vlan("wg0.5", "wg0"), vlan("wg0.5.6", "wg0.5"), vlan("eth0.5", "eth0"), left_out=(UNKNOWN,)
    )
    selected = select(everything, ["*.*"])
    assert names(selected) == ["eth0", "eth0.5"]
    assert left_out(selected) == [
        ("link wg0", UNKNOWN.reason),
        ("link wg0.5 type vlan id 5 on wg0", "needs wg0"),
        ("link wg0.5.6 type vlan id 5 on wg0.5", "needs wg0.5"),
    ]


def test_a_link_of_a_master_that_cannot_be_carried_is_left_out():
    selected = select(network(physical("eth0", master="vrf0")), ["eth0"])
    assert (names(selected), left_out(selected)) == ([], [("link eth0", "needs vrf0")])


def test_a_port_comes_without_a_backup_that_cannot_be_carried():
    port = BridgePort(backup_port="wg0", cost=5)
    everything = network(bridge("br0"), physical("eth0", master="br0", port=port), left_out=(UNKNOWN,))
    selected = select(everything, ["br0"])
    assert selected.links[1].port == BridgePort(cost=5)
    assert left_out(selected) == [("link wg0", UNKNOWN.reason), ("backup_port of eth0", "needs wg0")]


def test_what_is_left_out_of_no_link_is_told():
    rule = LeftOut(what="rule 7 of inet", reason="it has a selector that isn't handed over")
    assert select(network(physical("eth0"), left_out=(rule,)), ["eth0"]).left_out == (rule,)


def test_all_of_a_whole_network_is_the_network():
    everything = network(
        *(physical("eth0"), bridge("br0"), tap("tap0", master="br0"), veth("one", "two"), veth("two", "one")),
        routes=(route("eth0", "br0"),),
        rules=(Rule(family="inet6", priority=5, action=1, oifname="br0"),),
    )
    assert select(everything, ["*"]) == everything.model_copy(update={"handover": ("*",)})
    assert select(select(everything, ["*"]), ["*"]) == select(everything, ["*"])


def test_two_thousand_taps_are_selected_at_once():
    taps = [tap(f"tap{n}", master="br0", port=BridgePort()) for n in range(2000)]
    everything = network(bridge("br0"), *taps)
    assert len(select(everything, ["tap*"]).links) == 2001
