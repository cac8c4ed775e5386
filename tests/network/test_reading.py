"""What ip(8) and bridge(8) set is read as it was set, and nothing that nobody has set."""

import socket
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import get_native_id

import pytest
from pyroute2 import IPRoute

from eventually import within
from luod.network.model import Bond, BridgePort, FdbEntry, Neighbour, Nexthop, Rule, Snapshot, Tun, Veth, Vid, Vlan
from luod.network.reading import look
from luod.network.reading.links import plugged_in

from .spaces import Namespace, give_up_capabilities, need

MAC = "02:00:00:00:00:01"


@pytest.fixture
def see(namespace, tmp_path):
    """Looks at a namespace, by itself this test's: its snapshot."""

    def see(where=namespace):
        def looked():
            with IPRoute() as ip:
                return look(ip, tmp_path)  # without the host's sysfs

        return where(looked).snapshot

    return see


@pytest.fixture
def link(see):
    """The link of a name."""
    return lambda name: {link.name: link for link in see().links}[name]


def words(thing, *names):
    return {name: getattr(thing, name) for name in names}


def test_a_new_namespace_has_a_loopback_link_and_nothing_else(see):
    seen = see()
    (lo,) = seen.links
    assert (lo.name, lo.kind, lo.up, lo.address, lo.settings) == ("lo", "loopback", False, None, None)
    assert (seen.vids, seen.addresses, seen.routes, seen.rules) == ((), (), (), ())
    assert (seen.neighbours, seen.fdb, seen.left_out) == ((), (), ())


def test_what_comes_up_with_the_loopback_link_is_the_kernels(namespace, see):
    namespace.do("ip link set lo up")
    seen = see()
    assert (seen.addresses, seen.routes) == ((), ())


def test_it_says_when_it_was_taken_and_of_which_kernel(see):
    before = time.time()
    seen = see()
    assert before <= seen.taken <= time.time()
    assert seen.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert seen.kernel == Path("/proc/sys/kernel/osrelease").read_text().strip()


def test_the_numbers_are_those_of_the_names(namespace, tmp_path):
    namespace.do("ip link add br0 index 77 type bridge")

    def numbers():
        with IPRoute() as ip:
            return look(ip, tmp_path).numbers

    assert namespace(numbers) == {"lo": 1, "br0": 77}


@pytest.mark.parametrize("kind", ["bridge", "dummy"])
def test_what_every_link_has(namespace, link, kind):
    need(kind)
    namespace.do(
        f"ip link add new address {MAC} mtu 1400 txqueuelen 77 type {kind}",
        "ip link set new group 5 alias some-words arp off multicast off allmulticast on promisc on addrgenmode none",
        "ip link property add dev new altname another altname a-third-name-that-is-longer",
        "ip link set new up",
    )
    assert words(link("new"), "kind", "address", "mtu", "txqlen", "group", "alias", "addr_gen_mode") == {
        "kind": kind,
        "address": MAC,
        "mtu": 1400,
        "txqlen": 77,
        "group": 5,
        "alias": "some-words",
        "addr_gen_mode": 1,
    }
    assert words(link("new"), "up", "arp", "multicast", "allmulticast", "promiscuous", "altnames") == {
        "up": True,
        "arp": False,
        "multicast": False,
        "allmulticast": True,
        "promiscuous": True,
        "altnames": ("another", "a-third-name-that-is-longer"),
    }


def test_what_a_new_link_is_like(namespace, link):
    namespace.do("ip link add new type bridge")
    assert words(
        link("new"), "up", "arp", "multicast", "allmulticast", "promiscuous", "altnames", "alias", "group"
    ) == {
        "up": False,
        "arp": True,
        "multicast": True,
        "allmulticast": False,
        "promiscuous": False,
        "altnames": (),
        "alias": None,
        "group": 0,
    }
    assert words(link("new"), "master", "lower", "port", "permanent_address", "path") == {
        "master": None,
        "lower": None,
        "port": None,
        "permanent_address": None,
        "path": None,
    }


def test_an_alias_may_be_in_any_language(namespace, link):
    namespace.run("ip", "link", "add", "new", "type", "bridge")
    namespace.run("ip", "link", "set", "new", "alias", "Brücke, erste")
    assert link("new").alias == "Brücke, erste"


def test_names_that_are_no_text_do_no_harm(namespace, see):
    namespace.run("ip", "link", "add", "new", "type", "bridge")
    namespace.run(b"ip", b"link", b"set", b"new", b"alias", b"br\xfccke")
    namespace.run(b"ip", b"link", b"add", b"br\xfccke", b"type", b"bridge")
    namespace.run(b"ip", b"address", b"add", b"10.0.0.1/24", b"dev", b"br\xfccke")
    namespace.run(b"ip", b"rule", b"add", b"iif", b"br\xfccke", b"table", b"7")
    seen = see()
    assert [(link.name, link.alias) for link in seen.links] == [("lo", None), ("new", None)]
    assert [(left.what, left.reason) for left in seen.left_out] == [
        ("alias of new", "it is no text"),
        ("link br\ufffdcke", "its name is no text"),
    ]
    assert Snapshot.decode(seen.encode()) == seen


def do_by_netlink(namespace, method, *arguments, **words):
    """What ip(8) won't do."""

    def do():
        with IPRoute() as ip:
            getattr(ip, method)(*arguments, **words)

    namespace(do)


