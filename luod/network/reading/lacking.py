"""Attributes of rtnetlink that pyroute2, or an older one of those that luod works with, has no name for."""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg, macvx_data, protinfo_bridge
from pyroute2.netlink.rtnl.ifinfmsg.plugins.bond import bond
from pyroute2.netlink.rtnl.ifinfmsg.plugins.vxlan import vxlan
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

Attributes: TypeAlias = tuple[tuple[int, str, str], ...]

LACKING: Final[tuple[tuple[type[Any], Attributes], ...]] = (
    (ifaddrmsg, ((9, "IFA_RT_PRIORITY", "uint32"), (11, "IFA_PROTO", "uint8"))),
    (rtmsg.metrics, ((16, "RTAX_CC_ALGO", "asciiz"), (17, "RTAX_FASTOPEN_NO_COOKIE", "uint32"))),
    (
        ifinfmsg.ifinfo.bridge_data,
        (
            (45, "IFLA_BR_VLAN_STATS_PER_PORT", "uint8"),
            (46, "IFLA_BR_MULTI_BOOLOPT", "cdata"),
            (49, "IFLA_BR_FDB_MAX_LEARNED", "uint32"),
        ),
    ),
    (
        protinfo_bridge,
        (
            (37, "IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT", "uint32"),
            (39, "IFLA_BRPORT_LOCKED", "uint8"),
            (40, "IFLA_BRPORT_MAB", "uint8"),
            (42, "IFLA_BRPORT_MCAST_MAX_GROUPS", "uint32"),
            (43, "IFLA_BRPORT_NEIGH_VLAN_SUPPRESS", "uint8"),
        ),
    ),
    (
        bond,
        (
            (28, "IFLA_BOND_PEER_NOTIF_DELAY", "uint32"),
            (29, "IFLA_BOND_AD_LACP_ACTIVE", "uint8"),
            (30, "IFLA_BOND_MISSED_MAX", "uint8"),
            (31, "IFLA_BOND_NS_IP6_TARGET", "cdata"),
            (32, "IFLA_BOND_COUPLED_CONTROL", "uint8"),
            (33, "IFLA_BOND_BROADCAST_NEIGH", "uint8"),
        ),
    ),
    (ifinfmsg.ifinfo.bond_slave_data, ((9, "IFLA_BOND_SLAVE_PRIO", "int32"),)),
    (
        vxlan,
        (
            (31, "IFLA_VXLAN_LOCALBYPASS", "uint8"),
            (32, "IFLA_VXLAN_LABEL_POLICY", "uint32"),
            (34, "IFLA_VXLAN_MC_ROUTE", "uint8"),
        ),
    ),
    (macvx_data, ((7, "IFLA_MACVLAN_BC_QUEUE_LEN", "uint32"), (9, "IFLA_MACVLAN_BC_CUTOFF", "int32"))),
    (ndmsg, ((13, "NDA_NH_ID", "uint32"),)),
)
"""By the class of the message, or of the attribute, that they are in: number (include/uapi/linux), name, type."""


def complete() -> None:
    """Let pyroute2 know them. To be called before its first message: then it makes its own tables of these."""
    for owner, attributes in LACKING:
        owner.nla_map = _completed(owner.nla_map, attributes)


def numbered(known: Iterable[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    """A table of pyroute2's, of which some are numbered and some are in order."""
    return tuple(each if isinstance(each[0], int) else (number, *each) for number, each in enumerate(known))


def _completed(known: Iterable[tuple[Any, ...]], lacking: Attributes) -> tuple[tuple[Any, ...], ...]:
    table = numbered(known)
    numbers = {each[0] for each in table}
    return (*table, *(each for each in lacking if each[0] not in numbers))
