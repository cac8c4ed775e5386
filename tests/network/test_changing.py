"""One step at a time: what the kernel is told, and what it refuses."""

import pytest
from pyroute2 import IPRoute

from luod.network.changing import Changer, Refused
from luod.network.model import Link, Tun, Veth
from luod.network.reading import look
from luod.network.steps import Action, Change, Phase, Step

from .normal import links
from .spaces import need
from .steps import applied, lacks, taken


@pytest.fixture
def veth(namespace):
    need("veth")
    namespace.do("ip link add old type veth peer name other")
    return Link(name="new", kind="veth", mtu=1500, up=True, settings=Veth(peer="other"))


def change(namespace, wanted, step):
    """Do it, to a link that is there under the name that the step says."""

    def do():
        with IPRoute(ext_ack=True) as ip:
            seen = look(ip)
            numbers = {} if step.action is Action.ADD else {wanted.name: seen.numbers[step.there]}
            Changer(ip, seen.snapshot, numbers).do(step)

    namespace(do)


def a_renaming(link, before="old"):
    return Step(Action.SET, link, (Change("name", before, link.name),), before, Phase.RENAME)


@pytest.mark.parametrize("state", ["up", "down"])
def test_a_link_is_renamed(state, veth, namespace):
    namespace.do(f"ip link set old {state}")
    change(namespace, veth, a_renaming(veth))
    (link,) = namespace.ip("link", "show", "new")
    assert ("UP" in link["flags"]) is (state == "up")


def test_a_link_is_renamed_to_another_name_of_its_own(veth, namespace):
    namespace.do("ip link property add dev old altname new altname second")
    change(namespace, veth, a_renaming(veth))
    (link,) = namespace.ip("link", "show", "second")
    assert (link["ifname"], link["altnames"]) == ("new", ["second"])


def test_a_name_that_is_taken_is_refused(veth, namespace):
    namespace.do("ip link add new type veth peer name another")
    with pytest.raises(Refused):
        change(namespace, veth, a_renaming(veth))
    assert namespace.ip("link", "show", "old")


def test_each_other_name_that_is_refused_is_told_of(veth, namespace):
    namespace.do("ip link property add dev other altname taken")
    veth = veth.model_copy(update={"name": "old"})
    altnames = Change("altnames", (), ("free", "taken", "also-free"))
    step = Step(Action.SET, veth, (Change("alias", None, "mine"), altnames), "old", Phase.NAMES)
    with pytest.raises(Refused, match=r"^altname taken: "):
        change(namespace, veth, step)
    (link,) = namespace.ip("link", "show", "old")
    assert (link["ifalias"], sorted(link["altnames"])) == ("mine", ["also-free", "free"])


def test_a_tap_gets_the_owner_that_it_had(namespace, another):
    need("tun")
    namespace.do("ip tuntap add tap0 mode tap user 1000 group 1001", "ip link set tap0 address 02:00:00:00:00:01")
    another.do("ip tuntap add tap0 mode tap user 7")
    wanted = taken(namespace)
    assert applied(another, wanted).failed == ()
    assert lacks(another, wanted) == []
    assert links(another) == links(namespace)


def test_a_tap_without_its_device_is_refused(namespace, monkeypatch):
    monkeypatch.setattr("luod.network.changing.taps.DEVICE", "/dev/net/nothing")
    tap = Link(name="tap0", kind="tun", mtu=1500, up=True, settings=Tun(type=2))
    with pytest.raises(Refused, match=r"^/dev/net/nothing: No such file or directory$"):
        change(namespace, tap, Step(Action.ADD, tap))
