"""luoctl hands a network over: from one network namespace, by way of a simulated kernel, into another."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from luod.client import connect
from luod.names import NETWORK_SESSIONS
from memory import memfd
from running import luod_running

from .spaces import Namespace, need, supports

A, B = NETWORK_SESSIONS
MAC = "02:00:00:00:00:07"
SETUP = f"""
link add br0 address {MAC} type bridge
link add v0 type veth peer name v1
link set v0 master br0
link set br0 up
link set v0 up
link set v1 up
address add 192.0.2.1/24 dev br0
address add fd00::1/64 dev br0 nodad
route add 198.51.100.0/24 via 192.0.2.9
rule add priority 1000 from 192.0.2.0/24 lookup 100
neighbour add 192.0.2.9 lladdr {MAC} dev br0
"""


class Host:
    """A simulated machine: luod, and a network namespace that is another one in the next kernel."""

    def __init__(self, sim, directory):
        self._sim, self._directory = sim, directory
        self._running, self._there = ExitStack(), ExitStack()
        self.boot()

    def boot(self):
        self.socket = self._running.enter_context(luod_running(self._sim.path, self._directory))
        self.network = self._there.enter_context(Namespace())

    def live_update(self):
        self._sim.kexec()
        self.stop()
        self.boot()

    def stop(self):
        self._running.close()
        self._there.close()

    def luoctl(self, *words, **environment):
        command = [sys.executable, "-m", "luod.ctl", "--socket", self.socket, *words]
        ran = self.network(
            subprocess.run, command, capture_output=True, text=True, check=False, env=os.environ | environment
        )
        return ran

    def says(self, *words):
        """What luoctl network prints, where it succeeds."""
        ran = self.luoctl("network", *words, "--runtime-directory", str(self._directory))
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    def fails(self, *words):
        """What luoctl network prints, where it fails, and why."""
        ran = self.luoctl("network", *words, "--runtime-directory", str(self._directory))
        assert ran.returncode == 1, ran.stdout + ran.stderr
        return ran.stdout, ran.stderr

    def held(self):
        with connect(self.socket) as luod:
            return [session.name for session in luod.list()]

    def status(self):
        with connect(self.socket) as luod:
            return luod.status()

    def set_up(self, text=SETUP):
        for line in text.strip().splitlines():
            self.network.run("ip", *line.split())


@pytest.fixture
def host(sim, tmp_path):
    need("bridge", "veth")
    host = Host(sim, tmp_path / "luod")
    yield host
    host.stop()


def test_a_network_goes_over_and_is_set_up_again(host):
    host.set_up()
    said = host.says("snapshot", "br0", "v0", "nothing*")
    assert said.startswith("written down: 3 links, ")
    assert f"in session {A}\n" in said
    assert "left out: links nothing*: no link has such a name\n" in said
    host.live_update()
    assert host.status().network is None
    assert "+ link br0 type bridge\n" in host.says("apply", "--dry-run")
    assert host.network.ip("link", "show", "type", "bridge") == []
    said = host.says("apply")
    assert " set up in " in said
    assert "failed" not in said
    (br0,) = host.network.ip("address", "show", "dev", "br0")
    assert br0["address"] == MAC
    assert {"192.0.2.1", "fd00::1"} <= {address["local"] for address in br0["addr_info"]}
    assert host.held() == []
    told = host.status().network
    assert (told["failed"], told["left"]) == (0, 0)
    assert told["done"] == 8 + 2 * supports("vlan filtering")  # the VLAN that the bridge and its port are in then
    assert host.says("apply") == "nothing of the network came over\n"


def test_what_is_there_already_is_left(host):
    host.set_up()
    host.says("snapshot", "br0")
    host.live_update()
    host.set_up()
    assert host.says("apply", "--dry-run").startswith("nothing differs: ")
    host.says("apply")
    assert host.status().network["done"] == 0


def test_what_differs_is_told_like_a_diff(host):
    host.set_up()
    host.says("snapshot", "br0")
    host.live_update()
    host.set_up(f"link add br0 mtu 1400 address {MAC} type bridge\nlink set br0 up")
    said = host.says("apply", "--dry-run")
    assert "~ link br0 type bridge: " in said
    assert "mtu 1400, not 1500" in said
    assert "+ address 192.0.2.1/24 dev br0\n" in said
    steps = json.loads(host.says("apply", "--dry-run", "--json"))["steps"]
    (of_br0,) = (step for step in steps if step["what"] == "link br0 type bridge")
    assert {"field": "mtu", "before": 1400, "after": 1500} in of_br0["changes"]
    said = host.says("apply", "--differing", "leave")
    assert "left as it is: link br0 type bridge: " in said
    assert host.status().network["left"] == 1


def test_what_fails_stays_and_can_be_applied_again(host):
    host.set_up()
    host.says("snapshot", "br0")
    host.live_update()
    host.set_up("link add br0 type veth peer name other")
    said, why = host.fails("apply")
    assert "failed: link br0 type bridge: " in said
    assert why.endswith(" of the network couldn't be set up; see luoctl network show\n")
    assert host.held() == [A]
    told = host.status().network
    assert told["failed"] > 0
    assert told["reasons"][0].startswith("link br0 type bridge: ")
    shown = host.luoctl("status").stdout
    assert f"{told['failed']} failed" in shown
    said, why = host.fails("apply", "--dry-run")
    assert "! link br0 type bridge: " in said
    host.network.run("ip", "link", "delete", "br0")
    host.says("apply")
    assert host.held() == []
    assert "all is well" in host.luoctl("status").stdout


def test_what_came_over_and_was_preserved_again_can_still_be_applied(host):
    host.set_up()
    host.says("snapshot", "br0")
    host.live_update()
    host.luoctl("finish", "--rearm", "--yes", A)
    assert f"{A}, outgoing: it came over\n" in host.says("show")
    host.says("apply")
    assert host.held() == []


def test_nothing_that_came_over_is_no_failure(host):
    assert host.says("apply") == "nothing of the network came over\n"
    assert json.loads(host.says("apply", "--json")) is None
    assert host.says("show") == "luod holds nothing of the network\n"
    assert host.status().network is None


def test_what_was_taken_in_this_boot_is_applied_only_where_that_is_said(host):
    host.set_up()
    host.says("snapshot", "br0")
    host.network.run("ip", "link", "delete", "br0")
    assert "what luod holds was taken in this boot" in host.says("apply")
    assert host.network.ip("link", "show", "type", "bridge") == []
    host.says("apply", "--same-boot")
    assert len(host.network.ip("link", "show", "type", "bridge")) == 1
    assert host.held() == [A]


def test_show_prints_all_that_luod_holds_and_what_came_of_the_last_one(host):
    host.set_up()
    host.says("snapshot", "br0", "v0", "nothing")
    said = host.says("show")
    for part in (
        f"Session   {A}, outgoing: it goes over with the next live update\n",
        "Selected  br0, v0, nothing\n",
        "LINK  KIND    STATE   MTU  MAC ",
        f"br0   bridge  up     1500  {MAC}\n",
        "address 192.0.2.1/24 dev br0\n",
        "route 198.51.100.0/24 via 192.0.2.9 dev br0\n",
        "rule 1000: from 192.0.2.0/24 lookup 100\n",
        f"neighbour 192.0.2.9 lladdr {MAC} dev br0\n",
        "LEFT OUT",
    ):
        assert part in said
    host.live_update()
    assert f"{A}, incoming: it came over\n" in host.says("show")
    host.says("apply")
    said = host.says("show")
    assert said.startswith("luod holds nothing of the network\n\nSet up  ")
    report = json.loads(host.says("show", "--json"))["report"]
    assert report["failed"] == []


def test_with_json_show_prints_the_models(host):
    host.set_up()
    snapshot = json.loads(host.says("snapshot", "br0", "--json"))
    shown = json.loads(host.says("show", "--json"))
    assert shown["held"] == [
        {"session": shown["held"][0]["session"], "snapshot": snapshot["snapshot"], "reason": None},
    ]
    assert (snapshot["session"], snapshot["discarded"], shown["report"]) == (A, [], None)


def test_a_snapshot_of_another_version_is_told_and_stays(host):
    with connect(host.socket) as luod, memfd(b'{"version": 9}') as fd:
        luod.create(A)
        luod.preserve(A, fd, 0)
    host.live_update()
    said, _ = host.fails("apply")
    assert f"failed: session {A}: it is of version 9, and this luod reads version 1\n" in said
    assert host.status().network["reasons"] == [
        f"session {A}: it is of version 9, and this luod reads version 1",
    ]
    assert "Unreadable" in host.says("show")
    assert host.held() == [A]
    host.set_up()
    said = host.says("snapshot", "br0")
    assert f"discarded: session {A}, which couldn't be read: it is of version 9" in said
    assert host.held() == [B]


def test_what_is_configured_is_taken_where_nothing_is_named(host, tmp_path):
    file = tmp_path / "luod.toml"
    file.write_text("[network]\nhandover = ['v*']\n")
    host.set_up()
    host.says("snapshot", "--config", str(file))
    assert "Selected  v*\n" in host.says("show")
    file.write_text("")
    assert host.says("snapshot", "--config", str(file)).startswith("nothing of the network is to go over")
    assert "Selected  v*\n" in host.says("show")


def test_a_report_that_cannot_be_read_is_told_and_the_rest_is_shown(host, tmp_path):
    (tmp_path / "luod" / "network.json").write_text("{")
    ran = host.luoctl("network", "show", "--runtime-directory", str(tmp_path / "luod"))
    assert (ran.returncode, ran.stdout) == (0, "luod holds nothing of the network\n")
    assert ran.stderr == f"luoctl: {tmp_path}/luod: network.json is no JSON\n"


def test_where_no_report_can_be_written_the_network_is_set_up_all_the_same(host, tmp_path):
    host.set_up()
    host.says("snapshot", "br0")
    host.live_update()
    ran = host.luoctl("network", "apply", "--runtime-directory", str(tmp_path / "nowhere"))
    assert ran.returncode == 0
    assert ran.stderr == f"luoctl: the report isn't in {tmp_path}/nowhere: No such file or directory\n"
    assert len(host.network.ip("link", "show", "type", "bridge")) == 1


def test_without_luod_nothing_is_tried(host):
    host.set_up()
    ran = host.luoctl("--socket", "/nowhere", "network", "snapshot", "br0")
    assert (ran.returncode, ran.stdout) == (3, "")
    ran = host.luoctl("--socket", "/nowhere", "network", "apply")
    assert (ran.returncode, ran.stdout) == (3, "")


def test_a_bad_configuration_is_told(host, tmp_path):
    file = tmp_path / "luod.toml"
    file.write_text("[network]\nhandover = 'br0'\n")
    _, why = host.fails("snapshot", "--config", str(file))
    assert why == f"luoctl: {file}:2: network.handover: must be a list, not 'br0'\n"


def test_whoever_may_not_change_the_network_is_told(host):
    host.set_up()
    host.says("snapshot", "br0")
    host.live_update()
    words = ["capsh", "--drop=cap_net_admin", "--", "-c", 'exec "$@"', "sh"]
    command = [*words, sys.executable, "-m", "luod.ctl", "--socket", host.socket, "network", "apply"]
    if subprocess.run(["which", "capsh"], capture_output=True, check=False).returncode:
        pytest.skip("capsh is missing")
    ran = host.network(subprocess.run, command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "CAP_NET_ADMIN" in ran.stdout