def test_any_name_that_the_kernel_lets_through_does_no_harm(namespace, see):
    names = ["a b", "x/y", "eth0:1", "\x1b[2J", "%d", "a\nb"]
    for name in ("a\u2003b", "a\u0085b"):
        namespace.run("ip", "link", "add", name, "type", "bridge")
    number = namespace.ip("link", "show", "a\u2003b")[0]["ifindex"]
    do_by_netlink(namespace, "link", "property_add", index=number, altname=names)
    do_by_netlink(namespace, "rule", "add", priority=5, iifname="a b", table=7)
    seen = see()
    assert [(link.name, sorted(link.altnames)) for link in seen.links[1:]] == [
        ("a\u2003b", sorted(names)),
        ("a\u0085b", []),
    ]
    (left,) = seen.left_out
    assert (left.what, seen.rules) == ("rule 5 of inet", ())
    assert Snapshot.decode(seen.encode()) == seen


@pytest.mark.parametrize(
    ("words", "setting", "value"),
    [
        ("forward_delay 400", "forward_delay", 400),
        ("hello_time 300", "hello_time", 300),
        ("max_age 1900", "max_age", 1900),
        ("ageing_time 4000", "ageing_time", 4000),
        ("stp_state 1", "stp_state", 1),
        ("priority 77", "priority", 77),
        ("group_fwd_mask 16", "group_fwd_mask", 16),
        ("group_address 01:80:c2:00:00:04", "group_addr", "01:80:c2:00:00:04"),
        ("mcast_router 2", "mcast_router", 2),
        ("mcast_snooping 0", "mcast_snooping", 0),
        ("mcast_query_use_ifaddr 1", "mcast_query_use_ifaddr", 1),
        ("mcast_querier 1", "mcast_querier", 1),
        ("mcast_hash_max 512", "mcast_hash_max", 512),
        ("mcast_last_member_count 3", "mcast_last_member_cnt", 3),
        ("mcast_startup_query_count 4", "mcast_startup_query_cnt", 4),
        ("mcast_last_member_interval 200", "mcast_last_member_intvl", 200),
        ("mcast_membership_interval 27000", "mcast_membership_intvl", 27000),
        ("mcast_querier_interval 26000", "mcast_querier_intvl", 26000),
        ("mcast_query_interval 13000", "mcast_query_intvl", 13000),
        ("mcast_query_response_interval 900", "mcast_query_response_intvl", 900),
        ("mcast_startup_query_interval 3000", "mcast_startup_query_intvl", 3000),
        ("mcast_stats_enabled 1", "mcast_stats_enabled", 1),
        ("mcast_igmp_version 3", "mcast_igmp_version", 3),
        ("mcast_mld_version 2", "mcast_mld_version", 2),
    ],
)
def test_a_setting_of_a_bridge(namespace, link, words, setting, value):
    namespace.do(f"ip link add br0 type bridge {words}")
    assert getattr(link("br0").settings, setting) == value


def test_a_bridge_that_filters_vlans(namespace, link):
    need("vlan filtering")
    namespace.do(
        "ip link add br0 type bridge vlan_filtering 1 vlan_protocol 802.1ad vlan_default_pvid 9 vlan_stats_enabled 1"
        " vlan_stats_per_port 1"
    )
    assert words(
        link("br0").settings,
        *("vlan_filtering", "vlan_protocol", "vlan_default_pvid", "vlan_stats_enabled", "vlan_stats_per_port"),
    ) == {
        "vlan_filtering": 1,
        "vlan_protocol": 0x88A8,
        "vlan_default_pvid": 9,
        "vlan_stats_enabled": 1,
        "vlan_stats_per_port": 1,
    }


def veth(namespace, *names):
    for name in names:
        namespace.do(f"ip link add {name} type veth peer name {name}p", f"ip link set {name}p up")


@pytest.mark.parametrize(
    ("words", "setting", "value"),
    [
        ("priority 7", "priority", 7),
        ("cost 99", "cost", 99),
        ("hairpin on", "mode", 1),
        ("guard on", "guard", 1),
        ("root_block on", "protect", 1),
        ("fastleave on", "fast_leave", 1),
        ("learning off", "learning", 0),
        ("flood off", "unicast_flood", 0),
        ("mcast_flood off", "mcast_flood", 0),
        ("bcast_flood off", "bcast_flood", 0),
        ("mcast_to_unicast on", "mcast_to_ucast", 1),
        ("mcast_router 2", "multicast_router", 2),
        ("proxy_arp on", "proxyarp", 1),
        ("proxy_arp_wifi on", "proxyarp_wifi", 1),
        ("group_fwd_mask 16", "group_fwd_mask", 16),
        ("vlan_tunnel on", "vlan_tunnel", 1),
        ("neigh_suppress on", "neigh_suppress", 1),
        ("isolated on", "isolated", 1),
        ("locked on", "locked", 1),
        ("backup_port w", "backup_port", "w"),
    ],
)
def test_a_setting_of_a_port_of_a_bridge(namespace, link, words, setting, value):
    veth(namespace, "v", "w")
    namespace.do("ip link add br0 type bridge", "ip link set w master br0", "ip link set v master br0")
    namespace.do(f"ip link set v type bridge_slave {words}")
    seen = link("v")
    assert isinstance(seen.port, BridgePort)
    assert (seen.master, getattr(seen.port, setting)) == ("br0", value)


def test_the_vlans_of_ports_and_of_the_bridge_itself(namespace, see):
    need("vlan filtering")
    veth(namespace, "v", "w")
    namespace.do(
        "ip link add br0 type bridge vlan_filtering 1",
        "ip link set v master br0",
        "ip link set w master br0",
        "bridge vlan del dev v vid 1",
        "bridge vlan add dev v vid 100-103",
        "bridge vlan add dev v vid 5 pvid untagged",
        "bridge vlan add dev v vid 6 untagged",
        "bridge vlan add dev br0 vid 7-8 self",
    )
    assert set(see().vids) == {
        Vid(link="br0", vid=1, pvid=True, untagged=True),
        Vid(link="br0", vid=7, last=8),
        Vid(link="v", vid=5, pvid=True, untagged=True),
        Vid(link="v", vid=6, untagged=True),
        Vid(link="v", vid=100, last=103),
        Vid(link="w", vid=1, pvid=True, untagged=True),
    }


