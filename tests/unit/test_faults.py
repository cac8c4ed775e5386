"""Whatever call fails, and wherever: what luod acknowledged is there, what it didn't is wholly there or wholly not."""

import errno
import itertools
import logging
import os
from contextlib import suppress

import pytest

from faults import Faults
from interrupted import BEFORE, INCOMING, OUTGOING, after, clean, come_over, kexec, set_up
from luod import errors
from luod.kernel.api import KernelError
from luod.lifecycle import State
from luod.manifest import replay
from luod.store import MIN_BYTES, Journal

ERRNOS = (errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EIO)


@pytest.fixture
def machine(kept_machine, caplog):
    caplog.set_level(logging.CRITICAL, logger="luod")  # what it says of failures is not looked at here
    return kept_machine


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


def refusal(act):
    """Why a request was refused; None where it was served."""
    try:
        act()
    except (errors.WireError, KernelError) as error:
        return error
    return None


def footprint(machine):
    """How many descriptors this process has, and how many entries the fd store; what the kernel holds.

    Without what is kept, and reported, because nobody knows it.
    """
    unclear, entries = len(machine.recovered.unclear.said()), len(machine.manager.names)
    return machine.open_descriptors() - unclear, entries - unclear, machine.in_kernel(), len(machine.journals())


def let_go_of_all(machine, alice):
    for session in machine.custodian.sessions():
        end = machine.custodian.discard if session.state in (State.OUTGOING, State.LOST) else machine.custodian.finish
        end(alice, session.name)


# In the middle of a request


REQUESTS = [
    *(pytest.param(set_up, *OUTGOING[what], id=what) for what in OUTGOING),
    *(pytest.param(come_over, *INCOMING[what], id=f"{what}, of what came over") for what in INCOMING),
]


def update(machine, alice, name):
    """A live update after which this session is there, wherever it comes from."""
    with suppress(errors.SessionNotFound, errors.WrongDirection):
        machine.custodian.rearm(alice, name)
    kexec(machine)


@pytest.fixture
def full_journal(monkeypatch):
    """Every record takes a new journal, a small one."""
    monkeypatch.setattr("luod.store.MIN_BYTES", 1 << 12)
    monkeypatch.setattr(Journal, "_behind", property(lambda journal: True, lambda journal, behind: None), raising=False)


@pytest.mark.usefixtures("full_journal")
@pytest.mark.parametrize("seen", [True, False], ids=["as its owner sees it", "as the next luod and kernel find it"])
@pytest.mark.parametrize(("prepare", "act", "changes"), REQUESTS)
def test_a_call_that_fails_leaves_a_request_done_or_not_begun(machine, alice, faults, prepare, act, changes, seen):
    nothing = footprint(machine)
    for number, nth in faults.each_call(ERRNOS if seen else (errno.EMFILE, errno.EIO)):
        prepare(machine, alice)
        with faults.strike(nth, number):
            failed = refusal(lambda: act(machine, alice))
        assert not isinstance(failed, errors.NotPreservable)  # the file is as good as any
        there = BEFORE if failed else after(changes)
        if seen:
            assert machine.everything() == there
            if failed:
                act(machine, alice)
                assert machine.everything() == after(changes)
        else:
            machine.start_anew()
            # A session that the kernel has finished can't be told from one that it hasn't.
            assert machine.recovered.unclear.said() == [] or faults.struck == "FDSTOREREMOVE"
            assert machine.everything() == there
            update(machine, alice, "ram")
            assert machine.everything() == there
        if prepare is set_up:
            machine.again.close()
        let_go_of_all(machine, alice)
        assert footprint(machine) == nothing
        assert faults.struck or not failed


def test_where_no_more_descriptors_may_be_on_their_way_a_limit_is_told(machine, alice, faults):
    told = {}
    for number, nth in faults.each_call([errno.ETOOMANYREFS]):
        clean(machine)
        machine.create("ram")
        with faults.strike(nth, number):
            told[faults.struck] = refusal(lambda: machine.preserve("ram", {4: b"four"}))
    assert told["sendmsg in Bag._send"].quota == told["PRESERVE_FD"].quota == "descriptors"


# In the middle of a start


def dead(machine, alice):
    clean(machine)  # so that each start makes the same calls: journals have two names, in turn
    set_up(machine, alice)
    machine.again.close()
    machine.stop()


