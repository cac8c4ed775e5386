"""What of a network is handed over, as it is written down: models without I/O.

Links go by their names, for a kernel's numbers of them end with it. What is None the kernel didn't tell, or has no word
for: it is left as it is. Numbers are those of rtnetlink(7): the field `forward_delay` of Bridge is the attribute
IFLA_BR_FORWARD_DELAY, in its unit.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from luod.errors import LuodError
from luod.network.abi import (
    NTF_PROXY,
    RT_TABLE_MAIN,
    RTN_BLACKHOLE,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RTPROT_BOOT,
)

VERSION: Final = 1
"""What a reader must know. A field that a reader may pass over comes without a new version."""

FOREVER: Final = None
"""When what has no end is over."""

WITHOUT_NEXTHOPS: Final = frozenset({RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW})
"""The types of routes that lead nowhere."""

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=15, pattern=r"^[^/:%\x00\t\n\v\f\r \u00a0]+$")]
"""A link's, as the kernel allows it (dev_valid_name); by a "%" it would choose one itself."""
AltName: TypeAlias = Annotated[str, Field(min_length=1, max_length=127, pattern=r"^[^\x00]+$")]
"""The kernel allows any."""
Mac: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2})*$", max_length=95)]
U8: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 8)]
U16: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 16)]
U32: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 32)]
S32: TypeAlias = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
U64: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 64)]
VlanId: TypeAlias = Annotated[int, Field(ge=1, le=4094)]
Time: TypeAlias = Annotated[float, Field(ge=0)]
"""Seconds since 1970 (CLOCK_REALTIME)."""
Family: TypeAlias = Literal["inet", "inet6"]


class BadSnapshot(LuodError):
    """What is there can't be read as a snapshot of a network. The text says why."""


class LinkNumber:
    """Marks a field whose attribute is the number of a link."""


Reference: TypeAlias = Annotated[Name, LinkNumber()]


class Record(BaseModel):
    """Anything that is written down. What a newer luod has written besides is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Settings(Record):
    """What a link, or a port, can be set to: each field but `kind` is the attribute PREFIX + NAME."""

    PREFIX: ClassVar[str]
    FIXED: ClassVar[frozenset[str]] = frozenset()
    """What makes a link what it is: it never changes."""
    MADE_WITH: ClassVar[frozenset[str]] = frozenset()
    """What is said when the link is made, besides what is fixed; all else is set afterwards."""

    def given(self) -> dict[str, Any]:
        """The fields that aren't None, but for the kind."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def references(cls) -> frozenset[str]:
        """The fields that name a link."""
        return frozenset(
            name
            for name, field in cls.model_fields.items()
            if any(isinstance(mark, LinkNumber) for mark in _marks(field.annotation, field.metadata))
        )


def _marks(annotation: Any, metadata: list[Any]) -> Iterator[Any]:
    yield from metadata
    for inner in (annotation, *getattr(annotation, "__args__", ())):
        yield from getattr(inner, "__metadata__", ())


class Bridge(Settings):
    PREFIX = "IFLA_BR_"

    kind: Literal["bridge"] = "bridge"
    forward_delay: U32 | None = None
    hello_time: U32 | None = None
    max_age: U32 | None = None
    ageing_time: U32 | None = None
    stp_state: U32 | None = None
    priority: U16 | None = None
    vlan_filtering: U8 | None = None
    vlan_protocol: U16 | None = None
    vlan_default_pvid: U16 | None = None
    vlan_stats_enabled: U8 | None = None
    vlan_stats_per_port: U8 | None = None
    group_fwd_mask: U16 | None = None
    group_addr: Mac | None = None
    mcast_router: U8 | None = None
    mcast_snooping: U8 | None = None
    mcast_query_use_ifaddr: U8 | None = None
    mcast_querier: U8 | None = None
    mcast_hash_max: U32 | None = None
    mcast_last_member_cnt: U32 | None = None
    mcast_startup_query_cnt: U32 | None = None
    mcast_last_member_intvl: U64 | None = None
    mcast_membership_intvl: U64 | None = None
    mcast_querier_intvl: U64 | None = None
    mcast_query_intvl: U64 | None = None
    mcast_query_response_intvl: U64 | None = None
    mcast_startup_query_intvl: U64 | None = None
    mcast_stats_enabled: U8 | None = None
    fdb_max_learned: U32 | None = None
    mcast_igmp_version: U8 | None = None
    mcast_mld_version: U8 | None = None
    nf_call_iptables: U8 | None = None
    nf_call_ip6tables: U8 | None = None
    nf_call_arptables: U8 | None = None


