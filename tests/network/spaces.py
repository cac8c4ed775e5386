"""Network namespaces that last for a test, and what the kernel has for one."""

import ctypes
import functools
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
_CAPABILITIES = 0x20080522
"""The version of what capset(2) is given."""

os.environ["PATH"] += ":/usr/sbin:/sbin"

_libc = ctypes.CDLL(None, use_errno=True)


def _leave():
    if _libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def give_up_capabilities():
    """Those of this thread."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Namespace:
    """A thread in a network namespace of its own, which goes with it. Calling this runs a function there."""

    def __init__(self):
        if os.geteuid() != 0:
            pytest.skip("a network namespace takes root")
        if not (shutil.which("ip") and shutil.which("bridge")):
            pytest.skip("not installed: iproute2 (make vm-deps)")
        self._thread = ThreadPoolExecutor(1)
        try:
            self(_leave)
        except PermissionError:
            self._thread.shutdown()
            pytest.skip("no network namespace can be made here")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._thread.shutdown()

    def __call__(self, function, *args, **kwargs):
        return self._thread.submit(function, *args, **kwargs).result()

    def run(self, *command):
        """Run a command, which must succeed; its output."""
        ran = self(subprocess.run, command, capture_output=True, text=True)
        assert ran.returncode == 0, f"{command}: {ran.stderr}{ran.stdout}"
        return ran.stdout

    def do(self, *lines):
        """Run commands, each a line of words."""
        for line in lines:
            self.run(*line.split())

    def configure(self, name, value):
        """Set what sysctl(8) would."""
        self(Path("/proc/sys", *name.split(".")).write_text, str(value))

    def has(self, *command):
        """Whether a command succeeds."""
        return self(subprocess.run, command, capture_output=True).returncode == 0

    def ip(self, *args):
        """What `ip -j -d` says."""
        return json.loads(self.run("ip", "-j", "-d", *args) or "[]")

    def bridge(self, *args):
        """What `bridge -j -d` says; nothing where the kernel lacks it."""
        ran = self(subprocess.run, ["bridge", "-j", "-d", *args], capture_output=True, text=True)
        if "Operation not supported" in ran.stderr:
            return []
        assert ran.returncode == 0, f"bridge {' '.join(args)}: {ran.stderr}"
        return json.loads(ran.stdout or "[]")


_MADE_BY = {
    "dummy": ["ip link add new type dummy"],
    "bridge": ["ip link add new type bridge"],
    "veth": ["ip link add new type veth peer name peer"],
    "tun": ["ip tuntap add new mode tap"],
    "bond": ["ip link add new type bond"],
    "vlan": ["ip link add low type veth", "ip link add new link low type vlan id 2"],
    "macvlan": ["ip link add low type veth", "ip link add new link low type macvlan"],
    "vxlan": ["ip link add new type vxlan id 2 dstport 4789"],
    "ifb": ["ip link add new type ifb"],
    "vlan filtering": ["ip link add new type bridge vlan_filtering 1"],
    "multipath": [
        "ip link set lo up",
        "ip route add 10.0.0.0/8 nexthop dev lo weight 1 nexthop dev lo weight 2",
    ],
    "the metric of an address": ["ip link set lo up", "ip address add 10.0.0.1/24 dev lo metric 5"],
    "nexthop objects": ["ip link set lo up", "ip nexthop add id 1 dev lo"],
    "IPv6 subtrees": ["ip link set lo up", "ip route add fd00::/8 from fd01::/16 dev lo"],
    "limits of bridges": [
        "ip link add new type bridge fdb_max_learned 5",
        "ip link add port type veth",
        "ip link set port master new",
        "bridge link set dev port mcast_max_groups 9 neigh_vlan_suppress on",
    ],
    "local bypass": ["ip link add new type vxlan id 2 dstport 4789 nolocalbypass"],
    "options of bridges": ["ip link add new type bridge no_linklocal_learn 1"],
    "parts of a port": ["ip rule add sport 0x100/0xff00 table 7"],
    "realms": ["test -e /proc/net/rt_acct"],
    "lightweight tunnels": [
        "ip link set lo up",
        "ip route add 10.0.0.0/8 encap ip id 3 dst 192.0.2.1 dev lo",
    ],
}


@functools.cache
def supports(kind):
    """Whether this kernel has a type of link, or what else is in the table."""
    with Namespace() as namespace:
        return all(namespace.has(*command.split()) for command in _MADE_BY[kind])


def need(*kinds):
    """Skip where the kernel lacks one."""
    for kind in kinds:
        if not supports(kind):
            pytest.skip(f"this kernel lacks {kind}")
