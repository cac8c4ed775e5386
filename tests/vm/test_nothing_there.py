"""Boots that can give nothing back: luod says what it knows, and nobody takes lost files for files that never were."""

from vm.guest import clients
from vm.steps import luod, luod_without_anything

NO_LIVE_UPDATE = "this kernel was booted without live update (liveupdate=on) or doesn't have it"
UNREADABLE = "what the previous kernel handed over can't be read by this one"


def test_in_a_first_boot_there_is_nothing_and_luod_is_sure_of_it(vm):
    luod(vm)
    nobody_has_anything(vm)


def test_in_a_kernel_without_live_update_luod_does_not_say_that_there_is_nothing(vm):
    luod(vm)
    vm.call(clients.preserve)
    on = vm.boot.cmdline
    vm.kexec(cmdline=on.replace("liveupdate=on", "liveupdate=off"))
    running = luod_without_anything(vm, NO_LIVE_UPDATE)
    everybody_is_told(vm, NO_LIVE_UPDATE)
    assert stopped(running) == 0

    # That kernel took nothing over, so it hands nothing on; and no trace is left by which luod could tell.
    assert vm.kexec(cmdline=on).number == 0
    luod(vm)
    nobody_has_anything(vm)


def test_a_kernel_that_cannot_read_what_is_handed_over_is_not_taken_for_a_first_boot(vm):
    luod(vm)
    vm.call(clients.preserve)
    vm.kexec("bzImage-without-memfd")
    for _ in "luod", "the next luod":
        running = luod_without_anything(vm, UNREADABLE)
        everybody_is_told(vm, UNREADABLE)
        assert stopped(running) == 0
    vm.kexec()
    luod(vm)
    nobody_has_anything(vm)


def test_after_a_plain_restart_there_is_nothing_as_in_a_first_boot(machine):
    with machine(restarts=True) as vm:
        luod(vm)
        vm.call(clients.preserve)
        vm.kexec()
        luod(vm)
        assert vm.next_boot(vm.begin(clients.reboot, how=clients.RESTART)).number == 0
        luod(vm)
        nobody_has_anything(vm)


def nobody_has_anything(vm):
    answers = vm.call(clients.ask)
    status = answers.pop("status")
    assert [status["phase"], status["generation"], status["sessions"], status["files"]] == ["idle", 0, 0, 0]
    assert status["device"]["available"]
    not_found = ["SessionNotFound", "there is no session 'session-0'"]
    assert answers == {
        "find": None,
        "list": [],
        "retrieve": not_found,
        "finish": not_found,
        "discard": not_found,
        "manifest": 0,
        "create": "session-0",
    }


def everybody_is_told(vm, reason):
    answers = vm.call(clients.ask)
    status = answers.pop("status")
    assert [status["phase"], status["sessions"], status["files"]] == ["unavailable", 0, 0]
    assert status["device"] == {"path": "/dev/liveupdate", "available": False, "reason": reason}
    told = ["RestoreUnavailable", f"this boot can't give anything back: {reason}; do not start afresh"]
    assert answers == dict.fromkeys(answers, told)


def stopped(running):
    running.signal()
    return running.ended().status
