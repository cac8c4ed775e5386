"""The test bench itself: what it says when something goes wrong."""

import os
import subprocess
import sys

import pytest

from vm.machine import GuestError, VmLost
from vm.rootfs import CHECKOUT

PLAIN_RESTART = "import ctypes; ctypes.CDLL(None).reboot(0x1234567)"


def test_a_machine_knows_which_of_its_boots_came_by_a_live_update(machine):
    with machine(restarts=True) as vm:
        assert vm.boot.number == 0
        assert [vm.kexec().number, vm.kexec().number] == [1, 2]
        assert vm.kexec(cmdline=vm.boot.cmdline.replace("liveupdate=on", "liveupdate=off")).number == 0
        assert vm.next_boot(vm.start("python3", "-c", PLAIN_RESTART)).number == 0
        assert len({boot.id for boot in vm.boots}) == 5


def test_what_fails_in_the_guest_is_told_with_what_it_said(vm):
    with pytest.raises(GuestError, match="exit status 3\nout\nerr"):
        vm.run("sh", "-c", "echo out; echo err >&2; exit 3")
    with pytest.raises(GuestError, match="No such file"):
        vm.run("no-such-command")
    with pytest.raises(GuestError, match="TypeError"):
        vm.call(subprocess.run, nonsense=1)


def test_a_machine_that_ends_is_lost(vm):
    with pytest.raises(VmLost, match=r"the virtual machine ended, (.|\n)*console\.log"):
        vm.start("python3", "-c", PLAIN_RESTART).ended()


@pytest.mark.parametrize("required", [False, True])
def test_without_a_package_tests_skip_or_fail_with_the_reason(required, tmp_path):
    environment = os.environ | {"PATH": str(tmp_path), "LUOD_VM": "01"[required]}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "a_machine_that_ends"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert "qemu-system-x86" in done.stdout
    assert "make vm-deps" in done.stdout
    assert done.returncode == int(required)
    assert ("1 error" if required else "1 skipped") in done.stdout
