"""The contract of luod/kernel/api.py, put to real kernels: tests/contract in one boot, and its facts across kexecs."""

import re
from ast import literal_eval

import pytest

from contract.steps import ONLY_A_SIMULATED_KEXEC, ONLY_SIMULATED
from vm.cache import cache
from vm.guest import contract
from vm.machine import Machine

PYTEST = ("python3", "-m", "pytest", "-p", "no:cacheprovider", "/opt/luod/tests/contract")
BOOTS = 3
FACTS = contract.facts()


def test_a_real_kernel_keeps_the_contract(vm):
    vm.run("sh", "-c", "echo 4 >/proc/sys/vm/nr_hugepages")
    suite = vm.start(*PYTEST, env={"LUOD_TEST_DEVICE": "/dev/liveupdate"}).ended()
    assert suite.status == 0, suite.stdout + suite.stderr
    (passed,) = re.findall(r"(\d+) passed", suite.lines["stdout"][-1])
    assert int(passed) >= 100, suite.stdout
    skipped = re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", suite.stdout, re.MULTILINE)
    assert set(skipped) <= {ONLY_SIMULATED, ONLY_A_SIMULATED_KEXEC}


@pytest.fixture(scope="module")
def outcomes(kernels, disks):
    """What came of each fact's stages: outcomes by stage, by fact. One machine goes through all of them."""
    outcomes = {name: {} for name in FACTS}
    with Machine(kernels[-1].image, disks, cache() / "logs" / "test_contract.py-facts") as vm:
        for boot in range(BOOTS):
            if boot:
                vm.kexec()
            running = vm.begin(contract.run_stage, number=boot)
            running.until(contract.HELD)
            for line in running.lines["stdout"][:-1]:
                name, stage, outcome = line.split(maxsplit=2)
                outcomes[name][stage] = outcome
    return outcomes


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_across_kexec(outcomes, fact):
    for stage in FACTS[fact].stages:
        outcome = outcomes[fact].get(stage, "'it was not run'")
        if outcome != contract.PASSED:
            pytest.fail(f"{stage} the kexec: {literal_eval(outcome)}", pytrace=False)


def test_a_kernel_that_cannot_read_what_came_refuses_every_open_and_the_next_kernel_has_nothing(vm):
    vm.begin(contract.hold_a_file, name="lost").until(contract.HELD)
    boot = vm.kexec("bzImage-without-memfd")
    assert boot.number == 0, "the first open, that of the machine's own agent, found what had come"
    assert vm.call(contract.open_the_device) == ["EIO"] * 3
    vm.kexec()
    assert vm.call(contract.retrieve_session, name="lost") == "ENOENT"


def test_a_kernel_without_live_update_has_no_device_and_the_next_one_has_nothing(vm):
    cmdline = vm.boot.cmdline
    vm.begin(contract.hold_a_file, name="lost").until(contract.HELD)
    vm.kexec(cmdline=cmdline.replace("liveupdate=on", ""))
    assert vm.call(contract.open_the_device) == ["ENOENT"] * 3
    vm.kexec(cmdline=cmdline)
    assert vm.call(contract.retrieve_session, name="lost") == "ENOENT"
