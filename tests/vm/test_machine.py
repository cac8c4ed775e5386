"""The test bench itself: what it says when something goes wrong."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from vm.cache import A_DAY, KEPT, cache, made
from vm.commands import CannotMake, run
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
    with pytest.raises(GuestError, match="returned nothing"):
        vm.call(os._exit, status=0)


def test_a_machine_that_ends_is_lost(vm):
    with pytest.raises(VmLost, match=r"the virtual machine ended, (.|\n)*console\.log"):
        vm.start("python3", "-c", PLAIN_RESTART).ended()


def test_a_machine_that_lives_is_not_lost_whatever_hangs_in_it(vm, monkeypatch):
    monkeypatch.setattr("vm.machine.PATIENCE", 3)
    with pytest.raises(GuestError, match="nothing of sleep 1000 to end for 3 s, and the machine lives"):
        vm.start("sleep", "1000").ended()


def test_a_machine_that_is_silent_is_lost(vm, monkeypatch):
    monkeypatch.setattr("vm.machine.PATIENCE", 3)
    monkeypatch.setattr("vm.machine.ANSWER", 3)
    vm.qemu.send_signal(signal.SIGSTOP)
    with pytest.raises(VmLost, match="said nothing of true to end for 3 s, and doesn't answer"):
        vm.run("true")


def bench(**environment):
    """Run a test of this file in a pytest of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "a_machine_that_ends"]
    environment = os.environ | environment
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def test_of_a_test_that_lost_its_machine_all_is_told(kernels):
    done = bench(LUOD_VM_ACCEL="nonsense")
    assert done.returncode == 1
    assert re.search(r"^_+ VM LOST: .*test_a_machine_that_ends_is_lost _+$", done.stdout, re.MULTILINE)
    assert "invalid accelerator nonsense" in done.stdout
    assert str(cache() / "logs" / "test_machine.py-test_a_machine_that_ends_is_lost") in done.stdout
    assert "1 lost its VM" in done.stdout


@pytest.mark.parametrize("required", [False, True])
def test_without_a_package_tests_skip_or_fail_with_the_reason(required, tmp_path):
    done = bench(PATH=str(tmp_path), LUOD_VM="01"[required])
    assert "qemu-system-x86" in done.stdout
    assert "make vm-deps" in done.stdout
    assert done.returncode == int(required)
    assert ("1 error" if required else "1 skipped") in done.stdout


def test_a_command_that_fails_is_told_with_what_it_said_and_that_is_in_the_log_too(tmp_path):
    with open(tmp_path / "log", "w") as log, pytest.raises(CannotMake, match=r"exit status 3\n.*\nout\nerr$"):
        run("sh", "-c", "echo out; echo err >&2; exit 3", log=log)
    with pytest.raises(CannotMake, match=r"exit status 3\nerr$"):
        run("sh", "-c", "echo out; echo err >&2; exit 3")


def test_the_last_few_are_kept_and_what_is_in_use(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old, older = KEPT * ["old"], KEPT * ["older"]
    paths = [made(f"kind-{number}", [age], lambda path: None) for number, age in enumerate(older + old)]
    assert all(path.exists() for path in paths)
    for path in paths:
        os.utime(path, times=(0, time.time() - 2 * A_DAY))
    assert made("kind-0", ["older"], None) == paths[0]
    assert [path.exists() for path in paths] == [True] + KEPT * [False] + (KEPT - 1) * [True]
