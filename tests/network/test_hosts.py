"""Networks as hosts really have them, many kinds on top of one another, come back as they were."""

import pytest

from .normal import pictures
from .spaces import need
from .steps import applied, lacks, taken

MACS = [f"02:00:00:00:01:{number:02x}" for number in range(32)]

HYPERVISOR = f"""
link add e0 address {MACS[0]} type dummy
link add e1 address {MACS[1]} type dummy
link add bond0 type bond mode 802.3ad miimon 100 lacp_rate fast xmit_hash_policy layer3+4
link set e0 master bond0
link set e1 master bond0
link set bond0 mtu 9000
link add br0 address {MACS[2]} mtu 9000 type bridge vlan_filtering 1 vlan_default_pvid 0 stp_state 0 mcast_snooping 0
link set bond0 master br0
link add link br0 name br0.10 address {MACS[3]} mtu 1500 type vlan id 10
link add link br0 name br0.20 address {MACS[4]} type vlan id 20 protocol 802.1ad
link add link br0.20 name br0.20.5 address {MACS[5]} mtu 8900 type vlan id 5
tuntap add tap0 mode tap user 107 group 107 multi_queue vnet_hdr
tuntap add tap1 mode tap user 107
link set tap0 master br0
link set tap1 master br0
link property add dev tap0 altname guest-one altname bond1
link set tap0 alias one/two
link set tap0 type bridge_slave isolated on guard on hairpin off mcast_router 2
link add vx100 address {MACS[6]} mtu 8800 type vxlan id 100 dstport 4789 local 10.10.0.1 nolearning
link add brx address {MACS[7]} type bridge stp_state 1
link set vx100 master brx
link set vx100 type bridge_slave neigh_suppress on learning off
link add va address {MACS[8]} type veth peer name vb address {MACS[9]}
link set va master brx
link set vb master brx
link add link br0 name brx.7 address {MACS[10]} type vlan id 7
link set brx.7 master brx
link add pt address {MACS[11]} type dummy
link add link pt name mv0 address {MACS[11]} type macvlan mode passthru
link set dev lo up
link set e0 up
link set e1 up
link set bond0 up
link set br0 up
link set br0.10 up
link set br0.20 up
link set br0.20.5 up
link set tap0 up
link set tap1 up
link set vx100 up
link set brx up
link set va up
link set vb up
link set brx.7 up
link set pt up
link set mv0 up
address add 10.10.0.1/24 dev br0.10 brd +
address add 10.10.0.2/24 dev br0.10
address add 10.10.1.1/31 dev br0.20.5
address add 10.10.2.1/32 peer 10.10.2.2/32 dev mv0
address add 192.0.2.53/32 dev lo
address add fd00:10::1/64 dev br0.10 preferred_lft 0 nodad
address add fd00:10::2/64 dev br0.10 nodad
address add fd00:10::3/64 dev br0.10 valid_lft 5000 preferred_lft 4000 nodad
route add default via 10.10.0.254 src 10.10.0.2
route add default via 10.10.0.254 table 100 metric 1024
route add default via 10.10.1.0 table 200 metric 1024
route add 203.0.113.0/24 via 172.16.0.1 dev br0.10 onlink mtu lock 1400
route add 198.51.100.0/24 via inet6 fd00:10::ff
-6 route add default via fd00:10::ff metric 1024
-6 route add default via fd00:10::ff table 100 metric 1024
-6 route add fd00:77::/48 nexthop via fd00:10::f1 weight 2 nexthop via fd00:10::f2
route add 203.0.114.0/24 nexthop via 10.10.0.253 weight 2 nexthop via 10.10.1.0
rule add pref 100 from 10.10.0.2 lookup 100
rule add pref 200 from 10.10.1.1 iif br0.20.5 lookup 200
-6 rule add pref 100 from fd00:10::2 lookup 100
neighbour add 10.10.0.254 lladdr 02:00:00:00:02:01 dev br0.10 nud permanent
""".strip()

BRIDGED = """
vlan add dev br0 vid 10 self
vlan add dev br0 vid 20 self
vlan add dev br0 vid 7 self
vlan add dev bond0 vid 2-4094
vlan add dev tap0 vid 10 pvid untagged
vlan add dev tap1 vid 20-4000
vlan add dev tap1 vid 4001 pvid
fdb append 00:00:00:00:00:00 dev vx100 dst 10.10.0.11
fdb append 00:00:00:00:00:00 dev vx100 dst 10.10.0.12
fdb append 00:00:00:00:00:00 dev vx100 dst 10.10.0.13 port 8472 vni 7
fdb add 02:00:00:00:03:01 dev vx100 dst 10.10.0.11 self
fdb add 02:00:00:00:03:01 dev vx100 master static
fdb add 02:00:00:00:03:02 dev tap0 vlan 10 master static sticky
""".strip()


def set_up(namespace):
    for line in HYPERVISOR.splitlines():
        namespace.run("ip", *line.split())
    for line in BRIDGED.splitlines():
        namespace.run("bridge", *line.split())


@pytest.fixture
def hypervisor(namespace):
    need("dummy", "bond", "vlan", "vlan filtering", "macvlan", "vxlan", "veth", "tun")
    set_up(namespace)
    return namespace


def test_a_hypervisors_network_comes_back_and_is_mended_where_some_of_it_went(hypervisor, another):
    wanted = taken(hypervisor)
    assert wanted.left_out == ()
    report = applied(another, wanted)
    assert report.failed == ()
    restored, before = pictures(another, hypervisor)
    assert restored == before
    assert lacks(another, wanted) == []
    another.do(*(f"ip link del {name}" for name in ("br0.20", "bond0", "vx100", "tap0", "va", "mv0")))
    assert applied(another, wanted).failed == ()
    mended, before = pictures(another, hypervisor)
    assert mended == before


def test_tunnels_of_vlans_are_told_of(hypervisor):
    hypervisor.do(
        "ip link add vxm type vxlan dstport 4790 external",
        "ip link set vxm master br0",
        "ip link set vxm type bridge_slave vlan_tunnel on",
        "bridge vlan add dev vxm vid 10",
        "bridge vlan add dev vxm vid 10 tunnel_info id 1000",
    )
    assert [left.what for left in taken(hypervisor).left_out] == ["tunnels of VLANs of vxm"]
