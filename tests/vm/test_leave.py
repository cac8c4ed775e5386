"""The last steps of a live update on a real kernel, with systemd and without: and every way back from them."""

import pytest

from luod.systemd import KEXEC_SERVICE
from vm import systemd
from vm.guest import clients, kexec, leaving, services
from vm.machine import KERNELS
from vm.rootfs import SYSTEMD
from vm.steps import comes_back

IMAGE = f"{KERNELS}/bzImage"
UNCLEAN = "mounting unchecked fs"
"""What ext2 says of a file system that was left as it was."""

NOTHING_LOADED = "reboot(LINUX_REBOOT_CMD_KEXEC): EINVAL (no kernel is loaded"
SLEEPER = "[Service]\nExecStart=/usr/bin/sleep infinity\n"


@pytest.fixture
def writable(vm):
    """A machine with two writable file systems on disks."""
    vm.run("mount", "-o", "remount,rw", "/opt/luod")
    return vm


@pytest.fixture
def service(machine):
    """A machine whose systemd has started luod."""
    with machine(init=SYSTEMD) as vm:
        systemd.install(vm)
        yield vm
        systemd.luod_never_complained(vm)


def test_what_is_held_comes_over_and_the_disks_are_clean(writable):
    vm = writable
    boot = vm.next_boot(vm.begin(leaving.go, path=IMAGE, command_line=vm.boot.cmdline))
    assert boot.number == 1
    assert vm.call(kexec.arrive) == kexec.CONTENT.decode()
    assert UNCLEAN not in vm.run("dmesg").stdout
    vm.kexec()
    assert UNCLEAN in vm.run("dmesg").stdout


def test_a_reboot_that_returns_leaves_every_file_system_writable_and_says_why(writable):
    for _ in range(2):
        told = writable.call(leaving.try_to_go)
        assert told["reason"].startswith(NOTHING_LOADED)
        assert told["left"] == []
        writable.call(leaving.write_everywhere)


def test_what_was_killed_half_way_is_undone(writable):
    writable.start("python3", "-m", "vm.guest.call", leaving.__name__, "die_half_way", "{}").ended()
    assert writable.call(leaving.left) == ["leaving", "held-still"]
    writable.run("/opt/luod/bin/luod", "kexec", "--undo")
    writable.call(leaving.write_everywhere)


def test_what_can_not_be_frozen_is_read_only_meanwhile(vm):
    told = vm.call(leaving.hold_still_what_can_not_be_frozen)
    assert told == ["Read-only file system", "written", "rw,nosuid,noexec,relatime"]


def test_luods_sandbox_lets_it_do_all_that_a_live_update_takes_but_the_last_step(service):
    assert sandboxed(service, "read") == service.call(leaving.read)
    told = sandboxed(service, "load_and_unload", path=IMAGE, command_line=service.boot.cmdline)
    assert told == [True, False, "EPERM"]

    service.call(services.write, path="/run/systemd/system/sleeper.service", text=SLEEPER)
    service.run("systemctl", "start", "sleeper.service")
    never = ["init.scope", "luod.service", "system.slice"]
    told = sandboxed(service, "freeze_and_thaw", units=["sleeper.service", "none.service", *never])
    assert told["paused"] == ["frozen", *["running"] * 4]
    assert told["again"] == ["running"] * 5
    assert (told["recorded"], told["left"]) == (["sleeper.service", "none.service"], False)
    assert told["failures"].keys() == {"none.service", *never}
    print(told)


@pytest.mark.long
def test_out_of_its_sandbox_luod_goes_and_all_that_it_holds_comes_over(service):
    given = service.call(clients.preserve, files=3)["table"]
    service.run("mount", "-o", "remount,rw", "/opt/luod")
    assert sandboxed(service, "try_to_go")["reason"].startswith(NOTHING_LOADED)
    service.call(leaving.write_everywhere)
    service.run("systemctl", "is-system-running")
    go(service, via="direct")
    assert UNCLEAN not in service.run("dmesg").stdout
    comes_back(service, given)


@pytest.mark.long
def test_luod_has_systemd_go(service):
    given = service.call(clients.preserve, files=3)["table"]
    told = sandboxed(service, "try_to_go", via="systemd")
    assert told == {"reason": "no kernel is loaded", "left": []}
    go(service, via="systemd")
    comes_back(service, given)


def test_what_was_killed_half_way_is_undone_by_systemd(service):
    service.run("mount", "-o", "remount,rw", "/opt/luod")
    service.call(services.write, path=f"/run/systemd/system/{KEXEC_SERVICE}.d/dies.conf", text=leaving.DROP_IN)
    service.run("systemctl", "daemon-reload")
    told = sandboxed(service, "try_to_go")
    assert told["reason"] == "the last steps were ended half-way (signal, killed, KILL)"
    assert told["left"] == []
    assert service.call(leaving.were_frozen) == list(leaving.DISKS)
    service.call(leaving.write_everywhere)


def sandboxed(vm, function, **arguments):
    """Call a function in the sandbox that luod has; what it returns."""
    vm.call(leaving.install, what=function, arguments=arguments)
    vm.run("systemctl", "daemon-reload")
    started = vm.start("systemctl", "start", "sandboxed.service").ended()
    assert started.status == 0, vm.run("journalctl", "--output=cat", "--unit=sandboxed.service").stdout
    return vm.call(leaving.told)


def go(vm, via):
    """Go into the next kernel from the sandbox that luod has."""
    arguments = {"path": IMAGE, "command_line": vm.boot.cmdline, "via": via}
    vm.call(leaving.install, what="load_and_go", arguments=arguments)
    vm.run("systemctl", "daemon-reload")
    vm.run("systemctl", "start", "--no-block", "sandboxed.service")
    boots = len(vm.boots)
    vm.wait(lambda: len(vm.boots) > boots, "the next kernel")
    assert vm.boot.number == 1
    systemd.up(vm)