class Vlan(Settings):
    PREFIX = "IFLA_VLAN_"
    FIXED = frozenset({"id", "protocol"})
    MADE_WITH = frozenset({"flags", "egress_qos", "ingress_qos"})

    kind: Literal["vlan"] = "vlan"
    id: U16
    protocol: U16 | None = None
    flags: U32 | None = None
    egress_qos: tuple[tuple[U32, U32], ...] | None = None
    """Pairs of a packet's priority and the frame's; `ingress_qos` the other way round."""
    ingress_qos: tuple[tuple[U32, U32], ...] | None = None


class Bond(Settings):
    PREFIX = "IFLA_BOND_"
    MADE_WITH = frozenset({"mode"})

    kind: Literal["bond"] = "bond"
    mode: U8 | None = None
    miimon: U32 | None = None
    updelay: U32 | None = None
    downdelay: U32 | None = None
    peer_notif_delay: U32 | None = None
    use_carrier: U8 | None = None
    arp_interval: U32 | None = None
    arp_ip_target: tuple[str, ...] | None = None
    arp_validate: U32 | None = None
    arp_all_targets: U32 | None = None
    primary: Reference | None = None
    primary_reselect: U8 | None = None
    fail_over_mac: U8 | None = None
    xmit_hash_policy: U8 | None = None
    resend_igmp: U32 | None = None
    num_peer_notif: U8 | None = None
    all_slaves_active: U8 | None = None
    min_links: U32 | None = None
    lp_interval: U32 | None = None
    packets_per_slave: U32 | None = None
    ad_lacp_rate: U8 | None = None
    ad_select: U8 | None = None
    ad_actor_sys_prio: U16 | None = None
    ad_user_port_key: U16 | None = None
    ad_actor_system: Mac | None = None
    tlb_dynamic_lb: U8 | None = None
    ad_lacp_active: U8 | None = None
    missed_max: U8 | None = None
    coupled_control: U8 | None = None
    broadcast_neigh: U8 | None = None


class Veth(Settings):
    PREFIX = "VETH_INFO_"
    FIXED = frozenset({"peer"})

    kind: Literal["veth"] = "veth"
    peer: Name
    """The other end, in this network namespace."""


class Tun(Settings):
    """A tap, or a tun. It outlives whoever has it open (`persist`) in the next kernel, for nobody has it open there."""

    PREFIX = "IFLA_TUN_"
    FIXED = frozenset({"type", "pi", "vnet_hdr", "multi_queue"})
    MADE_WITH = frozenset({"owner", "group"})

    kind: Literal["tun"] = "tun"
    type: Literal[1, 2]
    """IFF_TUN or IFF_TAP."""
    owner: U32 | None = None
    group: U32 | None = None
    pi: U8 = 0
    vnet_hdr: U8 = 0
    multi_queue: U8 = 0


class Vxlan(Settings):
    PREFIX = "IFLA_VXLAN_"
    FIXED = frozenset({"id"})

    kind: Literal["vxlan"] = "vxlan"
    id: U32
    link: Reference | None = None
    group: str | None = None
    group6: str | None = None
    local: str | None = None
    local6: str | None = None
    port: U16 | None = None
    port_range: tuple[U16, U16] | None = None
    ttl: U8 | None = None
    tos: U8 | None = None
    label: U32 | None = None
    label_policy: U32 | None = None
    ageing: U32 | None = None
    limit: U32 | None = None
    learning: U8 | None = None
    proxy: U8 | None = None
    rsc: U8 | None = None
    l2miss: U8 | None = None
    l3miss: U8 | None = None
    udp_csum: U8 | None = None
    udp_zero_csum6_tx: U8 | None = None
    udp_zero_csum6_rx: U8 | None = None
    remcsum_tx: U8 | None = None
    remcsum_rx: U8 | None = None
    collect_metadata: U8 | None = None
    df: U8 | None = None
    localbypass: U8 | None = None
    mc_route: U8 | None = None
    gbp: bool | None = None
    gpe: bool | None = None
    remcsum_nopartial: bool | None = None
    ttl_inherit: bool | None = None


