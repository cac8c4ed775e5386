"""The network that is handed over, on a real kernel: all of tests/network in one boot, and its facts across kexecs."""

import json
import re

import pytest

from vm import network, steps, systemd, updating
from vm.guest import network as guest
from vm.network import LAN, around
from vm.rootfs import SYSTEMD
from vm.systemd import LUOCTL
from vm.updating import arrive, begin, load, luoctl, refusal, update

PYTEST = ("python3", "-m", "pytest", "--verbose", "-p", "no:cacheprovider", "/opt/luod/tests/network", "-k")
BRIEFLY = "comes_back_as_it_was or test_reading"
SKIPPED = {f"this kernel has {kind}" for kind in ("bond", "dummy", "macvlan", "vlan")} | {
    f"this kernel lacks {feature}" for feature in ("ifb", "lightweight tunnels", "realms")
}
"""Why something of tests/network may be left out: the one is about kernels that lack a kind of link, and of the other's
links and routes a test says that they can't be handed over."""


@pytest.mark.parametrize("tests", [BRIEFLY, pytest.param(f"not ({BRIEFLY})", marks=pytest.mark.long)])
@pytest.mark.parametrize("suite", ["unstable", "stable"])
def test_each_kind_of_thing_is_read_and_set_up_again(machine, suite, tests):
    with machine(suite=suite) as vm:
        ran = vm.start(*PYTEST, tests, env={"HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis"})
        while not ran.over:
            said = len(ran.lines["stdout"])
            vm.wait(lambda said=said: ran.over or len(ran.lines["stdout"]) > said, f"{ran} to go on")
        assert ran.status == 0, ran.stdout + ran.stderr
        print(ran.lines["stdout"][-1])
        skipped = re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", ran.stdout, re.MULTILINE)
        assert set(skipped) <= SKIPPED


def test_without_systemd_it_is_as_it_was_and_a_card_that_comes_late_is_waited_for(machine):
    with around() as world, machine(wires=world.wires, cmdline=network.CMDLINE) as vm:
        network.configure(vm, (*network.HANDOVER, network.LACP))
        steps.luod(vm, "supervise")
        vm.run("sh", "-ec", network.BY_HAND)
        world.reach_it()
        before = vm.call(guest.picture)

        go(vm)
        differs = luoctl(vm, "network", "apply", "--dry-run")
        assert "+ link br0 type bridge" in differs
        print(differs, luoctl(vm, "network", "apply"), sep="\n")
        world.reach_it()
        assert vm.call(guest.picture) == before
        assert luoctl(vm, "network", "apply") == "nothing of the network came over"

        go(vm)
        card = vm.call(guest.unplug, mac=LAN)
        applying = vm.start(LUOCTL, "network", "apply")
        world.reach_it(card=network.WAN)
        assert not applying.over
        vm.call(guest.plug, device=card)
        print(applying.succeeded().stdout)
        world.reach_it()
        assert vm.call(guest.picture) == before

        go(vm)
        card = vm.call(guest.unplug, mac=LAN)
        said = refusal(vm, "network", "apply", "--wait", "1")
        print(said)
        assert f"no link with the permanent address {LAN}" in said
        assert re.search(r"Network +set up .*, \d+ failed", luoctl(vm, "status"))
        world.reach_it(card=network.WAN)
        there = vm.call(guest.picture)
        assert there["addresses"] == {name: those for name, those in before["addresses"].items() if name != "lan"}
        vm.call(guest.plug, device=card)
        luoctl(vm, "network", "apply")
        world.reach_it()
        assert vm.call(guest.picture) == before


def go(vm):
    """A live update without systemd: nothing is set up yet."""
    load(vm)
    update(vm, "--via", "direct")


def test_with_systemd_it_is_as_it_was_and_what_cannot_be_written_down_ends_the_live_update(machine):
    with around() as world, machine(init=SYSTEMD, wires=world.wires, cmdline=network.CMDLINE) as vm:
        network.configure(vm, (*network.HANDOVER, network.LACP))
        network.install(vm)
        vm.run("sh", "-ec", network.BY_HAND)
        world.reach_it()
        before = vm.call(guest.picture)
        load(vm)
        print(luoctl(vm, "preflight", "--via", "systemd"))
        leave(vm, "--via", "systemd")
        world.reach_it()
        assert vm.call(guest.picture) == before
        print(luoctl(vm, "status"), vm.run("journalctl", "--boot", "--output=cat", "--unit=luod-network*").stdout)

        load(vm)
        network.drop_in(vm, "[Service]\nExecReload=\nExecReload=/bin/false\n")
        said = refusal(vm, "update", "--via", "direct")
        print(said)
        assert "the network can't be written down: luod-network-snapshot.service: " in said
        assert updating.phase(vm) == "idle"
        world.reach_it()
        leave(vm, "--via", "direct", "--force", "--yes")
        assert "br0" not in vm.call(guest.picture)["addresses"]
        assert json.loads(luoctl(vm, "--json", "network", "show"))["held"] == []
        systemd.luod_never_complained(vm)


def leave(vm, *words):
    """A live update that luoctl may not see the end of."""
    boots = len(vm.boots)
    begin(vm, *words)
    arrive(vm, boots)


@pytest.mark.long
def test_networkd_takes_nothing_away_where_it_is_told_so_and_without_luod_comes_by_itself(machine):
    with around() as world, machine(init=SYSTEMD, wires=world.wires, cmdline=network.CMDLINE) as vm:
        network.configure(vm)
        network.install(vm)
        network.keep(vm)
        network.run_networkd(vm)
        network.settled(vm)
        world.reach_it()
        vm.run("sh", "-ec", network.LATER)
        before = vm.call(guest.picture)

        load(vm)
        dark_for(world, lambda: leave(vm, "--via", "direct"))
        network.settled(vm)
        after = vm.call(guest.picture)
        assert vids(after, "lan") == vids(before, "lan") - {7}, "those of a port are as [BridgeVLAN] has them"
        for picture in (before, after):
            del picture["vlans"]
            picture["fdb"] = [each for each in picture["fdb"] if each.get("vlan") != 7]
        assert after == before

        network.keep_nothing(vm)
        network.forget(vm)
        network.settled(vm)
        without = vm.call(guest.picture)
        assert locals_of(before, "wan") - locals_of(without, "wan") == {"10.0.0.77", "fd00::77"}
        assert destinations(before) - destinations(without) == {"10.77.0.0/16", "fd77::/64"}
        assert [rule["priority"] for _, rule in before["rules"] if [_, rule] not in without["rules"]] == [2000]
        assert [each["dst"] for each in before["neighbours"] if each not in without["neighbours"]] == ["10.5.0.19"]

        network.configure(vm, handover=[])
        vm.run("systemctl", "reload", systemd.SERVICE)
        load(vm)
        dark_for(world, lambda: leave(vm, "--via", "systemd"))
        network.settled(vm)


def dark_for(world, during):
    """Print how long nobody was answered, who is so again."""
    for name, (began, ended) in world.silences(during).items():
        print(f"{name}: not answered for {ended - began:.1f} s")


def vids(picture, port):
    return {vlan["vlan"] for each in picture["vlans"] if each["ifname"] == port for vlan in each["vlans"]}


def locals_of(picture, link):
    return {address["local"] for address in picture["addresses"][link]}


def destinations(picture):
    return {route["dst"] for _, route in picture["routes"]}
