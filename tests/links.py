"""Links as they are written down, for tests that are about something else of them."""

from luod.network.model import Link


def a_link(name, kind="dummy", **fields):
    return Link(**{"name": name, "kind": kind, "mtu": 1500, "up": True, **fields})
