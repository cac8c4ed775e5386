"""Whatever luod dies of, and wherever: what it acknowledged is there, what it didn't is wholly there or wholly not."""

import itertools
import os
from contextlib import suppress

import pytest

from interrupted import BEFORE, INCOMING, OUTGOING, RAM, after, clean, come_over, kexec, set_up
from luod import errors
from luod.lifecycle import Mode, State
from luod.sim.client import SimKernel
from memory import memfd


@pytest.fixture
def machine(kept_machine):
    return kept_machine


def keeps_what_is_needed(machine):
    """The fd store has two entries for each session with files and one for others, and two for the journal."""
    sessions = machine.custodian.sessions()
    known = [session for session in sessions if session.state in (State.OUTGOING, State.CARRIED)]
    needed = 2 + sum(1 + bool(session.files) for session in known)
    assert len(machine.manager.names) == needed
    return True


# Deaths between requests


def test_all_is_there_after_a_death(machine, alice, bob):
    machine.create("ram", b"one", b"two")
    machine.create("empty")
    machine.create("ram", b"bob's", owner=bob)
    machine.start_anew()
    assert machine.everything(alice) == {"ram": {0: b"one", 1: b"two"}, "empty": {}}
    assert machine.everything(bob) == {"ram": {0: b"bob's"}}
    assert machine.recovered.notes == []
    assert machine.is_of_one_mind()
    assert keeps_what_is_needed(machine)


def test_many_deaths_change_nothing(machine):
    machine.create("ram", *(b"%d" % number for number in range(300)))
    for _ in range(5):
        machine.start_anew()
        assert machine.is_of_one_mind()
        assert keeps_what_is_needed(machine)
    kexec(machine)
    assert machine.contents("ram") == {number: b"%d" % number for number in range(300)}


def test_ten_thousand_files_in_a_hundred_sessions_outlive_luod_and_two_kernels(machine, alice):
    machine.descriptors = 100_000
    machine.start_anew()
    there = {f"s{number}": {token: b"%d %d" % (number, token) for token in range(100)} for number in range(100)}
    for name, files in there.items():
        machine.create(name, *files.values())
    machine.start_anew()
    assert keeps_what_is_needed(machine)
    assert machine.everything() == there  # from the bags: the kernel gives nothing back in the same boot
    kexec(machine)
    for name in there:
        assert machine.custodian.carry_over(alice.uid, name, claimed=False)
    machine.start_anew()
    assert keeps_what_is_needed(machine)
    assert machine.everything() == there
    kexec(machine)
    assert machine.everything() == there


def test_a_session_goes_on_after_a_death(machine, alice):
    machine.create("ram", b"one")
    machine.start_anew()
    machine.preserve("ram", {5: b"five"})
    machine.start_anew()
    machine.custodian.unpreserve(alice, "ram", [0])
    machine.start_anew()
    machine.preserve("ram", {6: b"six"})
    assert machine.contents("ram") == {5: b"five", 6: b"six"}
    kexec(machine)
    assert machine.contents("ram") == {5: b"five", 6: b"six"}


def test_a_file_is_known_again_after_a_death(machine, alice):
    machine.create("ram")
    machine.create("other")
    with memfd(b"same") as fd:
        machine.give("ram", {0: fd})
        machine.start_anew()
        for name in ("ram", "other"):
            with pytest.raises(errors.AlreadyPreserved):
                machine.give(name, {1: fd})
        machine.preserve("ram", {2: b"stays"})
        machine.custodian.unpreserve(alice, "ram", [0])
        machine.start_anew()
        with pytest.raises(errors.AlreadyPreserved):
            machine.give("other", {1: fd})
        machine.give("ram", {3: fd})
    assert machine.contents("ram") == {2: b"stays", 3: b"same"}


