"""luod under `luod supervise`, on a kernel without systemd: its PID 1 is the agent."""

from vm.guest import clients
from vm.steps import comes_back, kill_luod, luod, nothing_is_left

TIMES = 2


def test_a_luod_that_is_killed_on_both_sides_of_a_live_update_loses_nothing(vm):
    supervisor = luod(vm, "supervise")
    given = vm.call(clients.preserve, sessions=3, files=20)["table"]
    for _ in range(TIMES):
        kill_luod(vm, supervisor)
        comes_back(vm, given)
    given |= vm.call(clients.preserve_delegated)["table"]
    kill_luod(vm, supervisor)
    assert vm.kexec().number == 1

    supervisor = luod(vm, "supervise")
    comes_back(vm, given)
    for _ in range(TIMES):
        kill_luod(vm, supervisor)
        comes_back(vm, given)
    comes_back(vm, given, finish=True)
    kill_luod(vm, supervisor)
    assert nothing_is_left(vm)
