"""A live update that is one: the kernel after it is another."""

import pytest

from vm.guest import clients
from vm.steps import comes_back, luod, report


def test_all_files_come_over_into_a_newer_kernel(machine, kernels):
    older, newer = kernels[0], kernels[-1]
    if older == newer:
        pytest.skip(f'only Linux {newer.number} was built: name an older one too, LUOD_VM_KERNELS="7.2 7.3"')
    with machine(older) as vm:
        luod(vm)
        given = vm.call(clients.preserve, sessions=10, files=20)
        report("before", given)
        boot = vm.kexec(f"{newer.number}/bzImage")
        assert [boot.release, boot.number] == [newer.release, 1]
        luod(vm)
        comes_back(vm, given["table"], finish=True)