def test_a_trunk_of_all_vlans(namespace, see):
    need("vlan filtering")
    veth(namespace, "v")
    namespace.do(
        "ip link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0",
        "ip link set v master br0",
        "bridge vlan add dev v vid 1-4094",
    )
    assert see().vids == (Vid(link="v", vid=1, last=4094),)


def test_a_vlan(namespace, link):
    need("vlan")
    veth(namespace, "v")
    namespace.do(
        "ip link add link v name v.5 type vlan id 5 protocol 802.1ad gvrp on loose_binding on reorder_hdr off"
        " ingress-qos-map 1:2 3:4 egress-qos-map 5:6"
    )
    seen = link("v.5")
    assert (seen.kind, seen.lower) == ("vlan", "v")
    assert seen.settings == Vlan(id=5, protocol=0x88A8, flags=2 | 4, ingress_qos=((1, 2), (3, 4)), egress_qos=((5, 6),))


def test_a_bond_and_its_ports(namespace, link):
    need("bond")
    veth(namespace, "v", "w")
    namespace.do(
        "ip link add bond0 type bond mode active-backup miimon 100 updelay 200 downdelay 300 resend_igmp 3"
        " primary_reselect better fail_over_mac follow num_grat_arp 4 min_links 1 all_slaves_active 1"
        " peer_notify_delay 400",
        "ip link set v master bond0",
        "ip link set w master bond0",
        "ip link set bond0 type bond primary w",
        "ip link set v type bond_slave queue_id 3 prio -5",
    )
    bond, port = link("bond0"), link("v")
    assert isinstance(bond.settings, Bond)
    assert words(
        bond.settings, "mode", "miimon", "updelay", "downdelay", "peer_notif_delay", "resend_igmp", "primary"
    ) == {
        "mode": 1,
        "miimon": 100,
        "updelay": 200,
        "downdelay": 300,
        "peer_notif_delay": 400,
        "resend_igmp": 3,
        "primary": "w",
    }
    assert words(
        bond.settings, "primary_reselect", "fail_over_mac", "num_peer_notif", "min_links", "all_slaves_active"
    ) == {
        "primary_reselect": 1,
        "fail_over_mac": 2,
        "num_peer_notif": 4,
        "min_links": 1,
        "all_slaves_active": 1,
    }
    assert (port.master, port.address, port.port.queue_id, port.port.prio) == ("bond0", None, 3, -5)
    assert bond.address is not None


def test_a_bond_that_asks_by_arp(namespace, link):
    need("bond")
    namespace.do(
        "ip link add bond0 type bond mode balance-xor arp_interval 500 arp_ip_target 10.0.0.1,10.0.0.2"
        " arp_missed_max 4 xmit_hash_policy layer3+4",
    )
    assert words(link("bond0").settings, "mode", "arp_interval", "arp_ip_target", "missed_max", "xmit_hash_policy") == {
        "mode": 2,
        "missed_max": 4,
        "arp_interval": 500,
        "arp_ip_target": ("10.0.0.1", "10.0.0.2"),
        "xmit_hash_policy": 1,
    }


def test_a_bond_that_speaks_lacp(namespace, link):
    need("bond")
    namespace.do(
        "ip link add bond0 type bond mode 802.3ad lacp_rate fast ad_select bandwidth ad_actor_sys_prio 77"
        f" lacp_active off ad_user_port_key 5 ad_actor_system {MAC}",
    )
    assert words(
        link("bond0").settings, "mode", "ad_lacp_rate", "ad_select", "ad_actor_sys_prio", "ad_user_port_key"
    ) == {
        "mode": 4,
        "ad_lacp_rate": 1,
        "ad_select": 1,
        "ad_actor_sys_prio": 77,
        "ad_user_port_key": 5,
    }
    assert words(link("bond0").settings, "ad_actor_system", "ad_lacp_active") == {
        "ad_actor_system": MAC,
        "ad_lacp_active": 0,
    }


def test_both_ends_of_a_veth(namespace, link):
    namespace.do("ip link add one type veth peer name two")
    assert (link("one").settings, link("two").settings) == (Veth(peer="two"), Veth(peer="one"))


def test_a_veth_into_another_namespace_is_left_out(namespace, see):
    with Namespace() as other:
        namespace.do("ip link add one type veth peer name two", f"ip link set two netns {other(get_native_id)}")
        for where, name in ((namespace, "one"), (other, "two")):
            (left,) = see(where).left_out
            assert (left.what, left.link) == (f"link {name}", name)
            assert left.reason == "the other end of this veth is in another network namespace"
            assert [link.name for link in see(where).links] == ["lo"]


def test_a_kind_that_is_not_known_is_left_out(namespace, see):
    need("ifb", "macvlan")
    namespace.do("ip link add new type ifb", "ip link add link new name upon type macvlan")
    seen = see()
    (left,) = seen.left_out
    assert (left.what, left.link, left.reason) == ("link new", "new", "links of the kind ifb aren't handed over")
    assert [(link.name, link.lower) for link in seen.links] == [("lo", None), ("upon", "new")]


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("mode tap", Tun(type=2)),
        ("mode tun", Tun(type=1)),
        ("mode tap user 1000 group 77", Tun(type=2, owner=1000, group=77)),
        ("mode tap multi_queue vnet_hdr", Tun(type=2, multi_queue=1, vnet_hdr=1)),
        ("mode tun pi", Tun(type=1, pi=1)),
    ],
)
def test_a_tap_or_a_tun(namespace, link, words, settings):
    namespace.do(f"ip tuntap add new {words}")
    assert link("new").kind == "tun"
    assert link("new").settings == settings


