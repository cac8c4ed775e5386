"""What there is in this network namespace, by rtnetlink(7): all of it that somebody has set, as models.

What the kernel tells, and what it makes by itself: net/core/rtnetlink.c, net/ipv4/devinet.c, net/ipv6/addrconf.c,
net/bridge/br_fdb.c.
"""

import gc
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute

from luod.network.model import LeftOut, Record, Snapshot
from luod.network.reading.addresses import Addresses
from luod.network.reading.links import Links
from luod.network.reading.messages import lean
from luod.network.reading.neighbours import fdb, neighbours
from luod.network.reading.routes import routes
from luod.network.reading.rules import rules
from luod.network.reading.vlans import vids

_T = TypeVar("_T", bound=Record)


@dataclass(frozen=True)
class Look:
    """What there is, and the numbers that links have now, by their names: also of those that are left out."""

    snapshot: Snapshot
    numbers: dict[str, int]


def look(ip: IPRoute, sysfs: Path = Path("/sys")) -> Look:
    """Look at everything. Raises OSError where the kernel doesn't answer."""
    with lean(ip), _uncollected():
        taken = time.time()
        left_out: list[LeftOut] = []

        def carried(things: Iterable[_T | LeftOut]) -> Iterator[_T]:
            for thing in things:
                if isinstance(thing, LeftOut):
                    left_out.append(thing)
                else:
                    yield thing

        links = Links(ip, sysfs)
        addresses = Addresses(ip, links, taken)
        snapshot = Snapshot(
            taken=taken,
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            kernel=os.uname().release,
            links=tuple(carried(links.read())),
            vids=tuple(carried(vids(ip, links))),
            addresses=tuple(carried(addresses.read())),
            routes=tuple(carried(routes(ip, links, addresses.prefixes, taken))),
            rules=tuple(carried(rules(ip))),
            neighbours=tuple(carried(neighbours(ip, links))),
            fdb=tuple(carried(fdb(ip, links))),
        )
        return Look(snapshot.model_copy(update={"left_out": tuple(left_out)}), links.numbers())


def everything() -> Snapshot:
    """All of the network namespace of this thread. Raises OSError where the kernel doesn't answer."""
    with IPRoute() as ip:
        return look(ip).snapshot


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's garbage collector: the more there is that all lasts, the more it looks at, again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
