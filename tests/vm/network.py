"""A network in a virtual machine, and who is at the other ends of its wires."""

import json
from contextlib import ExitStack, contextmanager
from itertools import pairwise

from luod.systemd import NETWORK_SERVICE, SNAPSHOT_SERVICE
from vm import systemd
from vm.guest import services
from vm.rootfs import NETWORKD, UDEV
from vm.wire import Ping, Wire

WAN, LAN = "52:54:00:00:01:00", "52:54:00:00:02:00"
"""The MACs of the two cards: one with addresses and default routes, and one that is a port of a bridge."""

HANDOVER = ("wan", "lan", "br0*", "tap0")
"""What is all of it."""

LACP = "bond0"
"""A bond in the one that is made by hand: whom it is to others, the kernel doesn't tell everybody."""

USER, OWNER = 1001, "owner"
"""Whose the tap is."""

UNITS = (NETWORK_SERVICE, SNAPSHOT_SERVICE)
FILES, CONF = "/etc/systemd/network", "/etc/systemd/networkd.conf.d"
WAIT_ONLINE = "/usr/lib/systemd/systemd-networkd-wait-online"

CMDLINE = "bonding.max_bonds=0 dummy.numdummies=0"
"""Has the kernel make no links of its own."""

BY_HAND = f"""
ip link set eth0 name wan
ip link set eth1 name lan
ip link property add dev lan altname trunk
ip link set wan up alias uplink
ip address add 10.0.0.1/24 dev wan
ip address add fd00::1/64 dev wan nodad
ip route add default via 10.0.0.254
ip route add default via fd00::fe

ip link add br0 address 52:54:00:00:02:ff type bridge vlan_filtering 1 ageing_time 20000
ip link set lan master br0 up
ip link set br0 up
bridge vlan add dev lan vid 5
bridge vlan add dev br0 vid 5 self
ip address add 10.1.0.1/24 dev br0
ip address add fd01::1/64 dev br0 nodad
ip link add link br0 name br0.5 mtu 1400 type vlan id 5
ip link set br0.5 up
ip address add 10.5.0.1/24 dev br0.5
ip address add fd05::1/64 dev br0.5 nodad

ip tuntap add tap0 mode tap user {USER} multi_queue
ip link set tap0 master br0 up
bridge vlan add dev tap0 vid 5 pvid untagged
bridge vlan del dev tap0 vid 1
bridge link set dev tap0 isolated on learning off
bridge fdb add 52:54:00:00:05:05 dev tap0 master static vlan 5

ip link add {LACP} type bond mode 802.3ad ad_actor_system 52:54:00:00:03:00 ad_actor_sys_prio 7

ip neighbour add 10.5.0.9 lladdr 52:54:00:00:05:09 dev br0.5 nud permanent
ip rule add from 10.5.0.0/24 table 100 priority 1000
ip -6 rule add from fd05::/64 table 100 priority 1000
ip route add default via 10.5.0.2 table 100
ip route add default via fd05::2 table 100
ip route add blackhole 10.66.0.0/16
ip route add 10.7.0.0/16 mtu 1300 nexthop via 10.0.0.253 weight 2 nexthop via 10.1.0.2
"""

BY_NETWORKD = {
    "10-wan.link": f"""
[Match]
PermanentMACAddress={WAN}
[Link]
Name=wan
Alias=uplink
""",
    "10-lan.link": f"""
[Match]
PermanentMACAddress={LAN}
[Link]
Name=lan
AlternativeName=trunk
""",
    "wan.network": """
[Match]
Name=wan
[Network]
IPv6AcceptRA=no
Address=10.0.0.1/24
Address=fd00::1/64
Gateway=10.0.0.254
Gateway=fd00::fe
[Route]
Destination=10.66.0.0/16
Type=blackhole
[Route]
Destination=10.7.0.0/16
MultiPathRoute=10.0.0.253@wan 2
MultiPathRoute=10.1.0.2@br0 1
""",
    "br0.netdev": """
[NetDev]
Name=br0
Kind=bridge
MACAddress=52:54:00:00:02:ff
[Bridge]
VLANFiltering=yes
AgeingTimeSec=200
""",
    "br0.5.netdev": """
[NetDev]
Name=br0.5
Kind=vlan
MTUBytes=1400
[VLAN]
Id=5
""",
    "tap0.netdev": f"""
[NetDev]
Name=tap0
Kind=tap
[Tap]
MultiQueue=yes
User={OWNER}
""",
    "lan.network": """
[Match]
Name=lan
[Network]
Bridge=br0
[BridgeVLAN]
VLAN=1
PVID=1
EgressUntagged=1
[BridgeVLAN]
VLAN=5
""",
    "br0.network": """
[Match]
Name=br0
[Network]
IPv6AcceptRA=no
VLAN=br0.5
Address=10.1.0.1/24
Address=fd01::1/64
[BridgeVLAN]
VLAN=1
PVID=1
EgressUntagged=1
[BridgeVLAN]
VLAN=5
""",
    "br0.5.network": """
[Match]
Name=br0.5
[Network]
IPv6AcceptRA=no
Address=10.5.0.1/24
Address=fd05::1/64
[Neighbor]
Address=10.5.0.9
LinkLayerAddress=52:54:00:00:05:09
[RoutingPolicyRule]
From=10.5.0.0/24
Table=100
Priority=1000
[RoutingPolicyRule]
From=fd05::/64
Table=100
Priority=1000
[Route]
Gateway=10.5.0.2
Table=100
[Route]
Gateway=fd05::2
Table=100
""",
    "tap0.network": """
[Match]
Name=tap0
[Network]
Bridge=br0
[Bridge]
Isolated=yes
Learning=no
[BridgeVLAN]
PVID=5
EgressUntagged=5
[BridgeFDB]
MACAddress=52:54:00:00:05:05
VLANId=5
AssociatedWith=master
""",
}
"""The same by systemd-networkd, in /etc/systemd/network."""