def test_a_tun_has_no_mac(namespace, link):
    namespace.do("ip tuntap add new mode tun")
    assert link("new").address is None


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("remote 10.0.0.2 local 10.0.0.1", {"group": "10.0.0.2", "local": "10.0.0.1"}),
        ("remote fd00::2 local fd00::1", {"group6": "fd00::2", "local6": "fd00::1"}),
        ("group 239.1.1.1 dev v", {"group": "239.1.1.1", "link": "v"}),
        ("group ff05::1 dev v", {"group6": "ff05::1", "link": "v"}),
        ("remote fd00::2 flowlabel 0x12345", {"label": 0x12345}),
        ("ttl 7 tos 4 df set", {"ttl": 7, "tos": 4, "df": 1, "ttl_inherit": False}),
        ("ttl inherit", {"ttl_inherit": True}),
        ("srcport 4000 5000", {"port_range": (4000, 5000)}),
        ("ageing 77 maxaddress 5 nolearning", {"ageing": 77, "limit": 5, "learning": 0}),
        ("proxy rsc l2miss l3miss", {"proxy": 1, "rsc": 1, "l2miss": 1, "l3miss": 1}),
        ("noudpcsum", {"udp_csum": 0}),
        ("udpcsum udp6zerocsumtx udp6zerocsumrx", {"udp_csum": 1, "udp_zero_csum6_tx": 1, "udp_zero_csum6_rx": 1}),
        ("remcsumtx remcsumrx", {"remcsum_tx": 1, "remcsum_rx": 1}),
        ("nolocalbypass", {"localbypass": 0}),
        ("gbp", {"gbp": True}),
        ("gpe external", {"gpe": True, "collect_metadata": 1}),
    ],
)
def test_a_vxlan(namespace, link, words, settings):
    veth(namespace, "v")
    if words == "nolocalbypass":
        need("local bypass")
    number = 0 if "external" in words else 42
    namespace.do(f"ip link add vx type vxlan {'' if 'external' in words else 'id 42'} dstport 4789 {words}")
    seen = link("vx")
    assert (seen.kind, seen.lower, seen.settings.id, seen.settings.port) == ("vxlan", None, number, 4789)
    assert {name: getattr(seen.settings, name) for name in settings} == settings


def test_who_a_bond_is_to_others_is_told_to_few_and_that_is_told(namespace, see):
    need("bond")
    namespace.do("ip link add bond0 type bond mode 802.3ad ad_actor_system 02:00:00:00:00:0e")
    assert see().left_out == ()
    namespace(give_up_capabilities)
    (left,) = see().left_out
    assert left.what == "ad_actor_system of bond0"
    assert "CAP_NET_ADMIN" in left.reason


def test_an_option_of_a_bridge_that_is_not_handed_over_is_told(namespace, see):
    need("options of bridges")
    namespace.do("ip link add br0 type bridge no_linklocal_learn 1")
    seen = see()
    assert "br0" in {link.name for link in seen.links}
    (left,) = seen.left_out
    assert (left.what, left.reason, left.link) == ("no_linklocal_learn of br0", "it isn't handed over", "br0")


def test_a_vxlan_that_filters_by_vni_is_left_out(namespace, see):
    namespace.do("ip link add vx type vxlan external vnifilter dstport 4789")
    (left,) = see().left_out
    assert (left.what, left.reason) == ("link vx", "vxlans with a VNI filter aren't handed over")


@pytest.mark.parametrize(
    ("mode", "number"), [("private", 1), ("vepa", 2), ("bridge", 4), ("passthru", 8), ("source", 16)]
)
def test_a_macvlan(namespace, link, mode, number):
    need("macvlan")
    veth(namespace, "v")
    namespace.do(f"ip link add link v name new type macvlan mode {mode}")
    seen = link("new")
    assert (seen.kind, seen.lower, seen.settings.mode, seen.settings.flags) == ("macvlan", "v", number, 0)


def test_a_macvlan_that_takes_frames_of_some_only(namespace, link):
    need("macvlan")
    veth(namespace, "v")
    namespace.do(
        "ip link add link v name new type macvlan mode source",
        "ip link set new type macvlan macaddr add 02:00:00:00:00:0a",
        "ip link set new type macvlan macaddr add 02:00:00:00:00:0b",
    )
    assert sorted(link("new").settings.macaddr) == ["02:00:00:00:00:0a", "02:00:00:00:00:0b"]


def test_a_macvlan_that_lets_frames_wait(namespace, link):
    need("macvlan")
    veth(namespace, "v")
    namespace.do("ip link add link v name new type macvlan mode bridge bcqueuelen 77")
    assert link("new").settings.bc_queue_len == 77


def test_a_macvlan_that_leaves_its_link_alone(namespace, link):
    need("macvlan")
    veth(namespace, "v")
    namespace.do("ip link add link v name new type macvlan mode passthru nopromisc")
    assert words(link("new").settings, "mode", "flags") == {"mode": 8, "flags": 1}


