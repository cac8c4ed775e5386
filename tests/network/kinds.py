"""A network of each kind that is handed over: what it takes of the kernel, and how ip(8) and bridge(8) set it up."""

from .spaces import need

LINKS = {
    "a dummy": (
        ("dummy",),
        """
        ip link add d0 type dummy
        ip link set d0 address 02:00:00:00:00:01 mtu 9000 txqueuelen 77 alias old group 7
        ip link property add dev d0 altname one altname a-name-that-is-too-long-for-a-link
        ip link set d0 arp off multicast off allmulticast on promisc on
        ip link set d0 addrgenmode none up
        """,
    ),
    "a pair of veths": (
        ("veth",),
        """
        ip link add v0 address 02:00:00:00:00:02 type veth peer name v1 address 02:00:00:00:00:03
        ip link set v0 mtu 1400 up
        ip link set v1 alias inner
        """,
    ),
    "a bridge": (
        ("bridge", "veth"),
        """
        ip link add br0 address 02:00:00:00:00:01 type bridge forward_delay 400 hello_time 300 max_age 3000
        ip link set br0 type bridge ageing_time 12345 priority 7 stp_state 1 group_fwd_mask 8
        ip link set br0 type bridge mcast_query_interval 3000 mcast_snooping 0 mcast_startup_query_count 4
        ip link add v0 type veth peer name w0
        ip link add v1 type veth peer name w1
        ip link set v0 master br0
        ip link set v1 master br0
        bridge link set dev v0 cost 7 priority 9 learning off flood off hairpin on guard on isolated on
        bridge link set dev v0 mcast_flood off bcast_flood off neigh_suppress on
        bridge link set dev v1 fastleave on root_block on
        ip link set v1 type bridge_slave mcast_router 2 proxy_arp on backup_port v0
        ip link set br0 mtu 1400
        ip link set w0 up
        ip link set v0 up
        ip link set br0 up
        bridge fdb add 02:00:00:00:00:0a dev v0 master static
        bridge fdb add 02:00:00:00:00:0b dev v1 master permanent
        bridge fdb add 02:00:00:00:00:0c dev br0 self permanent
        """,
    ),
    "a bridge that limits its ports": (
        ("bridge", "veth", "limits of bridges"),
        """
        ip link add br0 address 02:00:00:00:00:01 type bridge fdb_max_learned 99
        ip link add v0 type veth peer name w0
        ip link set v0 master br0
        bridge link set dev v0 mcast_max_groups 9 neigh_vlan_suppress on
        """,
    ),
    "a bridge with VLANs": (
        ("vlan filtering", "veth"),
        """
        ip link add br0 address 02:00:00:00:00:01 type bridge vlan_filtering 1 vlan_default_pvid 1 vlan_stats_enabled 1
        ip link add v0 type veth peer name w0
        ip link add v1 type veth peer name w1
        ip link set v0 master br0
        ip link set v1 master br0
        bridge vlan del dev v0 vid 1
        bridge vlan add dev v0 vid 10 pvid untagged
        bridge vlan add dev v0 vid 20-29
        bridge vlan add dev v1 vid 2-4094
        bridge vlan add dev br0 vid 10 self
        bridge vlan del dev br0 vid 1 self
        ip link set v0 up
        ip link set br0 up
        bridge fdb add 02:00:00:00:00:0a dev v0 master static vlan 20
        """,
    ),
    "a bridge without a default VLAN": (
        ("vlan filtering", "veth"),
        """
        ip link add br0 address 02:00:00:00:00:01 type bridge vlan_filtering 1 vlan_default_pvid 0 vlan_protocol 802.1ad
        ip link set br0 type bridge vlan_stats_per_port 1
        ip link add v0 type veth peer name w0
        ip link set v0 master br0
        bridge vlan add dev v0 vid 7 pvid
        ip link set br0 up
        """,
    ),
    "VLANs": (
        ("vlan", "veth"),
        """
        ip link add v0 type veth peer name w0
        ip link add link v0 v0.5 type vlan id 5
        ip link add link v0 v0.6 type vlan id 6 gvrp on reorder_hdr off egress 1:2 3:4 ingress 5:6
        ip link add link v0 service type vlan protocol 802.1ad id 7
        ip link add link service customer address 02:00:00:00:00:05 type vlan id 7
        ip link set w0 up
        ip link set v0 up
        ip link set v0.5 up mtu 1400
        ip link set service up
        ip link set customer up
        """,
    ),
    "a bond": (
        ("bond", "dummy"),
        """
        ip link add bond0 address 02:00:00:00:00:09 type bond mode active-backup miimon 100 updelay 200 downdelay 300
        ip link set bond0 type bond num_grat_arp 3 primary_reselect better resend_igmp 2 peer_notify_delay 200
        ip link add d0 type dummy
        ip link add d1 type dummy
        ip link set d0 master bond0
        ip link set d1 master bond0
        ip link set d1 type bond_slave queue_id 2
        ip link set d0 type bond_slave prio 5
        ip link set bond0 type bond primary d1
        ip link set bond0 up
        """,
    ),
    "a bond whose ports keep their addresses": (
        ("bond", "dummy"),
        """
        ip link add bond0 type bond mode active-backup miimon 100 fail_over_mac active
        ip link add d0 address 02:00:00:00:00:04 type dummy
        ip link add d1 address 02:00:00:00:00:05 type dummy
        ip link set d0 master bond0
        ip link set bond0 up
        """,
    ),
    "a bond that asks others": (
        ("bond", "dummy"),
        """
        ip link add bond0 type bond mode active-backup arp_interval 100 arp_ip_target 10.0.0.1,10.0.0.2
        ip link set bond0 type bond arp_validate active arp_all_targets all arp_missed_max 5
        ip link add d0 type dummy
        ip link set d0 master bond0
        ip link set bond0 up
        """,
    ),
    "a bond with LACP": (
        ("bond", "dummy"),
        """
        ip link add bond0 type bond mode 802.3ad miimon 50 lacp_rate fast xmit_hash_policy layer3+4 min_links 1
        ip link set bond0 type bond ad_actor_sys_prio 7 ad_user_port_key 9 ad_actor_system 02:00:00:00:00:0e
        ip link add d0 type dummy
        ip link set d0 master bond0
        ip link set bond0 up mtu 1400
        """,
    ),
    "taps and tuns": (
        ("tun",),
        """
        ip tuntap add tap0 mode tap
        ip tuntap add tap1 mode tap user 1000 group 1001 multi_queue vnet_hdr
        ip tuntap add tun0 mode tun user 3000000000
        ip tuntap add tun1 mode tun pi
        ip link set tap0 address 02:00:00:00:00:07 mtu 1400 up
        ip link set tun0 up
        """,
    ),
    "a macvlan": (
        ("macvlan", "veth"),
        """
        ip link add v0 type veth peer name w0
        ip link add link v0 m0 address 02:00:00:00:00:05 type macvlan mode bridge bcqueuelen 2000
        ip link add link v0 m1 type macvlan mode source
        ip link set m1 type macvlan macaddr set 02:00:00:00:00:06 02:00:00:00:00:07
        ip link add v1 type veth peer name w1
        ip link add link v1 m2 type macvlan mode passthru nopromisc
        ip link set v0 up
        ip link set m0 up
        """,
    ),
    "vxlans": (
        ("vxlan", "veth"),
        """
        ip link add v0 type veth peer name w0
        ip link set v0 up
        ip link set w0 up
        ip address add 10.0.0.1/24 dev v0
        ip address add fd00::1/64 dev v0 nodad
        ip link add x0 type vxlan id 3 dev v0 remote 10.0.0.9 local 10.0.0.1 dstport 4789 ttl 9 tos 4 df set
        ip link add x1 type vxlan id 4 dstport 4790 nolearning proxy rsc l2miss l3miss ageing 77 maxaddress 99
        ip link add x2 type vxlan id 5 dev v0 group 239.0.0.1 dstport 8472 srcport 5000 6000 ttl inherit
        ip link add x3 type vxlan id 6 local fd00::1 dstport 4791 udp6zerocsumtx udp6zerocsumrx flowlabel 0x123
        ip link add x4 type vxlan external dstport 4792
        ip link add x5 type vxlan id 7 gbp dstport 4793 noudpcsum
        ip link set x0 up
        ip link set x1 up
        bridge fdb append 00:00:00:00:00:00 dev x1 dst 10.0.0.3
        bridge fdb append 00:00:00:00:00:00 dev x1 dst 10.0.0.4 port 99
        bridge fdb add 02:00:00:00:00:0b dev x1 dst 10.0.0.5 vni 12 via v0
        bridge fdb add 02:00:00:00:00:0c dev x0 dst 10.0.0.6 extern_learn
        """,
    ),
    "a host with guests": (
        ("bridge", "tun", "veth", "vlan"),
        """
        ip link add v0 type veth peer name w0
        ip link add link v0 v0.5 type vlan id 5
        ip link add br0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0
        ip link set v0.5 master br0
        ip tuntap add tap0 mode tap user 1000
        ip link set tap0 master br0
        ip link set w0 up
        ip link set v0 up
        ip link set v0.5 up
        ip link set tap0 up
        ip link set br0 up
        ip address add 10.0.0.1/24 dev br0
        ip route add default via 10.0.0.254
        """,
    ),
}

