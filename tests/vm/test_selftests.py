"""The kernel's own tests of live updates, the yardstick: they pass here, and beside a luod that has nothing to do."""

import pytest

from vm.kernels import SELFTESTS
from vm.machine import KERNELS
from vm.steps import luod

IN_ONE_BOOT, *ACROSS_KEXEC = SELFTESTS


@pytest.mark.parametrize("company", ["alone", "beside luod"])
def test_the_kernels_own_tests_pass(vm, kernels, company):
    def run(name, *arguments):
        vm.run(f"{KERNELS}/{kernels[-1].number}/{name}", *arguments)

    def start_company():
        if company == "beside luod":
            luod(vm)

    start_company()
    run(IN_ONE_BOOT)
    for name in ACROSS_KEXEC:
        run(name, "-s", "1")
    vm.kexec()
    start_company()
    for name in ACROSS_KEXEC:
        run(name, "-s", "2")
