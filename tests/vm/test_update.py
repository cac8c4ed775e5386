"""Live updates by luod itself, on a real kernel: `luoctl load`, `luoctl update`, and every way back."""

import json

from vm.guest import clients, takers
from vm.machine import KERNELS
from vm.steps import comes_back, luod
from vm.systemd import LUOCTL

IMAGE = f"{KERNELS}/bzImage"


def luoctl(vm, *words):
    """What luoctl prints."""
    return vm.run(LUOCTL, *words).stdout


def load(vm, image=IMAGE, *words):
    return luoctl(vm, "load", image, *(words or ["--reuse-cmdline"]))


def update(vm, *words):
    """Update directly; the next `Boot`, where luod was started again."""
    boot = vm.next_boot(vm.start(LUOCTL, "update", "--via", "direct", *words))
    luod(vm, "supervise")
    return boot


def timeline(vm, *words):
    return json.loads(luoctl(vm, "timeline", "--json", *words))


def taker(vm, session, answer="ready", **how):
    """Somebody who takes part from now on."""
    taking = vm.begin(takers.take_part, session=session, answer=answer, **how)
    taking.until("watching")
    return taking


def test_a_direct_update_takes_everything_along(vm):
    luod(vm, "supervise")
    given = vm.call(clients.preserve, sessions=3, files=20)["table"]
    taker(vm, "ram")
    print(load(vm))
    print(luoctl(vm, "preflight", "--via", "direct"))
    assert update(vm).number == 1
    assert vm.boot.cmdline.split()[-1].startswith("luod.from=")
    print(luoctl(vm, "status"))
    print(luoctl(vm, "timeline"))
    luoctl(vm, "finish", "ram")
    comes_back(vm, given, finish=True)
    print(luoctl(vm, "timeline"))