def test_what_came_over_and_was_retrieved_is_there_after_a_death(machine, alice):
    machine.create("ram", b"one")
    machine.create("later", b"two")
    kexec(machine)
    assert machine.contents("ram") == {0: b"one"}
    machine.start_anew()
    assert machine.everything() == {"ram": {0: b"one"}, "later": {0: b"two"}}
    machine.custodian.finish(alice, "ram")
    machine.start_anew()
    assert machine.everything() == {"later": {0: b"two"}}


def test_a_delegated_session_is_lent_again_after_a_death(machine, alice):
    _, lent = machine.custodian.create(alice, "vm", Mode.DELEGATED, {}, None)
    lent.close()
    machine.start_anew()
    _, lent = machine.custodian.claim(alice, "vm")
    with lent, memfd(b"guest") as fd:
        machine.kernel.adopt(lent.duplicate()).preserve_fd(fd.fileno(), 0)
    machine.start_anew()
    kexec(machine)
    _, lent = machine.custodian.claim(alice, "vm")
    lent.close()
    assert [len(session) for session in machine.in_kernel("incoming").values()] == [1]


def test_a_journal_that_was_switched_is_gone_on_with(machine):
    for number in range(5):
        machine.create(f"s{number}", b"x")
        machine.recovered.journal.fall_behind()
        machine.start_anew()
    assert machine.everything() == {f"s{number}": {0: b"x"} for number in range(5)}
    assert len(machine.journals()) == 1


# Deaths in the middle of a request


@pytest.mark.parametrize("behind", [False, True], ids=["", "while the journal is switched"])
@pytest.mark.parametrize("what", OUTGOING)
def test_a_death_in_the_middle_finds_a_request_done_or_not_begun(machine, alice, what, behind):
    act, changes = OUTGOING[what]
    for steps in itertools.count():
        clean(machine)
        set_up(machine, alice)
        if behind:
            machine.recovered.journal.fall_behind()
        killed = machine.is_unplugged_after(steps, lambda: act(machine, alice))
        machine.start_anew()
        found = machine.everything()
        assert found in ((BEFORE, after(changes)) if killed else (after(changes),))
        assert machine.is_of_one_mind(tombstones=False)
        assert machine.recovered.unclear.said() == []
        with suppress(errors.AlreadyPreserved, errors.TokenInUse, errors.SessionNotFound):
            machine.give("ram", {9: machine.again})  # what a death left half done stands in nobody's way
            found["ram"] |= {9: b"again"}
        machine.again.close()
        machine.create("one more", b"y")
        kexec(machine)
        assert machine.everything() == found | {"one more": {0: b"y"}}
        if not killed:
            break
    assert steps >= 2 + 6 * behind


@pytest.mark.parametrize("behind", [False, True], ids=["", "while the journal is switched"])
@pytest.mark.parametrize("what", INCOMING)
def test_a_death_in_the_middle_of_what_is_done_to_what_came_over(machine, alice, what, behind):
    act, changes = INCOMING[what]
    exposed = 0
    for steps in itertools.count():
        clean(machine)
        come_over(machine, alice)
        if behind:
            machine.recovered.journal.fall_behind()
        killed = machine.is_unplugged_after(steps, lambda: act(machine, alice))
        machine.start_anew()
        found = machine.everything()
        if killed and found == BEFORE | {"ram": "SessionLost"}:
            exposed += 1  # RETRIEVE_SESSION had returned, and its descriptor was nowhere else yet
            continue
        assert found in ((BEFORE, after(changes)) if killed else (after(changes),))
        assert machine.recovered.unclear.said() == []
        with suppress(errors.SessionNotFound, errors.WrongDirection):  # what the request came to
            machine.custodian.rearm(alice, "ram")
        kexec(machine)
        assert machine.everything() == found
        if not killed:
            break
    assert steps >= 4
    assert exposed <= 2


