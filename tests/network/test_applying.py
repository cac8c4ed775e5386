"""A network set up again as it was: what ip(8) and bridge(8) show of it is the same, whatever was there before."""

import pytest
from pyroute2 import IPRoute

from luod.network.applying import apply, compare
from luod.network.model import Snapshot
from luod.network.reading import look

from .kinds import NETWORKS, commands
from .normal import picture


def taken(namespace):
    """What there is, as it comes over."""

    def seen():
        with IPRoute() as ip:
            return look(ip).snapshot

    snapshot = namespace(seen)
    return Snapshot.decode(snapshot.encode())


def set_up(namespace, lines):
    for line in lines:
        namespace.run(*line)


def applied(namespace, wanted, *, wait=0.0, leave=False):
    return namespace(apply, wanted, wait=wait, leave=leave)


@pytest.mark.parametrize("kind", NETWORKS)
def test_comes_back_as_it_was(kind, namespace, another):
    set_up(namespace, commands(kind))
    wanted = taken(namespace)
    assert wanted.left_out == ()
    report = applied(another, wanted)
    assert report.failed == ()
    assert report.left == ()
    assert picture(another) == picture(namespace)


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_equal_is_left_alone(kind, namespace):
    set_up(namespace, commands(kind))
    wanted = taken(namespace)
    plan = namespace(compare, wanted)
    assert (plan.steps, plan.impossible) == ((), ())
    before = picture(namespace)
    report = applied(namespace, wanted)
    assert picture(namespace) == before
    assert (report.done, report.failed, report.left) == (0, (), ())
    assert report.equal > 0


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_second_time_does_nothing(kind, namespace, another):
    set_up(namespace, commands(kind))
    wanted = taken(namespace)
    first = applied(another, wanted)
    before = picture(another)
    assert another(compare, wanted).steps == ()
    second = applied(another, wanted)
    assert picture(another) == before
    assert (second.done, second.failed) == (0, ())
    assert second.equal == first.equal + first.done