def test_where_a_card_is_plugged_in(tmp_path):
    bus, links = tmp_path / "bus", tmp_path / "class/net"
    for name in ("pci", "virtio", "platform"):
        (bus / name).mkdir(parents=True)

    def device(place, of):
        there = tmp_path / "devices" / place
        there.mkdir(parents=True)
        (there / "subsystem").symlink_to(bus / of)
        return there

    def card(name, there, **files):
        (links / name).mkdir(parents=True)
        (links / name / "device").symlink_to(there)
        for file, content in files.items():
            (links / name / file).write_text(f"{content}\n")
        return links / name

    slot = device("pci0000:00/0000:00:03.0", "pci")
    assert plugged_in(card("eth0", slot, dev_port=0), None) == "pci-0000:00:03.0"
    assert plugged_in(card("eth1", slot, dev_port=1), None) == "pci-0000:00:03.0/1"
    assert plugged_in(card("eth2", slot, dev_port=0), "p2") == "pci-0000:00:03.0/p2"
    behind = device("pci0000:00/0000:00:03.0/virtio7", "virtio")
    assert plugged_in(card("eth3", behind), None) == "pci-0000:00:03.0"
    assert plugged_in(card("eth4", device("platform/ff0e.ethernet", "platform")), None) == "platform-ff0e.ethernet"
    assert plugged_in(links / "br0", None) is None


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("10.0.0.1/24", {"family": "inet", "address": "10.0.0.1", "prefixlen": 24, "peer": None, "broadcast": None}),
        ("10.0.0.1/24 brd +", {"broadcast": "10.0.0.255", "scope": 0, "label": None, "flags": 0}),
        ("10.0.0.1 peer 10.0.0.2/32", {"address": "10.0.0.1", "peer": "10.0.0.2", "prefixlen": 32}),
        ("10.0.0.1/24 label new:one", {"label": "new:one"}),
        ("10.0.0.1/24 scope link", {"scope": 253}),
        ("10.0.0.1/24 noprefixroute", {"flags": 0x200}),
        ("10.0.0.1/24", {"valid_until": None, "preferred_until": None}),
        ("fd00::1/64", {"family": "inet6", "address": "fd00::1", "prefixlen": 64, "peer": None, "flags": 0}),
        ("fd00::1 peer fd00::2/128", {"address": "fd00::1", "peer": "fd00::2", "prefixlen": 128}),
        ("fd00::1/64 nodad home mngtmpaddr noprefixroute", {"flags": 0x2 | 0x10 | 0x100 | 0x200}),
        ("fe80::1/64", {"address": "fe80::1", "scope": 253}),
    ],
)
def test_an_address(namespace, see, words, fields):
    namespace.do("ip link add new type bridge", f"ip address add {words} dev new")
    (address,) = see().addresses
    assert {"link": address.link} | {name: getattr(address, name) for name in fields} == {"link": "new"} | fields


def test_an_address_with_the_metric_of_its_route(namespace, see):
    need("the metric of an address")
    namespace.do("ip link add new type bridge", "ip address add 10.0.0.1/24 metric 77 dev new")
    (address,) = see().addresses
    assert address.priority == 77


def test_an_address_that_ends(namespace, see):
    namespace.do("ip link add new type bridge", "ip address add fd00::1/64 dev new valid_lft 1000 preferred_lft 500")
    seen = see()
    (address,) = seen.addresses
    assert address.valid_until == pytest.approx(seen.taken + 1000, abs=10)
    assert address.preferred_until == pytest.approx(seen.taken + 500, abs=10)


def test_addresses_are_in_the_order_of_the_kernel(namespace, see):
    namespace.do("ip link add new type bridge", *(f"ip address add 10.0.0.{n}/24 dev new" for n in (3, 1, 2)))
    namespace.do(*(f"ip address add fd00::{n}/64 dev new" for n in (3, 1, 2)))
    assert [address.address for address in see().addresses] == [
        *("10.0.0.3", "10.0.0.1", "10.0.0.2"),
        *("fd00::2", "fd00::1", "fd00::3"),
    ]


def test_the_link_local_addresses_that_the_kernel_makes_are_no_ones(namespace, see):
    veth(namespace, "v")
    namespace.do("ip link set v up")
    within(20, lambda: "fe80::" in namespace.run("ip", "-6", "address", "show", "dev", "v", "scope", "link"))
    assert see().addresses == ()
    namespace.do("ip link set v down", "ip link set v addrgenmode random", "ip link set v up")
    within(20, lambda: "fe80::" in namespace.run("ip", "-6", "address", "show", "dev", "v", "scope", "link"))
    assert see().addresses == ()


def test_a_link_local_address_that_only_looks_like_one_of_the_kernels_is_somebodys(namespace, see):
    veth(namespace, "v")
    namespace.do("ip link set v up", "ip address add fe80::1234:56ff:fe78:1/64 dev v nodad")
    assert [address.address for address in see().addresses] == ["fe80::1234:56ff:fe78:1"]


def test_a_link_local_address_that_a_secret_makes_is_told(namespace, see):
    veth(namespace, "v")
    namespace.configure("net.ipv6.conf.v.stable_secret", "fd00::1")
    seen = see()
    assert {link.name: link.addr_gen_mode for link in seen.links}["v"] is None
    (left,) = seen.left_out
    assert left.what == "addr_gen_mode of v"
    assert left.reason == "it takes the secret that net.ipv6.conf.v.stable_secret is"


def test_an_address_that_another_host_has_is_left_out(namespace, see):
    veth(namespace, "v")
    namespace.do("ip address add fd00::1/64 dev vp nodad", "ip address add fd00::1/64 dev v", "ip link set v up")
    within(20, lambda: "dadfailed" in namespace.run("ip", "address", "show", "dev", "v"))
    seen = see()
    assert [address.link for address in seen.addresses] == ["vp"]
    (left,) = seen.left_out
    assert (left.what, left.link) == ("address fd00::1/64 dev v", "v")


@pytest.fixture
def routed(namespace):
    """A namespace with two links that lead somewhere."""
    veth(namespace, "e1", "e2")
    namespace.do("ip link set lo up", "ip link set e1 up", "ip link set e2 up")
    namespace.do("ip address add 10.0.0.1/24 dev e1", "ip address add 10.1.0.1/24 dev e2")
    namespace.do("ip address add fd00::1/64 dev e1 nodad", "ip address add fd01::1/64 dev e2 nodad")
    return namespace


A = Nexthop(link="e1", gateway="10.0.0.9")
B = Nexthop(link="e2", gateway="10.1.0.9")