Vxlan.MADE_WITH = frozenset(Vxlan.model_fields) - {"kind", "id"}


class Macvlan(Settings):
    PREFIX = "IFLA_MACVLAN_"
    MADE_WITH = frozenset({"mode", "flags"})

    kind: Literal["macvlan"] = "macvlan"
    mode: U32 | None = None
    flags: U16 | None = None
    macaddr: tuple[Mac, ...] | None = None
    """Whose frames it takes, in mode `source` (8)."""
    bc_queue_len: U32 | None = None
    bc_cutoff: S32 | None = None


class BridgePort(Settings):
    """What a link has as a port of its bridge."""

    PREFIX = "IFLA_BRPORT_"

    kind: Literal["bridge"] = "bridge"
    priority: U16 | None = None
    cost: U32 | None = None
    mode: U8 | None = None
    guard: U8 | None = None
    protect: U8 | None = None
    fast_leave: U8 | None = None
    learning: U8 | None = None
    unicast_flood: U8 | None = None
    mcast_flood: U8 | None = None
    bcast_flood: U8 | None = None
    mcast_to_ucast: U8 | None = None
    multicast_router: U8 | None = None
    proxyarp: U8 | None = None
    proxyarp_wifi: U8 | None = None
    group_fwd_mask: U16 | None = None
    vlan_tunnel: U8 | None = None
    neigh_suppress: U8 | None = None
    isolated: U8 | None = None
    locked: U8 | None = None
    mab: U8 | None = None
    mcast_eht_hosts_limit: U32 | None = None
    mcast_max_groups: U32 | None = None
    neigh_vlan_suppress: U8 | None = None
    backup_port: Reference | None = None


class BondPort(Settings):
    """What a link has as a port of its bond."""

    PREFIX = "IFLA_BOND_SLAVE_"

    kind: Literal["bond"] = "bond"
    queue_id: U16 | None = None
    prio: S32 | None = None


OfKind: TypeAlias = Annotated[Bridge | Vlan | Bond | Veth | Tun | Vxlan | Macvlan, Field(discriminator="kind")]
OfPort: TypeAlias = Annotated[BridgePort | BondPort, Field(discriminator="kind")]
Kind: TypeAlias = Literal["physical", "loopback", "bridge", "vlan", "bond", "veth", "tun", "vxlan", "macvlan", "dummy"]


class Link(Record):
    """A link. One that is `physical` isn't made but found, by its permanent address, else by where it is plugged in."""

    name: Name
    kind: Kind
    altnames: tuple[AltName, ...] = ()
    alias: str | None = None
    mtu: U32
    address: Mac | None = None
    """None as well where it has the address of another: a port of a bond."""
    permanent_address: Mac | None = None
    path: str | None = None
    """Where it is plugged in: "pci-0000:00:03.0", and behind a "/" which of its ports."""
    txqlen: U32 | None = None
    group: U32 = 0
    addr_gen_mode: U8 | None = None
    """How it chooses its IPv6 link-local address."""
    up: bool
    arp: bool = True
    multicast: bool = True
    allmulticast: bool = False
    promiscuous: bool = False
    lower: Name | None = None
    """What it stands on: a VLAN's, a macvlan's link."""
    master: Name | None = None
    settings: OfKind | None = None
    port: OfPort | None = None


class Address(Record):
    link: Name
    family: Family
    address: str
    prefixlen: U8
    peer: str | None = None
    broadcast: str | None = None
    label: str | None = None
    scope: U8 = 0
    flags: U32 = 0
    """As far as they can be set: IFA_F_NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN."""
    protocol: U8 = 0
    priority: U32 = 0
    """Of the route that the kernel makes for it (IFA_RT_PRIORITY)."""
    valid_until: Time | None = FOREVER
    preferred_until: Time | None = FOREVER


class Nexthop(Record):
    link: Name | None = None
    gateway: str | None = None
    """Of either family."""
    weight: Annotated[int, Field(ge=1, le=256)] = 1
    onlink: bool = False
    realms: U32 | None = None
    """For accounting: that of the source << 16 | that of the destination."""