LATER = """
ip address add 10.0.0.77/24 dev wan
ip address add fd00::77/64 dev wan nodad
ip route add 10.77.0.0/16 via 10.0.0.254
ip route add fd77::/64 via fd00::fe
ip rule add from 10.77.0.0/16 table 77 priority 2000
ip neighbour add 10.5.0.19 lladdr 52:54:00:00:05:19 dev br0.5 nud permanent
bridge fdb add 52:54:00:00:05:06 dev tap0 master static vlan 5
bridge vlan add dev lan vid 7
"""
"""What others have added, and networkd knows nothing of."""

KEEP = "[Network]\nKeepConfiguration=yes\n"


class Around:
    """Who asks the machine: `pings`, each named by what it takes to be answered."""

    def __init__(self, wan, lan):
        self.wires = wan, lan
        gateway = wan.station("52:54:00:00:00:01", "10.0.0.254", "fd00::fe")
        neighbour = lan.station("52:54:00:00:00:02", "10.1.0.2", "fd01::2")
        tagged = lan.station("52:54:00:00:00:05", "10.5.0.2", "fd05::2", vlan=5)
        self.pings = {
            "card, IPv4": Ping(gateway, "10.0.0.1"),
            "card, IPv6": Ping(gateway, "fd00::1"),
            "default route, IPv4": Ping(gateway, "10.0.0.1", "192.0.2.9"),
            "default route, IPv6": Ping(gateway, "fd00::1", "2001:db8::9"),
            "bridge, IPv4": Ping(neighbour, "10.1.0.1"),
            "bridge, IPv6": Ping(neighbour, "fd01::1"),
            "VLAN, IPv4": Ping(tagged, "10.5.0.1"),
            "VLAN, IPv6": Ping(tagged, "fd05::1"),
            "rule and VLAN, IPv4": Ping(tagged, "10.5.0.1", "192.0.2.5"),
            "rule and VLAN, IPv6": Ping(tagged, "fd05::1", "2001:db8::5"),
        }

    def on(self, wire):
        return [ping for ping in self.pings.values() if ping.station in wire.stations]

    def reach_it(self, *, card=None):
        """Whatever is asked is answered, or what is asked of one card."""
        for wire in self.wires:
            if card in (None, wire.card):
                wire.answered(*self.on(wire))

    def silences(self, during):
        """The longest time without an answer while something is done: its begin and its end, by name."""
        with self.watch() as answers:
            self.reach_it()
            during()
            self.reach_it()
        return {name: max(pairwise(times), key=_length) for name, times in answers.items()}

    @contextmanager
    def watch(self):
        """Ask all the time. When what was answered, by name."""
        with ExitStack() as stack:
            watches = [stack.enter_context(wire.watch(*self.on(wire))) for wire in self.wires]
            answers = {ping: times for watch in watches for ping, times in watch.answers.items()}
            yield {name: answers[ping] for name, ping in self.pings.items()}


def _length(time):
    began, ended = time
    return ended - began


@contextmanager
def around():
    """Two wires for a machine's cards, and who is on them."""
    with Wire(WAN) as wan, Wire(LAN) as lan:
        yield Around(wan, lan)


def configure(vm, handover=HANDOVER):
    """Have these go over; luod reads it when it starts, or reloads."""
    text = f"[network]\nhandover = {json.dumps(handover)}\nwait_seconds = 60\n"
    vm.call(services.write, path="/etc/luod/luod.toml", text=text)


def install(vm):
    """Have systemd start luod, and whatever hands the network over."""
    systemd.install(vm)
    vm.run("systemctl", "enable", "--now", *UNITS)


def drop_in(vm, text):
    """Have this besides in the unit that writes the network down."""
    vm.call(services.write, path=f"/run/systemd/system/{SNAPSHOT_SERVICE}.d/test.conf", text=text)
    vm.run("systemctl", "daemon-reload")


def run_networkd(vm):
    """Have udev and networkd, now and in each boot, see to the network."""
    vm.run("sh", "-c", f"echo {OWNER}:x:{USER}:{USER}::/:/bin/false >>/etc/passwd")
    for name, text in BY_NETWORKD.items():
        vm.call(services.write, path=f"{FILES}/{name}", text=text)
    vm.run("systemctl", "unmask", *NETWORKD, *UDEV)
    vm.run("systemctl", "enable", NETWORKD[0])
    vm.run("systemctl", "start", "systemd-udevd.service", "systemd-udev-trigger.service", NETWORKD[0])


def keep(vm):
    """Have networkd keep what it hasn't set itself."""
    vm.run("sh", "-ec", f"mkdir -p {CONF}; cp /opt/luod/systemd/networkd.conf.d/50-luod.conf {CONF}")
    for name in BY_NETWORKD:
        if name.endswith(".network"):
            vm.call(services.write, path=f"{FILES}/{name}.d/keep.conf", text=KEEP)


def keep_nothing(vm):
    vm.run("sh", "-ec", f"rm -r {CONF} {FILES}/*.network.d")


def forget(vm):
    """Have networkd start anew, with what is there and no memory of it."""
    vm.run("systemctl", "stop", *NETWORKD)
    vm.run("rm", "-r", "/run/systemd/netif")
    vm.run("systemctl", "start", NETWORKD[0])


def settled(vm):
    """Wait until networkd has done all that it does."""
    vm.run(WAIT_ONLINE, "--interface=wan", "--interface=lan:enslaved", "--interface=br0", "--interface=br0.5")