def test_routes_that_follow_from_addresses_are_the_kernels(routed, see):
    assert len(routed.ip("route", "show")) == 2
    assert see().routes == ()


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("default via 10.0.0.9", {"family": "inet", "destination": "0.0.0.0/0", "nexthops": (A,), "table": 254}),
        ("10.9.0.0/16 dev e1", {"destination": "10.9.0.0/16", "nexthops": (Nexthop(link="e1"),), "scope": 253}),
        ("10.9.0.0/16 via 10.0.0.9 proto ra", {"protocol": 9}),
        ("10.9.0.0/16 via 10.0.0.9 table 1000 proto 77", {"table": 1000, "protocol": 77, "scope": 0, "type": 1}),
        ("10.9.0.0/16 via 10.0.0.9 metric 5 tos 0x10", {"priority": 5, "tos": 16}),
        ("10.9.0.0/16 via 10.0.0.9 src 10.1.0.1", {"prefsrc": "10.1.0.1"}),
        ("10.9.0.0/16 via 10.0.0.9 mtu 1400 advmss 1300", {"metrics": {"mtu": 1400, "advmss": 1300}}),
        ("10.9.0.0/16 via 10.0.0.9 congctl cubic", {"metrics": {"cc_algo": "cubic"}}),
        ("10.9.0.0/16 via 10.0.0.9 mtu lock 1400", {"metrics": {"lock": 4, "mtu": 1400}}),
        (
            "10.9.0.0/16 via 10.7.0.1 dev e1 onlink",
            {"nexthops": (Nexthop(link="e1", gateway="10.7.0.1", onlink=True),)},
        ),
        ("10.9.0.0/16 via inet6 fd00::9 dev e1", {"nexthops": (Nexthop(link="e1", gateway="fd00::9"),)}),
        ("blackhole 10.9.0.0/16", {"type": 6, "nexthops": ()}),
        ("unreachable 10.9.0.0/16", {"type": 7, "nexthops": ()}),
        ("prohibit 10.9.0.0/16", {"type": 8, "nexthops": ()}),
        ("throw 10.9.0.0/16 table 5", {"type": 9, "nexthops": (), "table": 5}),
        ("local 10.9.0.0/16 dev lo", {"type": 2, "table": 255, "scope": 254, "nexthops": (Nexthop(link="lo"),)}),
        ("default via fd00::9", {"family": "inet6", "destination": "::/0", "priority": 1024, "pref": 0}),
        ("fd09::/64 via fd00::9 metric 5 table 7", {"priority": 5, "table": 7}),
        ("fd09::/64 via fe80::9 dev e1 pref high", {"pref": 1, "nexthops": (Nexthop(link="e1", gateway="fe80::9"),)}),
        ("blackhole fd09::/64", {"type": 6, "nexthops": ()}),
        ("unreachable fd09::/64", {"type": 7, "nexthops": ()}),
        ("fd09::/64 via fd00::9 mtu 1400 hoplimit 3", {"metrics": {"mtu": 1400, "hoplimit": 3}}),
        ("fd09::/64 dev e1 proto kernel metric 7", {"protocol": 2, "priority": 7}),
    ],
)
def test_a_route(routed, see, words, fields):
    version = "-6" if "::" in words and "inet6" not in words else "-4"
    routed.do(f"ip {version} route add {words}")
    (route,) = see().routes
    assert {name: getattr(route, name) for name in fields} == fields


def test_a_route_by_several_ways(routed, see):
    need("multipath")
    routed.do("ip route add 10.9.0.0/16 nexthop via 10.0.0.9 weight 3 nexthop via 10.1.0.9")
    (route,) = see().routes
    assert route.nexthops == (A.model_copy(update={"weight": 3}), B)


def test_an_ipv6_route_by_several_ways(routed, see):
    need("multipath")
    routed.do("ip -6 route add fd09::/64 nexthop via fd00::9 nexthop via fd01::9 weight 2")
    (route,) = see().routes
    assert route.nexthops == (Nexthop(link="e1", gateway="fd00::9"), Nexthop(link="e2", gateway="fd01::9", weight=2))


def test_a_route_by_a_nexthop_object_has_its_next_hops(routed, see):
    need("nexthop objects")
    routed.do("ip nexthop add id 7 via 10.0.0.9 dev e1", "ip nexthop add id 8 via 10.1.0.9 dev e2")
    routed.do("ip nexthop add id 9 group 7/8,2", "ip route add 10.9.0.0/16 nhid 7", "ip route add 10.8.0.0/16 nhid 9")
    assert {route.destination: route.nexthops for route in see().routes} == {
        "10.9.0.0/16": (A,),
        "10.8.0.0/16": (A, B.model_copy(update={"weight": 2})),
    }


def test_a_route_for_some_sources(routed, see):
    need("IPv6 subtrees")
    routed.do("ip -6 route add fd09::/64 from fd08::/32 via fd00::9")
    (route,) = see().routes
    assert route.source == "fd08::/32"


def test_a_route_that_ends(routed, see):
    routed.do("ip -6 route add fd09::/64 via fd00::9 expires 500")
    seen = see()
    (route,) = seen.routes
    assert route.valid_until == pytest.approx(seen.taken + 500, abs=10)


def test_the_route_that_networkmanager_makes_for_an_address_is_no_kernels(routed, see):
    routed.do("ip address add 10.9.0.1/24 dev e1 noprefixroute")
    routed.do("ip route add 10.9.0.0/24 dev e1 proto kernel scope link src 10.9.0.1 metric 100")
    (route,) = see().routes
    assert words(route, "destination", "protocol", "priority", "prefsrc") == {
        "destination": "10.9.0.0/24",
        "protocol": 2,
        "priority": 100,
        "prefsrc": "10.9.0.1",
    }


