"""The numbers of rtnetlink(7), by the names of include/uapi/linux. Nothing here makes a system call."""

from typing import Final

# Messages (netlink.h, rtnetlink.h)

NLM_F_DUMP_INTR: Final = 0x10
NLA_TYPE_MASK: Final = 0x3FFF
RTMGRP_LINK: Final = 1
RTEXT_FILTER_BRVLAN_COMPRESSED: Final = 0x4
RTEXT_FILTER_SKIP_STATS: Final = 0x8

# Links (if_arp.h, if.h, if_link.h)

ARPHRD_LOOPBACK: Final = 772

IFF_UP: Final = 0x1
IFF_NOARP: Final = 0x80
IFF_PROMISC: Final = 0x100
IFF_ALLMULTI: Final = 0x200
IFF_MULTICAST: Final = 0x1000
IN6_ADDR_GEN_MODE_STABLE_PRIVACY: Final = 2

# Taps, and tuns (if_tun.h)

IFF_TAP: Final = 0x2
IFF_MULTI_QUEUE: Final = 0x100
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000
TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
TUNSETOWNER: Final = 0x400454CC
TUNSETGROUP: Final = 0x400454CE

# Kinds of links (if_link.h, if_bonding.h, if_vlan.h)

BOND_MODE_8023AD: Final = 4
BOND_FOM_ACTIVE: Final = 1
IFLA_VXLAN_VNIFILTER: Final = 30
MACVLAN_MACADDR_SET: Final = 3
MACVLAN_MODES: Final = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16}
MACVLAN_FLAG_NOPROMISC: Final = 1
VLAN_FLAGS: Final = 0x1F
"""All that there are: the kernel refuses a mask of more."""

# Bridges (if_bridge.h)

BR_BOOLOPT: Final = (
    "no_linklocal_learn",
    "mcast_vlan_snooping",
    "mst_enabled",
    "mdb_offload_fail_notification",
    "fdb_local_vlan_0",
)
"""By their bits, as ip-link(8) calls them."""

BRIDGE_FLAGS_SELF: Final = 0x2
BRIDGE_VLAN_INFO_PVID: Final = 0x2
BRIDGE_VLAN_INFO_UNTAGGED: Final = 0x4
BRIDGE_VLAN_INFO_RANGE_BEGIN: Final = 0x8
BRIDGE_VLAN_INFO_RANGE_END: Final = 0x10

# Addresses (if_addr.h)

IFA_F_TEMPORARY: Final = 0x1
IFA_F_NODAD: Final = 0x2
IFA_F_DADFAILED: Final = 0x8
IFA_F_HOMEADDRESS: Final = 0x10
IFA_F_MANAGETEMPADDR: Final = 0x100
IFA_F_NOPREFIXROUTE: Final = 0x200
IFA_F_MCAUTOJOIN: Final = 0x400
IFA_F_STABLE_PRIVACY: Final = 0x800
IFAPROT_KERNEL_LO: Final = 1
IFAPROT_KERNEL_LL: Final = 3
INFINITY_LIFE_TIME: Final = 0xFFFFFFFF

# Routes (rtnetlink.h)

RT_TABLE_DEFAULT: Final = 253
RT_TABLE_MAIN: Final = 254
RT_TABLE_LOCAL: Final = 255
RTPROT_REDIRECT: Final = 1
RTPROT_KERNEL: Final = 2
RTPROT_BOOT: Final = 3
RTPROT_RA: Final = 9
RTN_UNICAST: Final = 1
RTN_BLACKHOLE: Final = 6
RTN_UNREACHABLE: Final = 7
RTN_PROHIBIT: Final = 8
RTN_THROW: Final = 9
RTM_F_CLONED: Final = 0x200
RTF_ADDRCONF: Final = 0x40000
RTNH_F_ONLINK: Final = 0x4
USER_HZ: Final = 100
"""What the kernel tells the time of a route in."""

# Rules (fib_rules.h)

FIB_RULE_INVERT: Final = 0x2
FR_ACT_TO_TBL: Final = 1
FR_ACT_GOTO: Final = 2
FR_ACT_NOP: Final = 3
FR_ACT_BLACKHOLE: Final = 6
FR_ACT_UNREACHABLE: Final = 7
FR_ACT_PROHIBIT: Final = 8
FRA_SPORT_MASK: Final = 28
FRA_DPORT_MASK: Final = 29
NO_PREFIXLEN: Final = 0xFFFFFFFF
"""FRA_SUPPRESS_PREFIXLEN where nothing is suppressed."""

# Neighbours, and forwarding entries (neighbour.h)

NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
NTF_SELF: Final = 0x2
NTF_MASTER: Final = 0x4
NTF_PROXY: Final = 0x8
NTF_EXT_LEARNED: Final = 0x10
NTF_OFFLOADED: Final = 0x20
NTF_STICKY: Final = 0x40
NTF_ROUTER: Final = 0x80
