"""A kexec in the middle of everything, without a word to luod or its clients: no acknowledgement is broken."""

import json

import pytest

from vm.guest import clients
from vm.guest.traffic import LOST, Owner, go_on
from vm.steps import luod, report

UIDS = (1001, 1002, 1003, 1004)
ENOUGH = 60
"""How many requests of each owner are done before the kexec is started."""

ON_THE_WAY = 500
"""So many acknowledgements of one owner may have been on their way to the host at the end, at most."""


def by_kexec_exec(vm):
    return vm.start("kexec", "--exec")


def by_reboot_itself(vm):
    return vm.begin(clients.reboot, how=clients.KEXEC)


@pytest.mark.parametrize("strike", [by_kexec_exec, by_reboot_itself])
def test_what_was_acknowledged_is_there_and_what_was_not_is_whole_or_not_there(vm, strike):
    came = {uid: {} for uid in UIDS}
    luod(vm)
    for boot in 0, 1:
        owners = [Owner(uid, boot, came[uid]) for uid in UIDS]
        acknowledged = struck_in_the_middle_of_it(vm, owners, strike)
        luod(vm)
        found = vm.call(clients.look)
        report("after", found)
        for owner in owners:
            came[owner.uid] = found["owners"][str(owner.uid)]
            done = how_many_were_done(owner, came[owner.uid], acknowledged[owner])
            print(
                f"uid {owner.uid}: {acknowledged[owner]} requests acknowledged, {done} done; {summary(came[owner.uid])}"
            )


def struck_in_the_middle_of_it(vm, owners, strike):
    """Have a kexec strike while the owners are at it. How many of each one's requests luod has acknowledged."""
    vm.load()
    running = {owner: vm.begin(go_on, uid=owner.uid, boot=owner.boot, came=owner.came) for owner in owners}

    def said():
        return {owner: len(process.lines["stdout"]) for owner, process in running.items()}

    def all_have_said_enough():
        return min(said().values()) >= ENOUGH

    def somebody_ended():
        return any(process.over for process in running.values())

    vm.wait(lambda: all_have_said_enough() or somebody_ended(), f"{ENOUGH} acknowledgements each")
    assert not somebody_ended(), [process.said() for process in running.values()]
    vm.next_boot(strike(vm))
    assert [process.status for process in running.values()] == [None] * len(owners), "all were at it until the end"
    for owner, process in running.items():
        for line, request in zip(process.lines["stdout"], owner.requests(), strict=False):
            assert json.loads(line) == [request.method, request.session, owner.files(request)]
    return said()


def how_many_were_done(owner, found, acknowledged):
    """All that was acknowledged, for this is what so many requests lead to; and perhaps some after it."""
    requests = owner.requests()
    for done, request in zip(range(acknowledged + ON_THE_WAY), requests, strict=False):
        if done >= acknowledged and found == as_if_struck(owner, done, request, found):
            return done
    expected = owner.has(acknowledged)
    pytest.fail(f"uid {owner.uid}, {acknowledged} requests acknowledged: {differences(expected, found)}")


def as_if_struck(owner, done, request, found):
    """What an owner has whom the kexec struck at this request, when so many were done.

    A session that is being rearmed when its kernel ends may be lost in part (docs/how-it-works.md).
    """
    has = owner.has(done)
    if request.method == "rearm" and request.session in found:
        has[request.session] = found[request.session]
    return has


def differences(expected, found):
    return {
        session: {"expected": expected.get(session), "found": found.get(session)}
        for session in expected | found
        if expected.get(session) != found.get(session)
    }


def summary(table):
    lost = sum(files == LOST for files in table.values())
    return f"{len(table)} sessions, {lost} of them lost, {sum(len(f) for f in table.values() if f != LOST)} files"