def test_a_route_that_encapsulates_is_left_out(routed, see):
    need("lightweight tunnels")
    routed.do("ip route add 10.9.0.0/16 encap ip id 3 dst 192.0.2.1 dev e1 table 7")
    seen = see()
    assert seen.routes == ()
    (left,) = seen.left_out
    assert (left.what, left.link) == ("route 10.9.0.0/16 dev e1 table 7", "e1")
    assert left.reason == "routes that encapsulate aren't handed over"


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("-4 from 10.0.0.0/8 table 7", {"family": "inet", "source": "10.0.0.0/8", "table": 7, "action": 1}),
        ("-4 to 10.0.0.0/8 table 1000", {"destination": "10.0.0.0/8", "table": 1000, "goto": None}),
        ("-4 iif e1 oif e2 tos 0x10 table 7", {"iifname": "e1", "oifname": "e2", "tos": 16}),
        ("-4 fwmark 1/0xff table 7", {"fwmark": 1, "fwmask": 255}),
        ("-4 not from 10.0.0.1 table 7", {"invert": True, "source": "10.0.0.1/32"}),
        ("-4 ipproto 6 sport 80 dport 1000-2000 table 7", {"ip_proto": 6, "sport_range": (80, 80)}),
        ("-4 ipproto 6 dport 1000-2000 table 7", {"dport_range": (1000, 2000), "sport_range": None}),
        ("-4 uidrange 5-9 table 7", {"uid_range": (5, 9)}),
        ("-4 table main suppress_prefixlength 0", {"table": 254, "suppress_prefixlen": 0, "suppress_ifgroup": None}),
        ("-4 table main suppress_ifgroup 7", {"suppress_ifgroup": 7, "suppress_prefixlen": None}),
        ("-4 table 7 protocol 77", {"protocol": 77}),
        ("-4 from 10.0.0.1 blackhole", {"action": 6, "table": None}),
        ("-4 from 10.0.0.1 goto 32766", {"action": 2, "goto": 32766, "table": None}),
        ("-4 tun_id 5 table 7", {"tun_id": 5}),
        ("-6 from fd00::/16 unreachable", {"family": "inet6", "source": "fd00::/16", "action": 7}),
        ("-6 table local", {"table": 255}),
    ],
)
def test_a_rule(namespace, see, words, fields):
    family, *rule = words.split()
    namespace.do(f"ip {family} rule add priority 77 {' '.join(rule)}")
    (seen,) = see().rules
    assert seen.priority == 77
    assert {name: getattr(seen, name) for name in fields} == fields


def test_a_rule_where_a_usual_one_was(namespace, see):
    namespace.do("ip rule del priority 0", "ip rule add priority 0 from 10.0.0.0/8 table local")
    assert see().rules == (Rule(family="inet", priority=0, action=1, table=255, source="10.0.0.0/8", protocol=0),)


def test_what_is_accounted(routed, see):
    need("realms")
    routed.do(
        "ip rule add priority 77 from 10.0.0.0/8 realms 3/4 table 7",
        "ip route add 10.1.0.0/16 via 10.0.0.7 realms 5",
    )
    seen = see()
    assert [rule.realms for rule in seen.rules] == [3 << 16 | 4]
    assert [hop.realms for route in seen.routes if route.destination == "10.1.0.0/16" for hop in route.nexthops] == [5]


ROUTER = "02:00:00:00:00:0b"


def advertise(link):
    """Send what a router does: that it is one, and what is on the link (RFC 4861, 4.2)."""
    on_the_link = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 900, 600, 0, socket.inet_pton(socket.AF_INET6, "fd05::"))
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 600, 0, 0) + on_the_link
        raw.sendto(advertisement, ("ff02::1", 0, 0, socket.if_nametoindex(link)))


def test_what_the_kernel_makes_of_advertisements_it_makes_again(namespace, see):
    namespace.do(f"ip link add v type veth peer name router address {ROUTER}")
    for name, accepts in (("v", 2), ("router", 0)):
        namespace.configure(f"net.ipv6.conf.{name}.accept_ra", accepts)
        namespace.configure(f"net.ipv6.conf.{name}.accept_dad", 0)
    namespace.do("ip link set router up", "ip link set v up")
    namespace.do("ip route add default via fe80::9 dev v metric 9 proto ra")

    def has_come():
        with suppress(OSError):  # it has neither an address nor a route yet
            namespace(advertise, "router")
        return "via fe80::ff:fe00:b dev v proto ra" in namespace.run("ip", "-6", "route", "show", "default")

    within(20, has_come)
    seen = see()
    assert [(route.priority, route.protocol) for route in seen.routes] == [(9, 9)], "the one that isn't its own"
    assert seen.left_out == ()


def test_routes_whose_next_hops_are_not_told_are_left_out(routed, see):
    need("nexthop objects")
    routed.configure("net.ipv4.nexthop_compat_mode", 0)
    routed.do("ip nexthop add id 7 via 10.0.0.9 dev e1", "ip route add 10.9.0.0/16 nhid 7")
    seen = see()
    assert seen.routes == ()
    (left,) = seen.left_out
    assert left.what == "route 10.9.0.0/16"


def test_a_rule_with_a_selector_that_is_not_known_is_left_out(namespace, see):
    need("parts of a port")
    namespace.do("ip rule add priority 77 from 10.0.0.0/8 sport 0x100/0xff00 iif lo table 7")
    seen = see()
    assert seen.rules == ()
    (left,) = seen.left_out
    assert (left.what, left.link) == ("rule 77: from 10.0.0.0/8 iif lo sport 256-256 lookup 7", "lo")


def test_neighbours_that_stay(routed, see):
    routed.do(
        f"ip neighbour add 10.0.0.7 lladdr {MAC} dev e1",
        f"ip neighbour add fd00::7 lladdr {MAC} router dev e1",
        f"ip neighbour add 10.0.0.8 lladdr {MAC} dev e1 nud stale",
        "ip neighbour add proxy 10.0.0.9 dev e1",
    )
    assert see().neighbours == (
        Neighbour(link="e1", family="inet", address="10.0.0.7", mac=MAC),
        Neighbour(link="e1", family="inet6", address="fd00::7", mac=MAC, flags=0x80),
        Neighbour(link="e1", family="inet", address="10.0.0.9", flags=0x8),
    )


