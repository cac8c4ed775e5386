"""What tests do with a network: take it, and set it up again."""

from pyroute2 import IPRoute

from luod.network.applying import apply, compare
from luod.network.model import Snapshot
from luod.network.reading import look
from luod.network.words import said


def taken(namespace):
    """What there is, as it comes over."""

    def seen():
        with IPRoute() as ip:
            return look(ip).snapshot

    snapshot = namespace(seen)
    return Snapshot.decode(snapshot.encode())


def applied(namespace, wanted, *, wait=0.0, leave=False):
    return namespace(apply, wanted, wait=wait, leave=leave)


def lacks(namespace, wanted):
    """What there still is to do."""
    plan = namespace(compare, wanted)
    return [(said(step.thing), step.action, step.changes) for step in plan.steps] + list(plan.impossible)
