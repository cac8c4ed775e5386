"""The neighbours and the forwarding entries that somebody has set, and that stay."""

from collections.abc import Iterator
from socket import AF_BRIDGE, AF_UNSPEC
from typing import Final

from pydantic import ValidationError
from pyroute2 import IPRoute

from luod.network.abi import (
    NTF_EXT_LEARNED,
    NTF_MASTER,
    NTF_OFFLOADED,
    NTF_PROXY,
    NTF_ROUTER,
    NTF_SELF,
    NTF_STICKY,
    NUD_NOARP,
    NUD_PERMANENT,
)
from luod.network.model import FdbEntry, LeftOut, Neighbour
from luod.network.reading.links import Links
from luod.network.reading.messages import FAMILIES, Told, dump

_NO_MAC: Final = "00:00:00:00:00:00"
_SETTABLE: Final = NTF_SELF | NTF_MASTER | NTF_EXT_LEARNED | NTF_STICKY


def neighbours(ip: IPRoute, links: Links) -> Iterator[Neighbour | LeftOut]:
    for message in (*dump(ip.neigh, family=AF_UNSPEC), *dump(ip.neigh, family=AF_UNSPEC, flags=NTF_PROXY)):
        family, link = FAMILIES.get(message["family"]), links.name(message["ifindex"])
        if family is None or link is None:
            continue
        told, flags = Told(message), message["flags"] & (NTF_ROUTER | NTF_PROXY)
        address, mac = told("NDA_DST"), told("NDA_LLADDR")
        if flags & NTF_PROXY or (message["state"] & NUD_PERMANENT and mac):
            try:
                yield Neighbour(link=link, family=family, address=address, mac=mac, flags=flags)
            except ValidationError as error:
                yield LeftOut.refused(f"neighbour {address} dev {link}", error, link)


def fdb(ip: IPRoute, links: Links) -> Iterator[FdbEntry | LeftOut]:
    if not links.has("bridge", "vxlan"):
        return
    for message in dump(ip.neigh, family=AF_BRIDGE):
        number, state, flags = message["ifindex"], message["state"], message["flags"]
        name = links.name(number)
        if name is None or not (state & (NUD_PERMANENT | NUD_NOARP) or flags & NTF_EXT_LEARNED):
            continue
        link, told = links[number], Told(message)
        if flags & NTF_OFFLOADED or (flags & NTF_SELF and link.kind != "vxlan"):
            continue
        mac, destination, via = told("NDA_LLADDR"), told("NDA_DST"), told("NDA_IFINDEX")
        if "NDA_NH_ID" in told:
            yield LeftOut(what=f"fdb {mac} dev {name}", reason="next hop objects aren't handed over", link=name)
            continue
        if via and links.name(via) is None:
            continue
        if flags & NTF_SELF:
            if mac == _NO_MAC and destination == link.default_destination:
                continue
        else:
            master = told("NDA_MASTER")
            if links.name(master) is None or (state & NUD_PERMANENT and mac in {link.mac, links[master].mac}):
                continue
            flags |= NTF_SELF if number == master else NTF_MASTER
        yield FdbEntry(
            link=name,
            mac=mac,
            state=state,
            flags=flags & _SETTABLE,
            vlan=told("NDA_VLAN"),
            destination=destination,
            port=told("NDA_PORT"),
            vni=told("NDA_VNI"),
            src_vni=told("NDA_SRC_VNI"),
            via=links.name(via),
        )
