"""The VLANs that ports, and bridges themselves, are in."""

from collections.abc import Iterator
from socket import AF_BRIDGE

from pyroute2 import IPRoute

from luod.network.abi import (
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_RANGE_BEGIN,
    BRIDGE_VLAN_INFO_RANGE_END,
    BRIDGE_VLAN_INFO_UNTAGGED,
    RTEXT_FILTER_BRVLAN_COMPRESSED,
)
from luod.network.model import LeftOut, Vid
from luod.network.reading.links import Links
from luod.network.reading.messages import Told, dump


def vids(ip: IPRoute, links: Links) -> Iterator[Vid | LeftOut]:
    if not links.has("bridge"):
        return
    for message in dump(ip.link, family=AF_BRIDGE, ext_mask=RTEXT_FILTER_BRVLAN_COMPRESSED):
        link = links.name(message["index"])
        if link is None:
            continue
        first = None
        spec = Told(message).nested("IFLA_AF_SPEC")
        if "IFLA_BRIDGE_VLAN_TUNNEL_INFO" in spec:
            yield LeftOut(what=f"tunnels of VLANs of {link}", reason="they aren't handed over", link=link)
        for info in spec.all("IFLA_BRIDGE_VLAN_INFO"):
            vid, flags = info["vid"], info["flags"]
            if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN:
                first = vid
                continue
            pvid, untagged = bool(flags & BRIDGE_VLAN_INFO_PVID), bool(flags & BRIDGE_VLAN_INFO_UNTAGGED)
            begin = first if first is not None and flags & BRIDGE_VLAN_INFO_RANGE_END else vid
            first = None
            last = vid if begin < vid else None
            yield Vid(link=link, vid=begin, last=last, pvid=pvid, untagged=untagged)