class Route(Record):
    """A route. `type` is RTN_UNICAST, or one of WITHOUT_NEXTHOPS."""

    family: Family
    destination: str
    """Such as 10.0.0.0/8; 0.0.0.0/0 or ::/0 where others say default."""
    source: str | None = None
    tos: U8 = 0
    table: U32 = RT_TABLE_MAIN
    protocol: U8 = RTPROT_BOOT
    scope: U8 = 0
    type: U8 = RTN_UNICAST
    priority: U32 = 0
    nexthops: tuple[Nexthop, ...] = ()
    prefsrc: str | None = None
    realms: U32 | None = None
    """As those of a next hop, where it leads nowhere."""
    metrics: Mapping[str, int | str] = {}
    """By the names of RTAX_ in small letters: {"mtu": 1400}; `lock` is a mask of them."""
    pref: U8 | None = None
    valid_until: Time | None = FOREVER


class Rule(Record):
    """A rule. Its selectors are fib_rule_hdr's and the attributes FRA_ of these names."""

    family: Family
    priority: U32
    action: U8
    table: U32 | None = None
    goto: U32 | None = None
    realms: U32 | None = None
    invert: bool = False
    source: str | None = None
    destination: str | None = None
    tos: U8 = 0
    iifname: Name | None = None
    oifname: Name | None = None
    fwmark: U32 | None = None
    fwmask: U32 | None = None
    ip_proto: U8 | None = None
    sport_range: tuple[U16, U16] | None = None
    dport_range: tuple[U16, U16] | None = None
    uid_range: tuple[U32, U32] | None = None
    l3mdev: U8 | None = None
    tun_id: U64 | None = None
    suppress_prefixlen: U32 | None = None
    suppress_ifgroup: U32 | None = None
    protocol: U8 | None = None


class Neighbour(Record):
    """One that stays (NUD_PERMANENT); or an address that this host answers for (NTF_PROXY), which has no MAC."""

    link: Name
    family: Family
    address: str
    mac: Mac | None = None
    flags: U8 = 0
    """NTF_ROUTER, NTF_PROXY."""

    @model_validator(mode="after")
    def _has_a_mac(self) -> Self:
        if self.mac is None and not self.flags & NTF_PROXY:
            raise ValueError("it has no MAC")
        return self


class Vid(Record):
    """That a port, or a bridge itself, is in a VLAN (IFLA_BRIDGE_VLAN_INFO)."""

    link: Name
    vid: VlanId
    last: VlanId | None = None
    """It is for a range of them, this one included."""
    pvid: bool = False
    untagged: bool = False


class FdbEntry(Record):
    """A forwarding entry that somebody has set: of a bridge, at its port `link`; of a vxlan, with a `destination`."""

    link: Name
    mac: Mac
    state: U16
    """NUD_PERMANENT: the bridge's own; NUD_NOARP: static."""
    flags: U8
    """NTF_SELF or NTF_MASTER, NTF_EXT_LEARNED, NTF_STICKY."""
    vlan: U16 | None = None
    destination: str | None = None
    port: U16 | None = None
    vni: U32 | None = None
    src_vni: U32 | None = None
    via: Name | None = None


class LeftOut(Record):
    """What was selected, and isn't handed over. `link`: the link that it is, or that it is of."""

    what: str
    reason: str
    link: str | None = None

    @classmethod
    def refused(cls, what: str, error: ValidationError, link: str | None) -> Self:
        """What no model can be made of."""
        return cls(what=what, reason=f"it can't be written down: {_refusal(error)}", link=link)


class Snapshot(Record):
    """A network, or what is selected of one, as it was at some time. Each list is in the order of the kernel's dump."""

    version: int = VERSION
    taken: Time
    boot_id: str
    kernel: str
    handover: tuple[str, ...] = ()
    """The patterns that it was selected by; none: all that there was."""
    links: tuple[Link, ...] = ()
    vids: tuple[Vid, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    fdb: tuple[FdbEntry, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def encode(self) -> bytes:
        """As JSON, without what the kernel didn't tell."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises BadSnapshot."""
        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            raise BadSnapshot("it is no JSON") from None
        version = given.get("version") if isinstance(given, dict) else None
        if version != VERSION:
            raise BadSnapshot(f"it is of version {version!r}, and this luod reads version {VERSION}")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise BadSnapshot(_refusal(error)) from None


def _refusal(error: ValidationError) -> str:
    """The first thing that is wrong with a model, and where."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