PERMANENT, STATIC, REACHABLE = 0x80, 0x40, 0x2
SELF, MASTER, LEARNED_ELSEWHERE, STICKY = 0x2, 0x4, 0x10, 0x40


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("dev v master static", {"link": "v", "state": STATIC, "flags": MASTER}),
        ("dev v master permanent", {"link": "v", "state": PERMANENT, "flags": MASTER}),
        ("dev v master static sticky", {"link": "v", "state": STATIC, "flags": MASTER | STICKY}),
        ("dev br0 self permanent", {"link": "br0", "state": PERMANENT, "flags": SELF}),
        ("dev v master extern_learn", {"link": "v", "flags": MASTER | LEARNED_ELSEWHERE}),
    ],
)
def test_an_entry_in_the_fdb_of_a_bridge(namespace, see, words, fields):
    veth(namespace, "v")
    namespace.do("ip link add br0 type bridge", "ip link set v master br0 up", "ip link set br0 up")
    namespace.do(f"bridge fdb add {MAC} {words}")
    (entry,) = (entry for entry in see().fdb if entry.vlan is None)  # the kernel adds one for each VLAN of the port
    assert {"mac": entry.mac} | {name: getattr(entry, name) for name in fields} == {"mac": MAC} | fields


def test_an_entry_of_a_vlan_and_not_those_that_the_bridge_makes(namespace, see):
    need("vlan filtering")
    veth(namespace, "v", "w")
    namespace.do("ip link add br0 type bridge vlan_filtering 1", "ip link set v master br0", "ip link set w master br0")
    namespace.do("bridge vlan add dev v vid 5", f"bridge fdb add {MAC} dev v master static vlan 5")
    assert see().fdb == (FdbEntry(link="v", mac=MAC, state=STATIC, flags=MASTER, vlan=5),)


def test_what_a_bridge_has_learned_is_learned_again(namespace, see):
    veth(namespace, "v")
    namespace.do("ip link add br0 type bridge", "ip link set v master br0 up", "ip link set br0 up")
    within(20, lambda: namespace.has(*f"bridge fdb add {MAC} dev v master dynamic".split()))  # once it has a carrier
    assert see().fdb == ()


def test_where_a_vxlan_sends_what(namespace, see):
    veth(namespace, "v")
    namespace.do(
        "ip link add vx type vxlan id 5 dstport 4789 remote 10.0.0.2",
        "bridge fdb append 00:00:00:00:00:00 dev vx dst 10.0.0.3",
        f"bridge fdb append {MAC} dev vx dst 10.0.0.4 port 77 vni 9 via v",
        "bridge fdb append 02:00:00:00:00:02 dev vx dst 10.0.0.5 dynamic",
        "bridge fdb append 02:00:00:00:00:03 dev vx dst 10.0.0.5 static",
    )
    entries = {(entry.mac, entry.destination): entry for entry in see().fdb}
    assert entries.keys() == {
        ("00:00:00:00:00:00", "10.0.0.3"),
        (MAC, "10.0.0.4"),
        ("02:00:00:00:00:03", "10.0.0.5"),
    }
    assert words(entries[MAC, "10.0.0.4"], "link", "port", "vni", "via", "flags") == {
        "link": "vx",
        "port": 77,
        "vni": 9,
        "via": "v",
        "flags": SELF,
    }


def test_what_was_read_can_be_written_down_and_read_again(routed, see):
    routed.do(
        "ip link add br0 type bridge",
        "ip tuntap add t0 mode tap",
        "ip link set t0 master br0",
        "ip route add default via 10.0.0.9",
        "ip rule add from 10.0.0.0/8 table 7",
        f"ip neighbour add 10.0.0.7 lladdr {MAC} dev e1",
        f"bridge fdb add {MAC} dev t0 master static",
    )
    seen = see()
    assert Snapshot.decode(seen.encode()) == seen


def test_routes_of_a_link_that_has_come_since_are_not_taken_for_others(namespace, tmp_path):
    class Late:
        def __init__(self, ip):
            self._ip = ip

        def __getattr__(self, name):
            return getattr(self._ip, name)

        def addr(self, *arguments, **words):
            for line in lines:
                subprocess.run(["ip", *line.split()], check=True)
            lines.clear()
            return self._ip.addr(*arguments, **words)

    lines = [
        "link add new type bridge",
        "link set new up",
        "route add 10.0.0.0/8 dev new",
        "route add 11.0.0.0/8 via 10.0.0.1",
    ]

    def looked():
        with IPRoute() as ip:
            return look(Late(ip), tmp_path).snapshot, look(ip, tmp_path).snapshot

    first, second = namespace(looked)
    assert (first.routes, len(second.routes)) == ((), 2)


@pytest.fixture
def change(namespace):
    """Has something done over and over until the test is over."""
    started = []

    def change(script):
        loop = f"while :; do {script}; done"
        started.append(namespace(subprocess.Popen, ["sh", "-c", loop], stderr=subprocess.DEVNULL))

    yield change
    for process in started:
        process.kill()
        process.wait()


def test_of_a_network_that_changes_all_the_time_is_read_what_stays(namespace, see, change):
    namespace.do("ip link add new type bridge", *(f"ip address add 10.0.0.{n}/24 dev new" for n in range(1, 100)))
    change("ip address add 10.1.0.1/24 dev new; ip address del 10.1.0.1/24 dev new")
    for _ in range(3):
        seen = {address.address for address in see().addresses}
        assert seen >= {f"10.0.0.{n}" for n in range(1, 100)}
