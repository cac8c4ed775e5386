"""Networks of any shape come back as they were, from nothing and from any part of them."""

import pytest

from .normal import pictures
from .spaces import Namespace, supports
from .steps import applied, lacks, taken

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

BASES = ("veth", "dummy", "tun")
FEW = hypothesis.settings(
    deadline=None, max_examples=12, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)


class Topology:
    """A network as it comes about: the commands that set it up, of which each can be drawn."""

    def __init__(self, draw):
        self.draw = draw
        self.lines = ["ip link set lo up"]
        self.links = []
        self.free = []
        """Those that can be a port."""
        self.up = set()

    def one_of(self, things):
        return self.draw(st.sampled_from(sorted(things)))

    def maybe(self):
        return self.draw(st.booleans())

    def number(self, least, most):
        return self.draw(st.integers(least, most))

    def do(self, line):
        self.lines.append(line)

    def named(self, prefix):
        name = f"{prefix}{len(self.links)}"
        self.links.append(name)
        return name

    def base(self):
        kind = self.one_of(kind for kind in BASES if supports(kind))
        name = self.named(kind)
        if kind == "veth":
            self.do(f"ip link add {name} type veth peer name peer{name}")
            self.links.append(f"peer{name}")
        elif kind == "tun":
            self.do(f"ip tuntap add {name} mode tap" + (" multi_queue" if self.maybe() else ""))
        else:
            self.do(f"ip link add {name} type dummy")
        self.free.append(name)

    def bridge(self):
        name = self.named("br")
        filters = supports("vlan filtering") and self.maybe()
        self.do(f"ip link add {name} address 02:00:00:00:01:{len(self.links):02x} type bridge")
        self.do(f"ip link set {name} type bridge ageing_time {self.number(1000, 9000)} priority {self.number(0, 9)}")
        if filters:
            self.do(f"ip link set {name} type bridge vlan_filtering 1 vlan_default_pvid {self.number(0, 3)}")
        for port in self.ports():
            self.do(f"ip link set {port} master {name}")
            self.do(f"bridge link set dev {port} cost {self.number(1, 99)} isolated {self.one_of(['on', 'off'])}")
            if filters:
                first = self.number(1, 50)
                self.do(f"bridge vlan add dev {port} vid {first}-{first + self.number(1, 50)}")
                self.do(f"bridge vlan add dev {port} vid {self.number(1, 99)} pvid untagged")

    def ports(self):
        ports = [port for port in self.free if self.maybe()]
        self.free = [port for port in self.free if port not in ports]
        return ports

    def bond(self):
        if not supports("bond"):
            return
        name = self.named("bond")
        mode = self.one_of(["active-backup", "802.3ad", "balance-rr"])
        self.do(f"ip link add {name} address 02:00:00:00:02:{len(self.links):02x} type bond mode {mode} miimon 100")
        for port in self.ports():
            if not port.startswith("tun"):
                self.do(f"ip link set {port} master {name}")
        self.free.append(name)

    def vlan(self):
        if supports("vlan") and self.links:
            name = self.named("vlan")
            self.do(f"ip link add link {self.one_of(self.links[:-1])} {name} type vlan id {self.number(1, 4094)}")
            self.free.append(name)

    def macvlan(self):
        if supports("macvlan") and self.free:
            lower, name = self.one_of(self.free), self.named("mac")
            self.do(f"ip link add link {lower} {name} type macvlan mode {self.one_of(['bridge', 'vepa', 'private'])}")

    def vxlan(self):
        if supports("vxlan"):
            name = self.named("vx")
            number = len(self.links)
            self.do(f"ip link add {name} type vxlan id {number} dstport {5000 + number}")
            for _ in range(self.number(0, 2)):
                self.do(f"bridge fdb append 00:00:00:00:00:00 dev {name} dst 10.200.0.{self.number(1, 250)}")
            self.free.append(name)

    def settings(self):
        """Of each link; those below first, so that none comes up before what it stands on."""
        for number, name in enumerate(self.links):
            if self.maybe():
                self.do(f"ip link set {name} mtu {1400 - number} alias {name}s txqueuelen {self.number(1, 2000)}")
            if self.maybe():
                self.do(f"ip link set {name} group {self.number(1, 9)} allmulticast on")
            if number < 3 or self.maybe():
                self.do(f"ip link set {name} up")
                self.up.add(name)

    def tables(self):
        for number, name in enumerate(self.links):
            if not self.maybe():
                continue
            self.do(f"ip address add 10.{number}.0.{self.number(1, 9)}/24 dev {name}")
            self.do(f"ip address add fd00:{number}::{self.number(1, 9)}/64 dev {name} nodad")
            if self.maybe():
                self.do(f"ip neighbour add 10.{number}.0.77 lladdr 02:00:00:00:00:07 dev {name}")
            if name in self.up:
                table = self.one_of([100, 254, 1000])
                self.do(f"ip route add 10.1{number:02}.0.0/16 via 10.{number}.0.254 dev {name} table {table}")
                self.do(f"ip route add fd01:{number}::/64 via fd00:{number}::fe dev {name} metric {self.number(1, 99)}")
            self.do(f"ip rule add from 10.{number}.0.0/16 lookup 100 priority {1000 + number}")

    def drawn(self):
        for _ in range(self.number(1, 3)):
            self.base()
        for more in (self.bridge, self.bond, self.vlan, self.macvlan, self.vxlan, self.bridge):
            if self.maybe():
                more()
        self.settings()
        self.tables()
        return [line.split() for line in self.lines]


@st.composite
def topologies(draw):
    return Topology(draw).drawn()


def set_up(namespace, lines):
    """What fits together of it: a drawn line may be refused."""
    return [line for line in lines if namespace.has(*line)]


@FEW
@hypothesis.given(topologies())
def test_any_network_comes_back_from_nothing(lines):
    with Namespace() as namespace, Namespace() as another:
        set_up(namespace, lines)
        wanted = taken(namespace)
        report = applied(another, wanted)
        assert (report.failed, report.left) == ((), ())
        assert lacks(another, wanted) == []
        restored, before = pictures(another, namespace)
        assert restored == before


@FEW
@hypothesis.given(topologies(), st.data())
def test_any_network_comes_back_from_any_part_of_it(lines, data):
    with Namespace() as namespace, Namespace() as another:
        done = set_up(namespace, lines)
        wanted = taken(namespace)
        set_up(another, [line for line in done if data.draw(st.booleans())])
        report = applied(another, wanted)
        assert (report.failed, report.left) == ((), ())
        assert lacks(another, wanted) == []
