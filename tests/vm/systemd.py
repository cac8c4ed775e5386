"""What an operator does with luod on a machine with systemd."""

import time

from luod.ctl.units import UNITS
from vm.guest import services

_, SERVICE = UNITS
LUOCTL = "/opt/luod/bin/luoctl"
SAID = (
    *("listening on ", "live update ", "the service manager keeps what is held: ", "carried session "),
    *("the configuration was read again", "the configuration stays as it was: ", "luod: /etc/luod/luod.toml:1: "),
)
"""What luod says in the journal; all else would be a warning, or a death."""


def install(vm):
    """Have systemd start luod, now and in each boot."""
    vm.run(LUOCTL, "install-units")
    vm.run("systemctl", "enable", "--now", *UNITS)


def update(vm):
    """Have systemd go into the next kernel; its `Boot`, when all is up there. Says how long it took."""
    vm.load()
    boots, began = len(vm.boots), time.monotonic()
    vm.run("systemctl", "kexec")
    vm.wait(lambda: len(vm.boots) > boots, "the next kernel")
    heard = time.monotonic()
    up(vm)
    print(f"a live update: {heard - began:.1f} s to the next kernel, {time.monotonic() - began:.1f} s in all")
    return vm.boot


def up(vm):
    """Wait until systemd has started all that it was to start, and nothing failed."""
    vm.run("systemctl", "is-system-running", "--wait")


def handed(vm):
    """How many descriptors systemd handed to the luod that runs: the listening socket, and what its fd store had."""
    return vm.call(services.handed, pid=main_pid(vm))


def main_pid(vm):
    """The process that systemd takes for luod; 0 where there is none."""
    return int(vm.run("systemctl", "show", "--property=MainPID", "--value", SERVICE).stdout)


def reload(vm, text):
    """Have luod read another configuration. Whether the operator is told that it does."""
    vm.call(services.write, path="/etc/luod/luod.toml", text=text)
    return vm.start("systemctl", "reload", SERVICE).ended().status == 0


def luod_never_complained(vm):
    """Of every luod that there was in a machine, as far as the journal knows: none warned of anything."""
    lines = said(vm).splitlines()
    assert [line for line in lines if not line.startswith(SAID)] == []
    assert any(line.startswith(SAID[0]) for line in lines)


def said(vm):
    """All that the service has said, as far as the journal knows."""
    return vm.run("journalctl", "--output=cat", f"_SYSTEMD_UNIT={SERVICE}").stdout
