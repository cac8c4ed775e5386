"""What an operator does with luod on a machine with systemd."""

import time

from vm.guest import services

LUOCTL = "/opt/luod/bin/luoctl"
UNITS = ("luod.socket", "luod.service")


def install(vm):
    """Have systemd start luod, now and in each boot."""
    vm.run(LUOCTL, "install-units")
    vm.run("systemctl", "enable", "--now", *UNITS)


def update(vm):
    """Have systemd go into the next kernel; returns when all is up there, and says how long it took."""
    began = time.monotonic()
    boot = vm.update()
    heard = time.monotonic()
    up(vm)
    print(f"a live update: {heard - began:.1f} s to the next kernel, {time.monotonic() - began:.1f} s in all")
    return boot


def up(vm):
    """Wait until systemd has started all that it was to start, and nothing failed."""
    vm.run("systemctl", "is-system-running", "--wait")


def shown(vm, name, unit="luod.service"):
    """What systemd says of a property."""
    return vm.run("systemctl", "show", f"--property={name}", "--value", unit).stdout


def handed(vm):
    """How many descriptors systemd handed to the luod that runs: the listening socket, and what its fd store had."""
    return vm.call(services.handed, pid=int(shown(vm, "MainPID")))