def test_a_death_in_the_middle_of_a_start(machine, alice):
    """That is, of the first one in a new kernel."""
    exposed = 0
    for steps in itertools.count():
        clean(machine)
        machine.create("ram", b"one")
        machine.next_kernel()
        if not machine.is_killed_at_start_after(steps):
            break
        machine.boot()
        if machine.everything() == {}:
            exposed += 1  # RETRIEVE_SESSION had returned, and its descriptor was nowhere else yet
            continue
        assert machine.everything() == {"ram": {0: b"one"}}
        machine.custodian.rearm(alice, "ram")
        kexec(machine)
        assert machine.everything() == {"ram": {0: b"one"}}
    assert steps > 8
    assert exposed <= 2


INTERRUPTED_BEFORE = ["preserve", "unpreserve all", "finish", "rearm", "carry over"]


@pytest.mark.parametrize("what", INTERRUPTED_BEFORE)
def test_a_death_in_the_middle_of_the_start_after_a_death(machine, alice, what):
    act, changes = (OUTGOING | INCOMING)[what]
    before = {"ram": RAM}
    for first in itertools.count():
        for second in itertools.count():
            clean(machine)
            machine.create("ram", b"one", b"two")
            if what in INCOMING:
                kexec(machine)
                machine.contents("ram")
            killed = machine.is_unplugged_after(first, lambda: act(machine, alice))
            killed_again = machine.is_killed_at_start_after(second)
            if killed_again:
                machine.boot()
            done = after(changes, before)
            assert machine.everything() in ((before, done) if killed else (done,))
            assert machine.recovered.unclear.said() == []
            if not killed_again:
                break
        if not killed:
            break


# What the store brings


def test_the_order_of_what_is_brought_and_its_names_mean_nothing(machine):
    machine.create("ram", b"one")
    machine.create("other", b"x")
    machine.manager.entries.reverse()
    machine.manager.entries[:] = [(f"~{number}", fd) for number, (_, fd) in enumerate(machine.manager.entries)]
    machine.start_anew()
    assert machine.everything() == {"ram": {0: b"one"}, "other": {0: b"x"}}
    machine.start_anew()
    assert machine.is_of_one_mind()


def test_what_the_store_brings_that_nobody_knows_is_kept_and_said(machine):
    with SimKernel(machine.control.path).open() as device:
        theirs = device.create_session("somebody's")
    null = os.open(os.devnull, os.O_RDONLY)
    machine.manager.entries.extend([("~zzy", theirs.duplicate().hand_on()), ("~zzz", null)])
    theirs.give_up()
    machine.create("ram", b"one")
    for _ in range(3):
        machine.start_anew()
        assert machine.recovered.unclear.said() == ["outgoing session somebody's", "/dev/null, kept as ~zzz"]
        assert machine.everything() == {"ram": {0: b"one"}}
        assert {"~zzy", "~zzz"} < set(machine.manager.names)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_bags_the_one_with_all_that_is_held_is_taken(machine, order):
    machine.create("ram", b"one", b"two")
    machine.start_anew()  # a luod puts nothing into another's bag
    before = machine.manager.handed()
    machine.preserve("ram", {2: b"three"})
    now = machine.manager.names
    for entry in before:
        if entry.name in now:
            entry.fd.close()
        else:
            machine.manager.entries.append((entry.name, entry.fd.hand_on()))
    machine.manager.entries.sort(reverse=order < 0)
    machine.start_anew()
    assert machine.contents("ram") == {0: b"one", 1: b"two", 2: b"three"}
    assert keeps_what_is_needed(machine)


@pytest.mark.usefixtures("may_warn")
def test_where_the_store_brings_one_too_few_the_others_are_there(machine, alice):
    for lost in itertools.count():
        clean(machine)
        machine.create("ram", b"one", b"two")
        machine.create("other", b"x")
        names = sorted(set(machine.manager.names))
        if lost == len(names):
            break
        machine.stop()
        machine.manager.forget(names[lost])
        if machine.impossible():
            continue
        found = machine.everything()
        wrong = [name for name in BEFORE if found[name] != BEFORE[name]]
        assert len(wrong) == 1
        assert found[wrong[0]] in ("SessionLost", "RetrieveFailed")
        assert len(machine.recovered.notes) == (found[wrong[0]] == "RetrieveFailed")
    assert lost == 5