def dead_and_shuffled(machine, alice):
    """What the fd store brings has no order: here the bags come first."""
    dead(machine, alice)
    machine.manager.entries.reverse()


def rebooted(machine, alice):
    dead(machine, alice)  # which changes nothing: the kernel has what the fd store has
    machine.boot()
    machine.next_kernel()


def start(machine):
    """Why luod didn't start; None where it did."""
    try:
        return machine.impossible()
    except (errors.WireError, KernelError) as error:
        machine.fd_store.close()
        machine.kernel.close()
        return str(error)


@pytest.mark.parametrize("end", [rebooted, dead, dead_and_shuffled])
def test_a_call_that_fails_in_a_start_loses_nothing(machine, alice, faults, end):
    nothing = footprint(machine)
    for number, nth in faults.each_call(ERRNOS):
        end(machine, alice)
        with faults.strike(nth, number):
            start(machine)
        machine.start_anew()
        assert machine.everything() == BEFORE
        assert machine.recovered.unclear.said() == []
        let_go_of_all(machine, alice)
        assert footprint(machine) == nothing


def set_up_by_another(machine, alice):
    """By a luod that has ended: what is put in now needs a new bag."""
    set_up(machine, alice)
    machine.start_anew()


BEGUN = {
    "preserve": (set_up_by_another, *OUTGOING["preserve"]),
    "unpreserve all": (set_up, *OUTGOING["unpreserve all"]),
    "rearm": (come_over, *INCOMING["rearm"]),
}


@pytest.mark.parametrize("what", BEGUN)
def test_a_call_that_fails_while_what_was_begun_is_ended_loses_nothing(machine, alice, faults, what):
    prepare, act, changes = BEGUN[what]
    nothing = footprint(machine)
    for steps in itertools.count(step=2):  # after one call, and not also before the next
        for number, nth in faults.each_call([ERRNOS[steps // 2 % len(ERRNOS)]]):
            prepare(machine, alice)
            if what in INCOMING:
                machine.contents("ram")  # else it is lost with whoever retrieves it
            else:
                machine.again.close()
            killed = machine.is_unplugged_after(steps, lambda: act(machine, alice))
            machine.stop()
            with faults.strike(nth, number):
                start(machine)
            machine.start_anew()
            assert machine.everything() in ((BEFORE, after(changes)) if killed else (after(changes),))
            # A session that the kernel has finished can't be told from one that it hasn't.
            assert machine.recovered.unclear.said() == [] or faults.struck == "FDSTOREREMOVE"
            let_go_of_all(machine, alice)
            assert footprint(machine) == nothing
        if not killed:
            break


# The journal


def journal_of(machine):
    """Its memory, as the fd store has it, and where its records end."""
    [fd] = [fd for _, fd in machine.manager.entries if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:luod-")]
    return fd, replay(os.pread(fd, MIN_BYTES, 0))[1]


def test_of_a_journal_cut_off_at_any_byte_what_was_acknowledged_before_it_is_there(machine):
    acts = [
        (lambda: machine.create("ram"), {"ram": {}}),
        (lambda: machine.preserve("ram", {4: b"four"}), {"ram": {4: b"four"}}),
    ]
    for cut in itertools.count():
        clean(machine)
        acknowledged = [(journal_of(machine)[1], {})]
        for act, there in acts:
            act()
            memfd, end = journal_of(machine)
            acknowledged.append((end, there))
        os.pwrite(memfd, bytes(end - cut), cut)
        machine.stop()
        reason = start(machine)
        assert bool(reason) == (cut < acknowledged[0][0])
        if not reason:
            assert machine.everything() == [there for end, there in acknowledged if end <= cut][-1]
            assert machine.recovered.unclear.said() == []
        if cut == end:
            break


def test_a_journal_damaged_before_its_last_record_is_not_used(machine):
    machine.create("ram", b"one")
    memfd, end = journal_of(machine)
    for byte in range(0, end - 80, 7):
        whole = os.pread(memfd, 1, byte)
        machine.stop()
        os.pwrite(memfd, bytes([whole[0] ^ 1]), byte)
        assert "can't be read" in start(machine)
        os.pwrite(memfd, whole, byte)
        machine.boot()
        assert machine.everything() == {"ram": {0: b"one"}}
