"""What a network lacks to be as it was: which steps, in which order, and what can't be had."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from links import a_link
from luod.network.model import (
    Address,
    Bond,
    BondPort,
    Bridge,
    BridgePort,
    FdbEntry,
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
from luod.network.plan import plan
from luod.network.plan.recognition import renames, without_blocked
from luod.network.plan.vlans import ranges, spread
from luod.network.relations import lower_first
from luod.network.steps import Action, Change, Phase

NOW = 1_000_000.0
ADD, SET, REMOVE = Action


def a_card(name, number=1, **fields):
    return a_link(name, "physical", **{"permanent_address": f"02:00:00:00:00:{number:02x}", **fields})


def a_bridge(name="br0", **fields):
    settings = fields.pop("settings", Bridge(vlan_filtering=1, vlan_default_pvid=1))
    return a_link(name, "bridge", settings=settings, **fields)


def a_port(name="tap0", master="br0", **fields):
    tap = Tun(type=2, **fields.pop("tun", {}))
    return a_link(name, "tun", settings=tap, master=master, port=BridgePort(**fields.pop("port", {})), **fields)


def a_vlan(name, lower, number=5, **fields):
    return a_link(name, "vlan", lower=lower, settings=Vlan(id=number), **fields)


def a_veth(name, peer, **fields):
    return a_link(name, "veth", settings=Veth(peer=peer), **fields)


def an_address(address="10.0.0.1", link="d0", **fields):
    family = "inet6" if ":" in address else "inet"
    return Address(**{"link": link, "family": family, "address": address, "prefixlen": 24, **fields})


def a_route(destination="10.1.0.0/16", via=None, link="d0", **fields):
    family = "inet6" if ":" in destination else "inet"
    hops = (Nexthop(link=link, gateway=via),)
    return Route(**{"family": family, "destination": destination, "nexthops": hops, **fields})


def a_network(*links, **things):
    return Snapshot(taken=NOW, boot_id="boot", kernel="7.3", links=links, **things)


NOTHING = a_network()


def steps(wanted, there=NOTHING):
    return plan(wanted, there, NOW).steps


def done(wanted, there=NOTHING):
    """The steps, as action and name of what it is of, or what is set."""
    return [(step.action, step.thing.name, *(change.field for change in step.changes)) for step in steps(wanted, there)]


def reasons(wanted, there=NOTHING):
    return [reason for _, reason in plan(wanted, there, NOW).impossible]


# What is equal


def test_what_is_as_wanted_takes_no_step():
    network = a_network(
        a_bridge(),
        a_port(),
        a_link("d0"),
        vids=[Vid(link="tap0", vid=1, pvid=True, untagged=True), Vid(link="br0", vid=1, pvid=True, untagged=True)],
        addresses=[an_address()],
        routes=[a_route()],
        rules=[Rule(family="inet", priority=5, action=1, table=100)],
        neighbours=[Neighbour(link="d0", family="inet", address="10.0.0.2", mac="02:00:00:00:00:02")],
        fdb=[FdbEntry(link="tap0", mac="02:00:00:00:00:02", state=0x40, flags=4)],
    )
    found = plan(network, network, NOW)
    assert (found.steps, found.impossible, found.equal) == ((), (), 10)


def test_what_nobody_knows_of_a_link_is_left_as_it_is():
    wanted = a_network(a_link("d0", address=None, txqlen=None, alias=None))
    there = a_network(a_link("d0", address="02:00:00:00:00:01", txqlen=5, alias="mine", altnames=["other"]))
    assert steps(wanted, there) == ()


def test_what_is_there_and_not_wanted_is_left_alone():
    there = a_network(
        a_link("d0"),
        a_link("other"),
        addresses=[an_address("10.9.0.1")],
        routes=[a_route("10.9.0.0/16")],
        rules=[Rule(family="inet", priority=9, action=1, table=100)],
    )
    assert steps(a_network(a_link("d0")), there) == ()


# Links


def test_links_are_made_with_what_they_stand_on_first():
    wanted = a_network(
        a_vlan("upper", "middle"),
        a_vlan("middle", "bond0"),
        a_link("bond0", "bond", settings=Bond(mode=1)),
        a_link("x0", "vxlan", settings=Vxlan(id=1, link="upper")),
    )
    assert done(wanted) == [(ADD, "bond0"), (ADD, "middle"), (ADD, "upper"), (ADD, "x0")]


@given(st.lists(st.integers(0, 8), min_size=9, max_size=9))
def test_no_order_of_links_lets_one_stand_before_what_it_stands_on(under):
    links = [a_vlan(f"l{number}", f"l{lower}") for number, lower in enumerate(under) if lower != number]
    order = [link.name for link in lower_first(links)]
    assert sorted(order) == sorted(link.name for link in links)
    circular = {link.name for link in links if _goes_round(link.name, {each.name: each.lower for each in links})}
    for link in links:
        if link.lower in order and link.name not in circular:
            assert order.index(link.lower) < order.index(link.name)


def _goes_round(name, lower):
    seen = set()
    while name in lower and name not in seen:
        seen.add(name)
        name = lower[name]
    return name in seen


def test_each_setting_has_its_turn():
    wanted = a_network(
        a_bridge(settings=Bridge(ageing_time=7)),
        a_port(mtu=9000, alias="guest", port={"cost": 7}, addr_gen_mode=1),
        vids=[Vid(link="tap0", vid=5)],
        addresses=[an_address(link="tap0")],
    )
    there = a_network(
        a_bridge(settings=Bridge(ageing_time=8), up=False),
        a_port(master=None, up=False).model_copy(update={"port": None}),
    )
    assert [step.phase for step in steps(wanted, there)] == [
        Phase.NAMES,
        Phase.SETTINGS,
        Phase.JOIN,
        Phase.PORT,
        Phase.VLANS,
        Phase.LINK_LOCAL,
        Phase.UP,
        Phase.UP,
        Phase.ADDRESSES,
    ]


def test_a_bond_is_told_its_primary_behind_its_ports():
    bond = Bond(mode=1, primary="d0", miimon=100)
    wanted = a_network(a_link("bond0", "bond", settings=bond), a_link("d0", master="bond0", port=BondPort(queue_id=1)))
    there = a_network(a_link("bond0", "bond", settings=Bond(mode=1, miimon=0)), a_link("d0"))
    assert done(wanted, there) == [
        (SET, "bond0", "settings.miimon"),
        (SET, "d0", "master"),
        (SET, "d0", "port.queue_id"),
        (SET, "bond0", "settings.primary"),
    ]


def test_the_changes_say_what_was_there():
    (step,) = steps(a_network(a_link("d0", mtu=9000)), a_network(a_link("d0")))
    assert step.changes == (Change("mtu", 1500, 9000),)


def test_a_link_leaves_a_master_that_it_had_not():
    assert done(a_network(a_link("d0")), a_network(a_bridge(), a_link("d0", master="br0"))) == [(SET, "d0", "master")]


def test_the_order_of_the_macs_that_a_macvlan_takes_from_does_not_count():
    def network(*macs):
        return a_network(a_link("m0", "macvlan", settings=Macvlan(mode=16, macaddr=macs)))

    one, other = "02:00:00:00:00:01", "02:00:00:00:00:02"
    assert steps(network(one, other), network(other, one)) == ()
    assert done(network(one), network(other)) == [(SET, "m0", "settings.macaddr")]


def test_other_names_are_added_to_those_that_are_there():
    (step,) = steps(a_network(a_link("d0", altnames=["a", "b"])), a_network(a_link("d0", altnames=["b", "c"])))
    assert step.changes == (Change("altnames", ("b", "c"), ("b", "c", "a")),)


# Which is which


def test_a_card_is_known_by_its_permanent_address_whatever_its_name():
    wanted = a_network(a_card("lan0", 1), addresses=[an_address(link="lan0")])
    there = a_network(a_card("eth0", 2), a_card("eth1", 1), addresses=[an_address(link="eth1")])
    found = plan(wanted, there, NOW)
    assert [(step.there, step.changes) for step in found.steps] == [("eth1", (Change("name", "eth1", "lan0"),))]
    assert found.names == {"lan0": "eth1"}
    assert found.equal == 1


def test_all_that_names_a_card_by_its_other_name_means_it():
    def network(name):
        fdb = [FdbEntry(link="x0", mac="02:00:00:00:00:09", state=0x80, flags=2, destination="10.0.0.9", via=name)]
        return a_network(
            a_card(name, 1, master="br0", port=BridgePort(cost=7)),
            a_bridge(),
            a_port(port={"backup_port": name}),
            a_vlan("v5", name),
            a_link("x0", "vxlan", settings=Vxlan(id=1, link=name)),
            vids=[Vid(link=name, vid=1, pvid=True, untagged=True), Vid(link="tap0", vid=1, pvid=True, untagged=True)],
            routes=[a_route(link=name), a_route("10.2.0.0/16", link=name)],
            fdb=fdb,
        )

    found = plan(network("lan0"), network("eth1"), NOW)
    assert [(step.phase, step.there) for step in found.steps] == [(Phase.RENAME, "eth1")]


def test_a_card_without_one_is_known_by_where_it_is_plugged_in():
    wanted = a_network(a_card("lan0", permanent_address=None, path="pci-0000:00:03.0"))
    there = a_network(
        a_card("eth0", permanent_address=None, path="pci-0000:00:04.0"),
        a_card("eth1", permanent_address=None, path="pci-0000:00:03.0"),
    )
    assert plan(wanted, there, NOW).names == {"lan0": "eth1"}


def test_of_two_cards_with_one_address_the_path_tells_which():
    wanted = a_network(a_card("a", path="pci-1"), a_card("b", path="pci-2"))
    there = a_network(a_card("eth0", path="pci-2"), a_card("eth1", path="pci-1"))
    assert plan(wanted, there, NOW).names == {"a": "eth1", "b": "eth0"}


def test_of_two_cards_with_one_address_and_no_path_the_name_tells_which():
    wanted = a_network(a_card("b"), a_card("a"))
    assert plan(wanted, a_network(a_card("a"), a_card("b")), NOW).names == {"a": "a", "b": "b"}


@pytest.mark.parametrize("lacking", ["permanent_address", "path"])
def test_what_two_cards_both_lack_does_not_make_them_one(lacking):
    one = a_card("eth0", 1, path="pci-1").model_copy(update={lacking: None})
    other = a_card("eth0", 2, path="pci-2").model_copy(update={lacking: None})
    found = plan(a_network(one), a_network(other), NOW)
    assert (found.names, [link.name for link in found.awaited]) == ({}, ["eth0"])


def test_another_card_in_the_same_place_is_taken_for_it():
    assert plan(a_network(a_card("a", 1, path="pci-1")), a_network(a_card("a", 2, path="pci-1")), NOW).names == {
        "a": "a"
    }


def test_a_card_that_is_not_there_is_awaited_and_so_is_all_that_needs_it():
    wanted = a_network(a_card("eth0", 1, path="pci-1"), a_vlan("v5", "eth0"), addresses=[an_address(link="v5")])
    found = plan(wanted, NOTHING, NOW)
    assert [link.name for link in found.awaited] == ["eth0"]
    assert found.steps == ()
    assert [reason for _, reason in found.impossible] == [
        "no link with the permanent address 02:00:00:00:00:01 (pci-1) is there",
        "needs eth0",
        "needs v5",
    ]


def test_two_cards_swap_their_names_by_way_of_a_third():
    wanted = a_network(a_card("eth0", 1), a_card("eth1", 2))
    there = a_network(a_card("eth0", 2), a_card("eth1", 1))
    assert [(step.there, step.changes[0].after) for step in steps(wanted, there)] == [
        ("eth1", "luod0"),
        ("eth0", "eth1"),
        ("luod0", "eth0"),
    ]


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_names_go_round_in_any_way(olds, news):
    found = {f"n{new}": f"n{old}" for old, new in zip(olds[:4], news, strict=False)}
    there = [a_card(f"n{old}", old) for old in olds]
    free = without_blocked(found, there)
    names = {link.name: link.permanent_address for link in there}
    for _, before, after in renames(free, there):
        assert after not in names
        names[after] = names.pop(before)
    where = {link.permanent_address: link.name for link in there}
    for new, old in found.items():
        assert names[new if new in free else old] == f"02:00:00:00:00:{int(old[1:]):02x}"
    assert len(names) == len(where)


def test_a_name_that_another_card_has_is_not_taken_from_it():
    wanted = a_network(a_card("eth0", 1), addresses=[an_address(link="eth0")])
    there = a_network(a_card("eth0", 2), a_card("eth1", 1))
    assert steps(wanted, there) == ()
    assert reasons(wanted, there) == ["the name eth0 is taken by another physical link", "needs eth0"]


@pytest.mark.parametrize(
    ("wanted", "there", "reason"),
    [
        (a_bridge("n"), a_link("n"), "the name n is taken by a dummy"),
        (a_vlan("n", "d0"), a_vlan("n", "d1"), "the name n is taken by one on d1, not on d0"),
        (a_vlan("n", "d0", 5), a_vlan("n", "d0", 6), "the name n is taken by one with id 6, not 5"),
        (a_port("n", tun={"multi_queue": 1}), a_port("n"), "the name n is taken by one with multi_queue 0, not 1"),
    ],
)
def test_a_name_that_something_else_has_is_not_taken_from_it(wanted, there, reason):
    links = (a_link("d0"), a_link("d1"), a_bridge())
    network = a_network(*links, wanted, addresses=[an_address(link="n")])
    assert steps(network, a_network(*links, there)) == ()
    assert reasons(network, a_network(*links, there)) == [reason, "needs n"]


def test_of_a_pair_of_veths_none_is_made_where_the_name_of_one_is_taken():
    wanted = a_network(a_veth("v0", "v1"), a_veth("v1", "v0"))
    assert reasons(wanted, a_network(a_link("v1"))) == ["needs v1", "the name v1 is taken by a dummy"]


def test_a_port_of_a_bridge_that_cannot_be_is_made_nevertheless():
    wanted = a_network(a_bridge(), a_port(mtu=9000), vids=[Vid(link="tap0", vid=5)])
    there = a_network(a_link("br0"), a_port(master=None))
    found = plan(wanted, there, NOW)
    assert [change.field for step in found.steps for change in step.changes] == ["mtu"]
    assert [reason for _, reason in found.impossible] == ["the name br0 is taken by a dummy", "needs br0", "needs br0"]


# VLANs


def the_vlans(link, *flags):
    return [Vid(link=link, vid=vid, pvid=pvid, untagged=untagged) for vid, pvid, untagged in flags]


def test_a_port_is_in_no_other_vlans_than_it_was():
    wanted = a_network(a_bridge(), a_port(), vids=the_vlans("tap0", (5, True, True), (6, False, False)))
    there = a_network(a_bridge(), a_port(), vids=the_vlans("tap0", (1, True, True), (6, False, True)))
    assert [(step.action, step.thing.vid, step.changes) for step in steps(wanted, there)] == [
        (REMOVE, 1, ()),
        (ADD, 5, ()),
        (SET, 6, (Change("untagged", before=True, after=False),)),
    ]


def test_a_port_that_comes_to_a_bridge_is_taken_out_of_the_vlan_that_it_is_put_in():
    wanted = a_network(a_bridge(), a_port(), vids=the_vlans("tap0", (5, True, True)))
    there = a_network(a_bridge(), a_port(master=None))
    of_vlans = [(step.action, step.thing.vid) for step in steps(wanted, there) if step.phase is Phase.VLANS]
    assert of_vlans == [(REMOVE, 1), (ADD, 5)]


def test_vlans_of_a_kernel_that_had_none_are_nobodys():
    wanted = a_network(a_bridge(settings=Bridge()), a_port())
    assert steps(wanted, a_network(a_bridge(), a_port(), vids=the_vlans("tap0", (1, True, True)))) == ()


def test_a_range_of_vlans_is_one_step():
    wanted = a_network(a_bridge(), a_port(), vids=[Vid(link="tap0", vid=2, last=4094)])
    there = a_network(a_bridge(), a_port(), vids=the_vlans("tap0", (100, False, False)))
    assert [(step.thing.vid, step.thing.last) for step in steps(wanted, there)] == [(2, 99), (101, 4094)]


@given(st.dictionaries(st.integers(1, 20), st.tuples(st.just(False), st.booleans())))
def test_ranges_are_the_same_vlans(flags):
    entries = list(ranges("d0", flags))
    assert spread(entries).get("d0", {}) == flags
    assert all(
        (before.last or before.vid) + 1 < after.vid or before.untagged != after.untagged
        for before, after in pairwise(entries)
    )


# Addresses, routes and what else there is


def test_ipv4_addresses_are_added_as_they_were_dumped_and_ipv6_ones_the_other_way_round():
    wanted = a_network(a_link("d0"), addresses=[an_address(a) for a in ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2")])
    there = a_network(a_link("d0"))
    assert [step.thing.address for step in steps(wanted, there)] == ["10.0.0.1", "10.0.0.2", "fd00::2", "fd00::1"]


def test_when_an_address_ends_does_not_count_but_that_it_does():
    wanted = a_network(a_link("d0"), addresses=[an_address(valid_until=NOW + 100)])
    assert steps(wanted, a_network(a_link("d0"), addresses=[an_address(valid_until=NOW + 200)])) == ()
    assert len(steps(wanted, a_network(a_link("d0"), addresses=[an_address()]))) == 1


def test_what_is_over_by_now_is_not_made_again():
    over = {"valid_until": NOW - 1}
    wanted = a_network(a_link("d0"), addresses=[an_address(**over)], routes=[a_route("fd00::/8", **over)])
    assert steps(wanted, a_network(a_link("d0"))) == ()
    assert reasons(wanted, a_network(a_link("d0"))) == ["its time is over"] * 2


def test_routes_by_way_of_a_gateway_come_behind_those_that_lead_to_it():
    wanted = a_network(a_link("d0"), routes=[a_route(via="10.2.0.1"), a_route("10.2.0.0/16")])
    assert [step.thing.destination for step in steps(wanted, a_network(a_link("d0")))] == [
        "10.2.0.0/16",
        "10.1.0.0/16",
    ]


def routed(*ways):
    return a_network(a_link("d0"), routes=[a_route(via=way) for way in ways])


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        (["a"], [], [(ADD, "a")]),
        (["a", "b"], [], [(ADD, "a"), (ADD, "b")]),
        (["a", "b"], ["b"], [(ADD, "a")]),
        (["a", "b"], ["c"], [(SET, "a"), (ADD, "b")]),
        (["a"], ["a", "c"], []),
        (["a", "b"], ["a", "c"], [(ADD, "b")]),
    ],
)
def test_a_route_takes_the_place_of_another_only_where_none_of_the_wanted_ones_is(wanted, there, expected):
    found = steps(routed(*wanted), routed(*there))
    assert [(step.action, step.thing.nexthops[0].gateway) for step in found] == expected


def test_the_order_of_a_routes_ways_does_not_count():
    def network(*ways):
        return a_network(
            a_link("d0"),
            routes=[a_route().model_copy(update={"nexthops": tuple(Nexthop(gateway=way) for way in ways)})],
        )

    assert steps(network("a", "b"), network("b", "a")) == ()


def test_a_neighbour_with_another_mac_is_set():
    def network(mac):
        return a_network(a_link("d0"), neighbours=[Neighbour(link="d0", family="inet", address="10.0.0.2", mac=mac)])

    (step,) = steps(network("02:00:00:00:00:01"), network("02:00:00:00:00:02"))
    assert (step.action, step.changes) == (SET, (Change("mac", "02:00:00:00:00:02", "02:00:00:00:00:01"),))


def test_a_vxlan_has_many_destinations_for_what_it_knows_none_for_and_one_for_each_guest():
    def network(mac, *destinations):
        link = a_link("x0", "vxlan", settings=Vxlan(id=1))
        fdb = [FdbEntry(link="x0", mac=mac, state=0x80, flags=2, destination=each) for each in destinations]
        return a_network(link, fdb=fdb)

    nobody, somebody = "00:00:00:00:00:00", "02:00:00:00:00:01"
    assert [step.action for step in steps(network(nobody, "10.0.0.1", "10.0.0.2"), network(nobody, "10.0.0.3"))] == [
        ADD,
        ADD,
    ]
    assert [step.action for step in steps(network(somebody, "10.0.0.1"), network(somebody, "10.0.0.3"))] == [SET]


# All of it


slowly = settings(max_examples=50)
names = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def networks(draw):
    links = draw(
        st.lists(
            st.one_of(
                st.builds(a_link, names, mtu=st.sampled_from([1400, 1500])),
                st.builds(a_bridge, names),
                st.builds(a_vlan, names, names, st.sampled_from([5, 6])),
                st.builds(a_card, names, st.integers(1, 4)),
                st.builds(a_port, names, master=names),
            ),
            unique_by=lambda link: link.name,
            max_size=4,
        )
    )
    addresses = draw(st.lists(st.builds(an_address, st.sampled_from(["10.0.0.1", "fd00::1"]), link=names), max_size=2))
    routes = draw(st.lists(st.builds(a_route, via=st.sampled_from(["10.0.0.2", None]), link=names), max_size=2))
    return a_network(*links, addresses=addresses, routes=routes)


@slowly
@given(networks(), networks())
def test_every_plan_is_in_order_and_leaves_nothing_unsaid(wanted, there):
    found = plan(wanted, there, NOW)
    phases = [step.phase for step in found.steps]
    assert phases == sorted(phases)
    things = (*wanted.links, *wanted.addresses, *wanted.routes)
    said = [step.thing for step in found.steps] + [thing for thing, _ in found.impossible]
    assert found.equal + len([thing for thing in things if thing in said]) >= len(things)


@slowly
@given(networks())
def test_no_network_lacks_anything_to_be_itself(network):
    found = plan(network, network, NOW)
    missing = [reason for _, reason in found.impossible if not reason.startswith(("needs", "no link with"))]
    assert not any(step.phase is not Phase.VLANS and not found.impossible for step in found.steps)
    assert missing == []
