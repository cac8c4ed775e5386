"""A live update that doesn't happen leaves everything as it was, and the next attempt is as good as the first."""

from vm.guest import clients
from vm.steps import comes_back, luod, report


def test_after_a_reboot_that_fails_luod_and_its_clients_go_on(vm):
    luod(vm)
    before = vm.call(clients.preserve, sessions=3, files=10, name="before")["table"]
    vm.load()
    vm.run("kexec", "--unload")
    assert vm.call(clients.reboot, how=clients.KEXEC) == "EINVAL"
    after = vm.call(clients.preserve, sessions=3, files=10, name="after")["table"]
    assert vm.call(clients.look)["table"] == before | after

    vm.load()
    assert vm.next_boot(vm.begin(clients.reboot, how=clients.KEXEC)).number == 1
    luod(vm)
    comes_back(vm, before | after, finish=True)


def test_with_a_client_that_is_frozen_a_live_update_goes_and_all_comes_back(vm):
    luod(vm)
    frozen = vm.begin(clients.freeze)
    frozen.until("frozen")
    given = vm.call(clients.preserve, files=10)
    report("before", given)
    vm.load()
    assert vm.next_boot(vm.start("kexec", "--exec")).number == 1
    assert frozen.status is None
    luod(vm)
    comes_back(vm, given["table"])
