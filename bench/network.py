"""How long a machine isn't answered after a kexec, on a real kernel: with what luod has handed over, and where
systemd-networkd makes the same network anew from its files. It takes what `make test-vm` takes.

Both are in turn, on one machine, with the same services: only what is handed over differs. The host pings all the time,
and counts from the last answer of the old kernel to the first of the new one. Emulated, all is slow: see the ratio.

    PYTHONPATH=tests python bench/network.py [ROUNDS]
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from vm import network, systemd, updating
from vm.cache import cache
from vm.kernels import kernels
from vm.machine import Machine
from vm.network import Around, around
from vm.rootfs import SYSTEMD, luod_disk, root

WAYS = {"luod": network.HANDOVER, "networkd": ()}
FIRST = "(first word of a service)"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    kernel, system = kernels()[-1], root("unstable")
    disks, logs = [system / "disk", luod_disk(system, kernel.images)], cache() / "logs" / "bench-network"
    with (
        around() as world,
        Machine(kernel.image, disks, logs, init=SYSTEMD, wires=world.wires, cmdline=network.CMDLINE) as vm,
    ):
        network.configure(vm)
        network.install(vm)
        network.keep(vm)
        network.run_networkd(vm)
        network.settled(vm)
        dark(world, vm)  # the first one takes longer than all that follow
        network.settled(vm)
        times: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way, handover in WAYS.items():
                network.configure(vm, handover)
                vm.run("systemctl", "reload", systemd.SERVICE)
                times[way].append(dark(world, vm))
                network.settled(vm)
                print(f"{number + 1}. {way}: {max(times[way][-1].values()):.1f} s", file=sys.stderr, flush=True)
    show(times["luod"], times["networkd"])


def dark(world: Around, vm: Machine) -> dict[str, float]:
    """How long what wasn't answered in a live update, in seconds."""
    heard = []

    def go() -> None:
        boots = len(vm.boots)
        updating.begin(vm, "--via", "direct")
        vm.wait(lambda: len(vm.boots) > boots, "the next kernel")
        heard.append(time.monotonic())
        systemd.up(vm)

    updating.load(vm)
    silences = world.silences(go)
    began = min(began for began, _ in silences.values())
    return {FIRST: heard[0] - began} | {name: ended - began for name, (began, ended) in silences.items()}


def show(luod: list[dict[str, float]], networkd: list[dict[str, float]]) -> None:
    """The medians; the ratio is the median of those of each round."""
    print(f"{'answered again':28}{'luod':>8}{'networkd':>10}   s{'ratio':>8}")
    for name in luod[0]:
        ours, theirs = [each[name] for each in luod], [each[name] for each in networkd]
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        print(f"{name:28}{statistics.median(ours):8.1f}{statistics.median(theirs):10.1f}{ratio:12.2f}")


if __name__ == "__main__":
    main()