REST = {
    "IPv4 addresses": (
        ("veth",),
        """
        ip link set lo up
        ip link add v0 type veth peer name w0
        ip link set v0 up
        ip address add 10.0.0.2/24 brd + dev v0
        ip address add 10.0.0.1/24 brd + dev v0 label v0:x
        ip address add 10.0.0.3/24 dev v0 noprefixroute
        ip address add 10.1.0.1 peer 10.1.0.2/32 dev v0 scope link
        ip address add 10.3.0.1/24 dev v0 valid_lft 3000 preferred_lft 1000
        ip address add 10.4.0.1/32 dev lo
        """,
    ),
    "an address whose route has a metric": (
        ("veth", "the metric of an address"),
        """
        ip link add v0 type veth peer name w0
        ip link set v0 up
        ip address add 10.0.0.1/24 dev v0 metric 50
        """,
    ),
    "IPv6 addresses": (
        ("veth",),
        """
        ip link set lo up
        ip link add v0 type veth peer name w0
        ip link set v0 up
        ip link set w0 up
        ip address add fd00::2/64 dev v0
        ip address add fd00::1/64 dev v0 nodad
        ip address add fd00::3/64 dev v0 home noprefixroute
        ip address add fd01::1/64 dev v0 valid_lft 3000 preferred_lft 1000
        ip address add fd01::2/64 dev v0 valid_lft 3000 preferred_lft 0
        ip address add fd02::1 peer fd02::2/128 dev v0 nodad
        ip address add fe80::1/64 dev v0
        ip address add fd03::1/128 dev lo
        """,
    ),
    "IPv4 routes": (
        ("veth",),
        """
        ip link set lo up
        ip link add v0 type veth peer name w0
        ip link set w0 up
        ip link set v0 up
        ip address add 10.0.0.1/24 dev v0
        ip route add default via 10.0.0.254 src 10.0.0.1 metric 10
        ip route add default via 10.0.0.253 metric 20 proto dhcp
        ip route add 10.1.0.0/16 dev v0 table 100 mtu 1400 advmss 1300 initcwnd 20 rto_min 30ms
        ip route add 10.2.0.0/16 via 10.9.0.1 dev v0 onlink mtu lock 1300
        ip route add 10.3.0.0/16 tos 0x10 dev v0
        ip route append 10.4.0.0/16 via 10.0.0.2
        ip route append 10.4.0.0/16 via 10.0.0.3
        ip route add 10.5.0.0/16 via inet6 fe80::5 dev v0
        ip route add blackhole 10.6.0.0/16
        ip route add unreachable 10.7.0.0/16 metric 5
        ip route add prohibit 10.8.0.0/16
        ip route add throw 10.9.0.0/16 table 1000
        ip route add 10.10.0.0/16 via 10.0.0.7 congctl cubic quickack 1 fastopen_no_cookie 1
        """,
    ),
    "IPv6 routes": (
        ("veth",),
        """
        ip link set lo up
        ip link add v0 type veth peer name w0
        ip link set w0 up
        ip link set v0 up
        ip address add fd00::1/64 dev v0 nodad
        ip route add default via fd00::fe metric 5 pref high
        ip route add default via fe80::fe dev v0 metric 6 proto ra
        ip route add fd01::/64 dev v0 table 100 mtu 1400 hoplimit 9
        ip route add fd02::/64 via fd00::2 expires 3000
        ip route add fd03::/64 via fd00::3 src fd00::1
        ip route add blackhole fd06::/64
        ip route add unreachable fd07::/64 metric 5
        ip route add prohibit fd08::/64
        """,
    ),
    "routes by several ways": (
        ("veth", "multipath"),
        """
        ip link set lo up
        ip link add v0 type veth peer name w0
        ip link set w0 up
        ip link set v0 up
        ip address add 10.0.0.1/24 dev v0
        ip address add fd00::1/64 dev v0 nodad
        ip route add 10.1.0.0/16 nexthop via 10.0.0.2 weight 3 nexthop via 10.0.0.3 dev v0 onlink
        ip route add 10.2.0.0/16 nexthop via 10.0.0.2 nexthop dev w0
        ip route add fd01::/64 nexthop via fd00::2 weight 3 nexthop via fd00::3
        ip route add fd02::/64 via fd00::2
        ip -6 route append fd02::/64 via fd00::3
        """,
    ),
    "rules": (
        (),
        """
        ip rule add from 10.0.0.0/8 to 10.1.0.0/16 tos 0x10 iif lo table 100 priority 5
        ip rule add fwmark 1/0xff table 1000 priority 6 suppress_prefixlength 0
        ip rule add not from 10.0.0.1 oif nosuch prohibit priority 7
        ip rule add goto 32766 priority 8
        ip rule add ipproto tcp sport 80 dport 100-200 uidrange 1000-2000 blackhole priority 9
        ip -6 rule add from fd00::/8 table 100 priority 5 protocol 99
        ip -6 rule add table 100 priority 6 tun_id 12
        """,
    ),
    "realms": (
        ("veth", "realms"),
        """
        ip link add v0 type veth peer name w0
        ip link set w0 up
        ip link set v0 up
        ip address add 10.0.0.1/24 dev v0
        ip route add 10.1.0.0/16 via 10.0.0.2 realms 3/4
        ip route add 10.2.0.0/16 nexthop via 10.0.0.2 realms 5 nexthop via 10.0.0.3 realms 6
        ip route add blackhole 10.3.0.0/16 realms 9
        ip rule add from 10.0.0.0/8 table 100 realms 7/8 priority 5
        """,
    ),
    "neighbours": (
        ("veth",),
        """
        ip link add v0 type veth peer name w0
        ip link set w0 up
        ip link set v0 up
        ip neighbour add 10.0.0.2 lladdr 02:00:00:00:00:02 dev v0
        ip neighbour add fd00::2 lladdr 02:00:00:00:00:02 dev v0 router
        ip neighbour add proxy 10.0.0.2 dev v0
        ip neighbour add proxy fd00::3 dev v0
        """,
    ),
}

NETWORKS = {**LINKS, **REST}


def commands(kind):
    """How it is set up; skips where this kernel lacks what that takes."""
    needed, text = NETWORKS[kind]
    need(*needed)
    return [line.split() for line in text.strip().splitlines()]
