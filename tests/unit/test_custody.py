"""What luod says that it holds is what the kernel holds, whatever fails; what it couldn't do has not happened."""

import errno
import fcntl
import itertools
import os
import random
import resource
from contextlib import contextmanager, suppress
from threading import Thread

import pytest

from interrupted import BEFORE, OUTGOING, after, set_up
from luod import errors
from luod.kernel.api import Call, KernelError
from luod.lifecycle import FileState, Mode, State
from luod.memory import Given
from luod.names import TOKEN_MAX
from luod.recovery import RestoreImpossible
from luod.sim.client import SimKernel
from memory import content, memfd, memfds

NO_MEMORY = "the journal can't be written"


@contextmanager
def opened_by_someone_else(control):
    """Another process has the device."""
    with SimKernel(control.path).open():
        yield


# Sessions


def test_a_new_session_is_there_and_empty(machine, alice):
    session, lent = machine.custodian.create(alice, "ram", Mode.CUSTODIAL, {"stage": "1"}, "x.service")
    assert lent is None
    assert (session.name, session.uid, session.labels, session.unit) == ("ram", alice.uid, {"stage": "1"}, "x.service")
    assert (session.state, session.generation, session.files) == (State.OUTGOING, 0, {})
    assert machine.custodian.session(alice.uid, "ram") == session
    assert machine.in_kernel() == {session.kernel_name: {}}
    assert machine.contents("ram") == {}
    assert machine.changes


def test_names_are_each_owners_own(machine, alice, bob):
    machine.create("ram", b"alice's", owner=alice)
    machine.create("ram", b"bob's", owner=bob)
    assert (machine.contents("ram", alice), machine.contents("ram", bob)) == ({0: b"alice's"}, {0: b"bob's"})
    machine.custodian.discard(alice, "ram")
    with pytest.raises(errors.SessionNotFound):
        machine.contents("ram", alice)
    assert machine.contents("ram", bob) == {0: b"bob's"}
    assert [session.uid for session in machine.custodian.sessions()] == [bob.uid]
    assert machine.custodian.sessions(alice.uid) == []
    assert machine.is_of_one_mind()


@pytest.mark.parametrize(
    "ask",
    [
        lambda it, owner: it.preserve(owner, "ram", []),
        lambda it, owner: it.unpreserve(owner, "ram", [0]),
        lambda it, owner: it.retrieve(owner, "ram", None),
        lambda it, owner: it.finish(owner, "ram"),
        lambda it, owner: it.rearm(owner, "ram"),
        lambda it, owner: it.discard(owner, "ram"),
        lambda it, owner: it.claim(owner, "ram"),
        lambda it, owner: it.session(owner.uid, "ram"),
    ],
)
def test_nobody_reaches_what_is_anothers(machine, alice, bob, ask):
    machine.create("ram", b"secret", owner=alice)
    with pytest.raises(errors.SessionNotFound):
        ask(machine.custodian, bob)
    assert machine.contents("ram", alice) == {0: b"secret"}


def test_a_name_that_is_taken_leaves_nothing_behind(machine):
    machine.create("ram", b"x")
    with pytest.raises(errors.SessionExists):
        machine.create("ram")
    assert machine.is_of_one_mind()


def test_what_is_shown_is_a_copy(machine, alice):
    machine.create("ram", b"x")
    machine.custodian.session(alice.uid, "ram").files.clear()
    machine.custodian.sessions()[0].labels["a"] = "b"
    machine.custodian.document().sessions[0].files.clear()
    assert machine.contents("ram") == {0: b"x"}
    assert machine.custodian.session(alice.uid, "ram").labels == {}


@pytest.mark.parametrize("call", [Call.OPEN, Call.CREATE_SESSION])
def test_a_session_that_the_kernel_does_not_make_is_not_there(machine, call):
    machine.control.fault(call, errno.ENOMEM)
    with pytest.raises(KernelError):
        machine.create("ram")
    assert machine.custodian.sessions() == []
    machine.create("ram")
    assert machine.is_of_one_mind()


def test_a_session_that_cannot_be_written_down_is_not_there(machine):
    machine.journal.fails_at = 1
    with pytest.raises(KernelError):
        machine.create("ram")
    assert machine.custodian.sessions() == []
    assert machine.is_of_one_mind()
    machine.create("ram")
    assert machine.is_of_one_mind()


def test_a_kernels_name_that_is_taken_is_passed_over(machine):
    with SimKernel(machine.control.path).open() as device:
        taken = [device.create_session(f"luod-0-{number}") for number in range(3)]
    machine.create("ram")
    for session in taken:
        session.give_up()
    assert machine.is_of_one_mind()


# Delegated sessions


def test_a_delegated_session_is_lent_and_luod_touches_no_file_of_it(machine, alice):
    session, lent = machine.custodian.create(alice, "vm", Mode.DELEGATED, {}, None)
    kernel = SimKernel(machine.control.path).adopt(lent)
    with memfd(b"guest") as fd:
        kernel.preserve_fd(fd.fileno(), 2**64 - 2)
    kernel.give_up()
    assert machine.in_kernel() == {session.kernel_name: {2**64 - 2: 5}}
    with pytest.raises(errors.WrongMode):
        machine.preserve("vm", {0: b"x"})
    for _ in range(2):
        machine.kexec()
        for _ in range(2):
            with suppress(errors.SessionLost):
                shown, lent = machine.custodian.claim(alice, "vm")
                assert shown == machine.custodian.session(alice.uid, "vm")
                with lent, SimKernel(machine.control.path).adopt(lent).retrieve_fd(2**64 - 2) as back:
                    assert content(back) == b"guest"
    machine.custodian.discard(alice, "vm")
    assert machine.custodian.sessions() == []


def test_a_delegated_session_is_finished_by_luod_for_its_owner(machine, alice):
    machine.custodian.create(alice, "vm", Mode.DELEGATED, {}, None)[1].close()
    with pytest.raises(errors.WrongDirection):
        machine.custodian.finish(alice, "vm")
    machine.kexec()
    with pytest.raises(errors.WrongMode):
        machine.custodian.rearm(alice, "vm")
    machine.custodian.finish(alice, "vm")
    assert machine.in_kernel("incoming") == {}


def test_a_file_in_a_delegated_session_is_known_by_the_kernel_to_be_preserved(machine, alice):
    machine.create("ram", b"x")
    _, lent = machine.custodian.create(alice, "vm", Mode.DELEGATED, {}, None)
    with lent, memfd(b"both") as fd, memfd(b"new") as new:
        SimKernel(machine.control.path).adopt(lent).preserve_fd(fd.fileno(), 1)
        with pytest.raises(errors.AlreadyPreserved) as caught:
            machine.give("ram", {7: new, 8: fd})
    assert caught.value.file_descriptor_index == 1
    assert machine.contents("ram") == {0: b"x"}


# Preserve


def test_tokens_that_are_left_out_are_chosen_beside_those_that_are_given(machine, alice):
    machine.create("ram", b"zero")
    with memfds(b"a", b"b", b"c") as (a, b, c):
        given = [Given(0, a), Given(1, b, 5, "five"), Given(2, c)]
        files = machine.custodian.preserve(alice, "ram", given)
        assert [(file.token, file.name, file.size, file.state) for file in files] == [
            (6, None, 1, FileState.HELD),
            (5, "five", 1, FileState.HELD),
            (7, None, 1, FileState.HELD),
        ]
    machine.preserve("ram", {TOKEN_MAX: b"last"})
    with memfds(b"d", b"e") as (d, e):
        files = machine.custodian.preserve(alice, "ram", [Given(0, d), Given(1, e)])
        assert [file.token for file in files] == [1, 2]
    assert machine.contents("ram") == {
        0: b"zero", 5: b"b", 6: b"a", 7: b"c", TOKEN_MAX: b"last", 1: b"d", 2: b"e",
    }  # fmt: skip


def test_luod_keeps_a_duplicate_of_its_own(machine):
    with memfd(b"shared") as fd:
        machine.create("ram")
        machine.give("ram", {0: fd})
    assert machine.contents("ram") == {0: b"shared"}
    machine.kexec()
    assert machine.contents("ram") == {0: b"shared"}


PRESERVE_FAILS = [
    *((Call.PRESERVE_FD, nth, number) for nth in (1, 2, 3) for number in (errno.ENOMEM, errno.EBUSY)),
    ("journal", 1, errno.ENOMEM),
    ("journal", 2, errno.ENOMEM),
]


@pytest.mark.parametrize("with_others", [True, False], ids=["beside others", "alone"])
@pytest.mark.parametrize(("what", "nth", "number"), PRESERVE_FAILS)
def test_all_files_are_preserved_or_none(machine, alice, what, nth, number, with_others):
    machine.create("ram", *([b"there"] if with_others else []))
    before = machine.custodian.session(alice.uid, "ram").held(), machine.contents("ram")
    descriptors = len(os.listdir("/proc/self/fd"))
    with memfds(b"one", b"two", b"three") as made:
        files = dict(enumerate(made, 10))
        if what == "journal":
            machine.journal.fails_at = nth
        else:
            machine.control.fault(what, number, nth)
        with pytest.raises((KernelError, errors.AlreadyPreserved)):
            machine.give("ram", files)
        assert machine.custodian.session(alice.uid, "ram").held() == before[0] or with_others
        assert machine.contents("ram") == before[1]
        assert machine.is_of_one_mind()
        assert machine.give("ram", files)  # the same files may come again
        assert machine.contents("ram") == before[1] | {10: b"one", 11: b"two", 12: b"three"}
        assert machine.is_of_one_mind()
        machine.custodian.unpreserve(alice, "ram", [10, 11, 12])
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_files_that_were_never_the_kernels_may_go_elsewhere(machine):
    machine.create("ram", b"x")
    machine.create("other")
    with memfds(b"one", b"two") as (one, two):
        machine.control.fault(Call.PRESERVE_FD, errno.ENOMEM, 2)
        with pytest.raises(KernelError):
            machine.give("ram", {1: one, 2: two})
        machine.give("other", {2: two})
        with pytest.raises(errors.AlreadyPreserved):
            machine.give("other", {1: one})  # a tombstone in `ram`
    assert machine.is_of_one_mind()


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EBUSY, errors.AlreadyPreserved),
        (errno.ENOENT, errors.NotPreservable),
        (errno.EOPNOTSUPP, errors.NotPreservable),
        (errno.EFBIG, errors.NotPreservable),
        (errno.EBADF, errors.NotPreservable),
        (errno.ENOMEM, KernelError),
        (errno.ENOSPC, KernelError),
    ],
)
def test_the_kernels_refusal_is_told_of_the_file_that_it_refuses(machine, number, error):
    machine.create("ram")
    machine.control.fault(Call.PRESERVE_FD, number, 2)
    with pytest.raises(error) as caught:
        machine.preserve("ram", {1: b"one", 2: b"two"})
    assert getattr(caught.value, "file_descriptor_index", 1) == 1
    assert machine.contents("ram") == {}


def test_a_file_that_comes_twice_is_refused_in_the_same_message_and_in_another(machine):
    machine.create("ram")
    with memfd(b"one") as fd, fd.duplicate() as again:
        with pytest.raises(errors.AlreadyPreserved) as caught:
            machine.give("ram", {0: fd, 1: again})
        assert caught.value.file_descriptor_index == 1
        machine.give("ram", {0: fd})
        with pytest.raises(errors.AlreadyPreserved):
            machine.give("ram", {1: again})
    assert machine.contents("ram") == {0: b"one"}
    assert machine.is_of_one_mind()


def test_a_token_that_is_taken_is_refused(machine):
    machine.create("ram", b"one")
    with pytest.raises(errors.TokenInUse):
        machine.preserve("ram", {3: b"x", 0: b"two"})
    assert machine.contents("ram") == {0: b"one"}


def test_no_file_at_all_is_nothing(machine, alice):
    machine.create("ram")
    assert machine.custodian.preserve(alice, "ram", []) == []
    assert machine.is_of_one_mind()
    machine.kexec()
    assert machine.contents("ram") == {}


# Tombstones


def tombstones(machine, alice, name="ram"):
    session = machine.custodian.session(alice.uid, name)
    return [token for token, file in session.files.items() if file.state is FileState.TOMBSTONE]


def test_an_unpreserved_file_is_a_tombstone_until_the_last_live_file_goes(machine, alice):
    machine.create("ram", b"one", b"two", b"three")
    [session] = machine.in_kernel()
    assert machine.custodian.unpreserve(alice, "ram", [0]) is False
    assert machine.custodian.unpreserve(alice, "ram", [1, 1]) is False
    assert machine.in_kernel()[session].keys() == {0, 1, 2}
    assert machine.contents("ram") == {2: b"three"}
    assert tombstones(machine, alice) == [0, 1]
    with pytest.raises(errors.TokenNotFound):
        machine.contents("ram", tokens=[0])
    with pytest.raises(errors.TokenNotFound):
        machine.custodian.unpreserve(alice, "ram", [0])
    assert machine.custodian.unpreserve(alice, "ram", [2]) is True
    [successor] = machine.in_kernel()
    assert successor != session
    assert machine.in_kernel()[successor] == {}
    assert machine.is_of_one_mind()
    assert machine.kexec()
    assert machine.contents("ram") == {}


def test_tokens_of_tombstones_are_free_for_other_files(machine, alice):
    machine.create("ram", b"one", b"two")
    machine.custodian.unpreserve(alice, "ram", [0])
    machine.preserve("ram", {0: b"new"})
    assert machine.contents("ram") == {0: b"new", 1: b"two"}
    machine.kexec()
    assert machine.contents("ram") == {0: b"new", 1: b"two"}


def test_a_tombstone_is_revived_when_its_file_comes_again(machine, alice):
    machine.create("ram", b"live")
    with memfd(b"again") as fd:
        for token in (5, 6, 7):
            machine.give("ram", {token: fd})
            assert machine.contents("ram") == {0: b"live", token: b"again"}
            assert machine.custodian.unpreserve(alice, "ram", [token]) is False
            assert machine.is_of_one_mind()
        machine.give("ram", {8: fd})
        assert len(machine.custodian.session(alice.uid, "ram").files) == 2
    machine.kexec()
    assert machine.contents("ram") == {0: b"live", 8: b"again"}


def test_a_failed_preserve_leaves_a_revived_file_a_tombstone(machine, alice):
    machine.create("ram", b"live")
    with memfd(b"again") as fd, memfd(b"new") as new:
        machine.give("ram", {5: fd})
        machine.custodian.unpreserve(alice, "ram", [5])
        for fails_at in (1, 2):
            machine.journal.fails_at = fails_at
            with pytest.raises(KernelError):
                machine.give("ram", {6: fd})
            assert machine.contents("ram") == {0: b"live"}
            assert machine.is_of_one_mind()
        machine.control.fault(Call.PRESERVE_FD, errno.ENOMEM)
        with pytest.raises(KernelError):
            machine.give("ram", {6: fd, 7: new})
        assert tombstones(machine, alice) == [1]
        machine.give("ram", {6: fd, 7: new})
        assert machine.contents("ram") == {0: b"live", 6: b"again", 7: b"new"}
        assert machine.is_of_one_mind()


def test_seals_that_a_tombstone_lacks_are_not_lost_without_a_word(machine, alice):
    machine.create("ram", b"live")
    with memfd(b"again") as fd:
        machine.give("ram", {5: fd})
        machine.custodian.unpreserve(alice, "ram", [5])
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        with pytest.raises(errors.NotPreservable, match="seals"):
            machine.give("ram", {5: fd})
        assert machine.custodian.unpreserve(alice, "ram", [0]) is True
        machine.give("ram", {5: fd})
        assert machine.contents("ram") == {5: b"again"}


def test_a_tombstone_is_no_file_for_another_session(machine, alice):
    machine.create("ram", b"live")
    machine.create("other")
    with memfd(b"mine") as fd:
        machine.give("ram", {5: fd})
        with pytest.raises(errors.AlreadyPreserved):
            machine.give("other", {5: fd})
        machine.custodian.unpreserve(alice, "ram", [5])
        with pytest.raises(errors.AlreadyPreserved):
            machine.give("other", {5: fd})
        machine.custodian.discard(alice, "ram")
        machine.give("other", {5: fd})
        assert machine.contents("other") == {5: b"mine"}
    assert machine.is_of_one_mind()


@pytest.mark.parametrize("fails", [(Call.OPEN, 1), (Call.CREATE_SESSION, 1)])
@pytest.mark.warns("keeps what was taken out of it")
def test_memory_that_could_not_be_freed_is_not_said_to_be(machine, alice, fails):
    machine.create("ram", b"one")
    machine.control.fault(fails[0], errno.ENOMEM, fails[1])
    assert machine.custodian.unpreserve(alice, "ram", [0]) is False
    assert machine.contents("ram") == {}
    assert machine.is_of_one_mind()
    machine.preserve("ram", {0: b"two"})
    assert machine.custodian.unpreserve(alice, "ram", [0]) is True
    assert list(machine.in_kernel().values()) == [{}]


@pytest.mark.warns("keeps what was taken out of it")
def test_a_renewal_that_cannot_be_written_down_leaves_the_session_as_it_is(machine, alice):
    machine.create("ram", b"one")
    machine.journal.fails_at = 2
    assert machine.custodian.unpreserve(alice, "ram", [0]) is False
    assert machine.is_of_one_mind()
    machine.kexec()
    assert machine.everything() == {"ram": {}}


def test_an_unpreserve_that_cannot_be_written_down_has_not_happened(machine, alice):
    machine.create("ram", b"one")
    machine.journal.fails_at = 1
    with pytest.raises(KernelError):
        machine.custodian.unpreserve(alice, "ram", [0])
    assert machine.contents("ram") == {0: b"one"}


@pytest.mark.warns(NO_MEMORY)
def test_a_journal_that_fell_behind_catches_up_with_the_next_record(machine, alice):
    machine.create("ram", b"one")
    machine.journal.fails_at = 3  # the record that says that the session was renewed
    assert machine.custodian.unpreserve(alice, "ram", [0]) is True
    machine.create("other", b"x")
    assert machine.is_of_one_mind()
    before = machine.custodian.sessions()
    machine.kexec()
    assert machine.everything() == {"ram": {}, "other": {0: b"x"}}
    assert [session.kernel_name for session in machine.custodian.sessions()] == [each.kernel_name for each in before]


@pytest.mark.warns(NO_MEMORY)
def test_an_update_while_the_journal_is_behind_loses_nothing(machine, alice):
    machine.create("ram", b"one")
    machine.journal.fails_at = 3
    assert machine.custodian.unpreserve(alice, "ram", [0]) is True
    machine.kexec()
    assert machine.everything() == {"ram": {}}


# Retrieve


def test_files_come_back_in_pages(machine, alice):
    machine.create("ram")
    for start in range(0, 600, 200):
        machine.preserve("ram", {token: b"%d" % token for token in range(start, start + 200)})
    for _ in range(2):
        lent, rest = machine.custodian.retrieve(alice, "ram", None)
        for file in lent:
            file.fd.close()
        assert ([file.token for file in lent], rest) == (list(range(253)), list(range(253, 600)))
        assert machine.contents("ram") == {token: b"%d" % token for token in range(600)}
        assert list(machine.contents("ram", tokens=[599, 3, 3, 400])) == [599, 3, 400]
        assert machine.contents("ram", tokens=[]) == {}
        machine.kexec()
    assert machine.everything() == {"ram": "SessionLost"}


def test_a_file_says_whether_it_was_handed_back_since_the_last_update(machine, alice):
    machine.create("ram", b"one", b"two")

    def retrieved():
        return [file.retrieved for file in machine.custodian.session(alice.uid, "ram").files.values()]

    machine.contents("ram", tokens=[1])
    assert retrieved() == [False, True]
    machine.kexec()
    assert retrieved() == [False, False]
    machine.contents("ram", tokens=[0])
    assert retrieved() == [True, False]
    with pytest.raises(errors.TokenNotFound):
        machine.contents("ram", tokens=[1, 9])
    assert retrieved() == [True, False]


def test_a_retrieve_that_cannot_be_written_down_hands_out_nothing(machine):
    machine.create("ram", b"one")
    machine.journal.fails_at = 1
    with pytest.raises(KernelError):
        machine.contents("ram")
    assert machine.contents("ram") == {0: b"one"}


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EIO])
def test_a_file_that_the_kernel_cannot_give_back_spares_the_others(machine, alice, number):
    machine.create("ram", b"one", b"two", b"three")
    machine.kexec()
    machine.control.fault(Call.RETRIEVE_FD, number, 2)
    for _ in range(2):
        with pytest.raises(errors.RetrieveFailed) as caught:
            machine.contents("ram")
        assert (caught.value.token, caught.value.errno) == (1, number)
    assert machine.contents("ram", tokens=[0, 2]) == {0: b"one", 2: b"three"}
    with pytest.raises(errors.RetrieveFailed):
        machine.custodian.rearm(alice, "ram")
    machine.custodian.finish(alice, "ram")


def test_a_session_that_did_not_come_over_is_lost_and_says_so(machine, alice):
    machine.create("ram", b"one")
    kernel_name = machine.custodian.session(alice.uid, "ram").kernel_name
    machine.control.kexec()
    with SimKernel(machine.control.path).open() as device:
        device.retrieve_session(kernel_name).give_up()
    machine.start_anew()
    for _ in range(2):
        with pytest.raises(errors.SessionLost, match=kernel_name):
            machine.contents("ram")
        machine.kexec()
    with pytest.raises(errors.SessionLost):
        machine.custodian.finish(alice, "ram")
    with pytest.raises(errors.SessionExists):
        machine.create("ram")
    machine.custodian.discard(alice, "ram")
    machine.create("ram")


def test_a_lost_session_holds_nothing_and_counts_for_nothing(machine, alice):
    machine.limits = {"files_per_owner": 2}
    machine.create("ram", b"12345", b"678")
    assert machine.custodian.totals()[2:] == (1, 2, 8)
    machine.kexec()
    assert machine.custodian.totals()[1:] == (1, 1, 2, 8)
    machine.kexec()
    assert machine.custodian.totals()[2:] == (1, 0, 0)
    machine.create("new", b"x", b"y")


@pytest.mark.parametrize("call", [Call.OPEN, Call.RETRIEVE_SESSION])
def test_a_session_that_could_not_be_opened_yet_is_not_lost(machine, call):
    machine.create("ram", b"one")
    machine.kexec()
    machine.control.fault(call, errno.ENOMEM)
    with pytest.raises(KernelError):
        machine.contents("ram")
    with opened_by_someone_else(machine.control), pytest.raises(KernelError):
        machine.contents("ram")
    assert machine.contents("ram") == {0: b"one"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_came_over_is_its_owners(machine, bob):
    machine.create("ram", b"bob's", owner=bob)
    machine.kexec()
    [file], _ = machine.custodian.retrieve(bob, "ram", None)
    with file.fd as fd:
        status = os.fstat(fd.fileno())
        assert (status.st_uid, status.st_gid) == (bob.uid, bob.gid)
    machine.custodian.rearm(bob, "ram")
    assert machine.contents("ram", bob) == {0: b"bob's"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
@pytest.mark.warns("can't be given to uid")
def test_a_file_that_cannot_be_given_to_its_owner_is_handed_back_all_the_same(machine, bob):
    machine.create("ram", b"one", b"two", owner=bob)
    machine.kexec()
    machine.contents("ram", bob, tokens=[0])
    os.seteuid(65534)
    try:
        assert machine.contents("ram", bob) == {0: b"one", 1: b"two"}
    finally:
        os.seteuid(0)


# Finish and rearm


def test_a_finished_session_is_gone_and_its_name_free(machine, alice):
    machine.create("ram", b"one", b"two")
    machine.custodian.unpreserve(alice, "ram", [1])
    machine.kexec()
    [file], _ = machine.custodian.retrieve(alice, "ram", None)
    machine.custodian.finish(alice, "ram")
    assert machine.in_kernel("incoming") == {}
    with file.fd:
        machine.create("ram")
        machine.give("ram", {0: file.fd})
        assert machine.contents("ram") == {0: b"one"}
    assert machine.is_of_one_mind()


def test_a_session_that_nobody_retrieved_can_be_finished(machine, alice):
    machine.create("ram", b"one")
    machine.kexec()
    machine.custodian.finish(alice, "ram")
    assert machine.in_kernel("incoming") == {}
    with pytest.raises(errors.SessionNotFound):
        machine.custodian.finish(alice, "ram")


@pytest.mark.parametrize("call", [Call.OPEN, Call.RETRIEVE_SESSION, Call.FINISH])
def test_a_finish_that_fails_changes_nothing(machine, alice, call):
    machine.create("ram", b"one")
    machine.kexec()
    machine.control.fault(call, errno.EBUSY)
    with pytest.raises((KernelError, errors.FinishRefused)) as caught:
        machine.custodian.finish(alice, "ram")
    assert isinstance(caught.value, errors.FinishRefused) is (call is Call.FINISH)
    assert machine.contents("ram") == {0: b"one"}
    machine.custodian.finish(alice, "ram")
    assert machine.custodian.sessions() == []


@pytest.mark.warns(NO_MEMORY)
def test_a_finish_that_cannot_be_written_down_has_happened_all_the_same(machine, alice):
    machine.create("ram", b"one")
    machine.kexec()
    machine.journal.fails_at = 2
    machine.custodian.finish(alice, "ram")
    assert machine.custodian.sessions() == []
    machine.create("ram", b"two")
    machine.kexec()
    assert machine.everything() == {"ram": {0: b"two"}}


def test_a_rearmed_session_has_all_but_its_tombstones_under_the_same_tokens(machine, alice):
    machine.create("ram", b"one", b"two", b"three")
    machine.custodian.unpreserve(alice, "ram", [1])
    for generation in (1, 2, 3):
        machine.kexec()
        machine.custodian.rearm(alice, "ram")
        session = machine.custodian.session(alice.uid, "ram")
        assert (session.state, session.generation) == (State.OUTGOING, generation)
        assert machine.contents("ram") == {0: b"one", 2: b"three"}
        assert machine.in_kernel("incoming") == {}
        assert machine.is_of_one_mind()


def test_a_rearmed_file_has_the_size_that_it_has_now(machine, alice):
    machine.create("ram", b"one", b"two")
    machine.kexec()
    lent, _ = machine.custodian.retrieve(alice, "ram", None)
    os.pwrite(lent[0].fd.fileno(), b"longer than before", 0)
    for file in lent:
        file.fd.close()
    machine.custodian.rearm(alice, "ram")
    assert [file.size for file in machine.custodian.session(alice.uid, "ram").files.values()] == [18, 3]
    assert machine.is_of_one_mind()
    machine.kexec()
    assert machine.contents("ram") == {0: b"longer than before", 1: b"two"}


def test_a_rearm_allocates_no_memory_that_its_owner_has_not(machine, alice):
    machine.create("ram", b"one")
    machine.kexec()
    [file], _ = machine.custodian.retrieve(alice, "ram", None)
    with file.fd as fd:
        os.ftruncate(fd.fileno(), 1 << 26)
        with pytest.raises(errors.WireError, match="fallocate it first"):
            machine.custodian.rearm(alice, "ram")
        assert os.fstat(fd.fileno()).st_blocks * 512 < 1 << 20
        assert machine.contents("ram")[0].startswith(b"one")
        os.posix_fallocate(fd.fileno(), 0, 1 << 26)
    machine.custodian.rearm(alice, "ram")
    assert machine.is_of_one_mind()


REARM_FAILS = [
    *((what, nth, False) for what, nth in [(Call.OPEN, 2), (Call.RETRIEVE_SESSION, 1)]),
    *(
        (what, nth, retrieved)
        for what, nth in [
            (Call.OPEN, 1),
            (Call.CREATE_SESSION, 1),
            (Call.FINISH, 1),
            (Call.PRESERVE_FD, 1),
            (Call.PRESERVE_FD, 2),
            (Call.PRESERVE_FD, 3),
            ("journal", 1),
        ]
        for retrieved in (True, False)
    ),
]


@pytest.mark.parametrize(("what", "nth", "retrieved"), REARM_FAILS)
def test_a_rearm_that_fails_changes_nothing_and_can_be_tried_again(machine, alice, what, nth, retrieved):
    machine.create("ram", b"one", b"two", b"three", b"gone")
    machine.custodian.unpreserve(alice, "ram", [3])
    machine.kexec()
    if retrieved:
        machine.contents("ram")
    before = machine.custodian.session(alice.uid, "ram")
    if what == "journal":
        machine.journal.fails_at = nth
    else:
        machine.control.fault(what, errno.ENOMEM, nth)
    with pytest.raises((KernelError, errors.FinishRefused, errors.RearmRefused)):
        machine.custodian.rearm(alice, "ram")
    assert machine.custodian.session(alice.uid, "ram") == before
    assert machine.in_kernel() == {}
    assert machine.contents("ram") == {0: b"one", 1: b"two", 2: b"three"}
    machine.custodian.rearm(alice, "ram")
    assert machine.contents("ram") == {0: b"one", 1: b"two", 2: b"three"}
    assert machine.is_of_one_mind()
    machine.kexec()
    assert machine.contents("ram") == {0: b"one", 1: b"two", 2: b"three"}


@pytest.mark.warns(NO_MEMORY)
def test_a_rearm_whose_end_cannot_be_written_down_has_happened_all_the_same(machine, alice):
    machine.create("ram", b"one", b"two")
    machine.kexec()
    machine.journal.fails_at = 2
    machine.custodian.rearm(alice, "ram")
    assert machine.is_of_one_mind()
    machine.kexec()
    assert machine.contents("ram") == {0: b"one", 1: b"two"}


def test_after_a_rearm_that_failed_the_session_can_still_be_finished(machine, alice):
    machine.create("ram", b"one", b"two")
    machine.kexec()
    machine.control.fault(Call.PRESERVE_FD, errno.ENOMEM, 2)
    with pytest.raises(errors.RearmRefused, match="token 1 of session 'ram'"):
        machine.custodian.rearm(alice, "ram")
    lent, _ = machine.custodian.retrieve(alice, "ram", None)
    machine.custodian.finish(alice, "ram")
    machine.create("other")
    machine.give("other", {file.token: file.fd for file in lent})
    for file in lent:
        file.fd.close()
    assert machine.contents("other") == {0: b"one", 1: b"two"}


def test_an_update_after_a_rearm_that_failed_can_be_read(machine, alice):
    machine.create("ram", b"one", b"two")
    machine.create("other", b"x")
    machine.kexec()
    machine.custodian.rearm(alice, "other")
    machine.control.fault(Call.PRESERVE_FD, errno.ENOMEM, 2)
    with pytest.raises(errors.RearmRefused, match="token 1 of session 'ram'"):
        machine.custodian.rearm(alice, "ram")
    machine.kexec()
    assert machine.everything() == {"ram": "SessionLost", "other": {0: b"x"}}


# Limits


def test_sessions_are_limited_for_each_owner(machine, alice, bob):
    machine.limits = {"sessions_per_owner": 2}
    machine.start_anew()
    machine.create("one")
    machine.create("two")
    with pytest.raises(errors.QuotaExceeded) as caught:
        machine.create("three")
    assert (caught.value.quota, caught.value.limit) == ("sessions", 2)
    machine.create("one", owner=bob)
    machine.custodian.discard(alice, "two")
    machine.create("three")
    assert machine.is_of_one_mind()


def test_files_are_limited_for_each_session_and_owner(machine, alice, bob):
    machine.limits = {"files_per_session": 3, "files_per_owner": 4}
    machine.start_anew()
    machine.create("one", b"1", b"2")
    machine.create("two")
    machine.create("one", b"1", b"2", owner=bob)
    with pytest.raises(errors.QuotaExceeded) as caught:
        machine.preserve("one", {2: b"3", 3: b"4"})
    assert (caught.value.quota, caught.value.limit) == ("files in a session", 3)
    machine.preserve("one", {2: b"3"})
    with pytest.raises(errors.QuotaExceeded) as caught:
        machine.preserve("two", {0: b"4", 1: b"5"})
    assert (caught.value.quota, caught.value.limit) == ("files", 4)
    machine.preserve("two", {0: b"4"})
    machine.preserve("one", {2: b"3"}, owner=bob)
    assert machine.is_of_one_mind()


def test_a_file_that_the_kernel_has_already_takes_no_more_room(machine, alice):
    machine.limits = {"files_per_session": 2, "files_per_owner": 2}
    machine.start_anew()
    machine.create("ram", b"live")
    with memfd(b"again") as fd:
        for _ in range(3):
            machine.give("ram", {5: fd})
            machine.custodian.unpreserve(alice, "ram", [5])
    assert machine.is_of_one_mind()


def test_who_has_a_session_finds_room_in_the_fd_store_for_its_files(kept_machine, alice):
    machine = kept_machine
    machine.manager.most = 28
    machine.start_anew()
    made = [f"s{number}" for number in range(6)]
    for name in made:
        machine.create(name)
    with pytest.raises(errors.QuotaExceeded) as caught:
        machine.create("one more")
    assert (caught.value.quota, caught.value.limit) == ("fd store entries", 28)
    for name in made:
        machine.preserve(name, {0: b"one"})
    machine.start_anew()  # each session needs a new bag now, and one at a time a new session of the kernel
    for name in made:
        machine.preserve(name, {1: b"two"})
        machine.custodian.unpreserve(alice, name, [0, 1])
        machine.preserve(name, {2: b"three"})
    assert machine.everything() == {name: {2: b"three"} for name in made}


def test_files_for_which_a_bag_has_no_room_are_refused_and_fit_where_others_went(kept_machine, alice, monkeypatch):
    machine = kept_machine
    monkeypatch.setattr("luod.bag._QUEUE_BYTES", 1 << 13)
    machine.create("ram")
    files = {}

    def refused(page):
        """Why the bag takes no more; None where it took them."""
        try:
            machine.preserve("ram", page)
        except errors.QuotaExceeded as error:
            return error.quota
        files.update(page)
        return None

    pages = (dict.fromkeys(range(start, start + 100), b"%d" % start) for start in itertools.count(step=100))
    page, why = next((page, why) for page in pages if (why := refused(page)))
    assert why == "files in a bag (net.core.wmem_max)"
    assert machine.contents("ram") == files
    machine.custodian.unpreserve(alice, "ram", list(range(100)))
    assert refused(page) is None
    machine.start_anew()
    assert machine.contents("ram") == {token: files[token] for token in files if token >= 100}


def test_descriptors_are_limited_for_all(machine, alice, bob):
    machine.descriptors = 8
    machine.start_anew()
    machine.create("one", b"1")
    machine.create("one", owner=bob)
    with pytest.raises(errors.QuotaExceeded) as caught:
        machine.preserve("one", {2: b"2", 3: b"3"})
    assert (caught.value.quota, caught.value.limit) == ("descriptors", 8)
    machine.preserve("one", {2: b"2"})
    with pytest.raises(errors.QuotaExceeded):
        machine.create("two")
    machine.custodian.discard(bob, "one")
    machine.create("two")


def test_descriptors_are_limited_for_those_who_come_together(machine):
    machine.descriptors = 20
    machine.start_anew()
    for number in range(4):
        machine.create(f"s{number}")
    machine.control.delay(Call.PRESERVE_FD, 0.02)  # so that all are at work before one is done

    def preserve(number):
        with suppress(errors.QuotaExceeded):
            machine.preserve(f"s{number}", dict.fromkeys(range(3), b"x"))

    together(*(lambda number=number: preserve(number) for number in range(4)))
    assert sum(len(session.held()) for session in machine.custodian.sessions()) <= 8
    machine.control.clear_faults()


def together(*works):
    """Do it all at once, each in a thread of its own, and raise what one of them raised."""
    failures = []

    def run(work):
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_a_duplicate_that_finds_no_room_is_told_as_a_limit(machine, alice, few_descriptors):
    machine.create("ram", b"there")
    _, lent = machine.custodian.create(alice, "vm", Mode.DELEGATED, {}, None)
    lent.close()
    with memfd(b"new") as fd:
        with few_descriptors(0):
            for ask in (
                lambda: machine.give("ram", {5: fd}),
                lambda: machine.contents("ram"),
                lambda: machine.custodian.claim(alice, "vm"),
            ):
                with pytest.raises(errors.QuotaExceeded) as caught:
                    ask()
                assert caught.value.quota == "descriptors"
                assert caught.value.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert machine.is_of_one_mind()
        machine.give("ram", {5: fd})
    assert machine.contents("ram") == {0: b"there", 5: b"new"}


@pytest.mark.usefixtures("may_warn")
@pytest.mark.parametrize(
    "what",
    ["create", "delegate", "preserve", "unpreserve", "unpreserve all", "retrieve", "finish", "rearm", "claim"],
)
def test_without_descriptors_a_request_fails_whole_and_says_why(machine, alice, what, few_descriptors):
    custodian = machine.custodian
    incoming = what in ("retrieve", "finish", "rearm", "claim")
    acts = {
        "create": lambda: machine.custodian.create(alice, "new", Mode.CUSTODIAL, {}, None),
        "delegate": lambda: machine.custodian.create(alice, "new", Mode.DELEGATED, {}, None)[1].close(),
        "preserve": lambda: machine.give("ram", dict(enumerate(made, 10))),
        "unpreserve": lambda: machine.custodian.unpreserve(alice, "ram", [0]),
        "unpreserve all": lambda: machine.custodian.unpreserve(alice, "ram", [0, 1]),
        "retrieve": lambda: machine.contents("ram"),
        "finish": lambda: machine.custodian.finish(alice, "ram"),
        "rearm": lambda: machine.custodian.rearm(alice, "ram"),
        "claim": lambda: machine.custodian.claim(alice, "vm")[1].close(),
    }
    with memfds(b"a", b"b", b"c") as made:
        machine.create("ram", b"one", b"two")
        custodian.create(alice, "vm", Mode.DELEGATED, {}, None)[1].close()
        if incoming:
            machine.kexec()
        before = machine.custodian.sessions()
        for count in range(40):
            machine.recovered.journal.fall_behind()
            with few_descriptors(count):
                try:
                    acts[what]()
                except (KernelError, errors.KernelFailed, errors.QuotaExceeded, errors.FinishRefused) as error:
                    failed = error
                else:
                    failed = None
            if failed is None:
                break
            assert getattr(failed, "errno", errno.EMFILE) == errno.EMFILE
            assert [visible(session) for session in machine.custodian.sessions()] == [visible(each) for each in before]
            if not incoming:
                assert machine.is_of_one_mind()
                assert machine.contents("ram") == {0: b"one", 1: b"two"}
        assert failed is None
        assert count > 2


def visible(session):
    """What its owner sees of a session."""
    return session.name, session.state, {file.token: file.size for file in session.held().values()}


# Updates that nobody announced


@pytest.mark.parametrize("behind", [False, True], ids=["", "while the journal is switched"])
@pytest.mark.parametrize("what", OUTGOING)
def test_an_update_in_the_middle_finds_a_request_done_or_not_begun(machine, alice, what, behind):
    act, changes = OUTGOING[what]
    for steps in itertools.count():
        machine.kexec(carry=False)
        set_up(machine, alice)
        if behind:
            machine.recovered.journal.fall_behind()
        interrupted = machine.is_unplugged_after(steps, lambda: act(machine, alice))
        machine.again.close()
        if not interrupted:
            machine.kexec()
            assert machine.everything() == after(changes)
            break
        machine.start_anew()
        assert machine.recovered.notes == [] or behind
        assert machine.everything() in (BEFORE, after(changes))
        assert all(session.generation == 1 for session in machine.custodian.sessions())
    assert steps >= 2 + 6 * behind


@pytest.mark.parametrize("behind", [False, True], ids=["", "while the journal is switched"])
def test_an_update_in_the_middle_of_a_rearm_gives_back_what_had_moved(machine, alice, behind):
    for steps in itertools.count():
        machine.kexec(carry=False)
        machine.create("ram", b"one", b"two")
        machine.create("other", b"x")
        machine.kexec()
        machine.custodian.rearm(alice, "other")
        if behind:
            machine.recovered.journal.fall_behind()
        interrupted = machine.is_unplugged_after(steps, lambda: machine.custodian.rearm(alice, "ram"))
        machine.start_anew() if interrupted else machine.kexec()
        assert machine.everything()["other"] == {0: b"x"}
        if not interrupted:
            assert machine.everything()["ram"] == {0: b"one", 1: b"two"}
            break
        found = machine.custodian.session(alice.uid, "ram")
        if found.state is State.INCOMING:
            for token, text in ((0, b"one"), (1, b"two")):
                with suppress(errors.RetrieveFailed, errors.SessionLost):
                    assert machine.contents("ram", tokens=[token]) == {token: text}
            with suppress(errors.SessionLost):
                machine.custodian.finish(alice, "ram")
        else:
            machine.custodian.discard(alice, "ram")
    assert steps > 10


def test_an_update_in_the_middle_of_a_finish_never_brings_a_session_back(machine, alice):
    for steps in itertools.count():
        machine.kexec(carry=False)
        machine.create("ram", b"one")
        machine.kexec()
        interrupted = machine.is_unplugged_after(steps, lambda: machine.custodian.finish(alice, "ram"))
        machine.start_anew() if interrupted else machine.kexec()
        if not interrupted:
            assert machine.everything() == {}
            break
        assert machine.everything() in ({}, {"ram": "SessionLost"})
    assert steps > 4


def test_an_update_in_the_middle_of_a_start_leaves_a_start_to_the_next_kernel(machine):
    seen = []
    for steps in itertools.count():
        machine.kexec(carry=False)
        machine.create("ram", b"one")
        machine.control.kexec()
        if not machine.is_unplugged_at_start_after(steps):
            break
        try:
            machine.start_anew()
        except RestoreImpossible as impossible:
            seen.append("a journal's session without a journal")
            impossible.give_up_all()
            machine.boot()
        else:
            seen.append(machine.everything())  # nobody took care of it in the kernel in between
    empty, lost = "a journal's session without a journal", {"ram": "SessionLost"}
    assert [found for found, _ in itertools.groupby(seen)] == [{}, empty, lost]
    assert len(seen) > 10


# Many at once


def test_of_many_who_create_a_name_one_has_it(machine):
    won, lost = [], []

    def create(number):
        try:
            machine.create("ram", b"%d" % number)
            won.append(number)
        except errors.SessionExists:
            lost.append(number)

    together(*(lambda number=number: create(number) for number in range(8)))
    assert (len(won), len(lost)) == (1, 7)
    assert machine.contents("ram") == {0: b"%d" % won[0]}
    assert machine.is_of_one_mind()


def test_of_many_who_give_the_same_file_one_has_it(machine):
    for number in range(8):
        machine.create(f"s{number}")
    refused = []
    with memfd(b"wanted") as fd:

        def preserve(number):
            try:
                machine.give(f"s{number}", {0: fd})
            except errors.AlreadyPreserved:
                refused.append(number)

        together(*(lambda number=number: preserve(number) for number in range(8)))
    assert len(refused) == 7
    assert machine.is_of_one_mind()


def test_a_discard_beside_retrieves_is_before_or_after_each(machine, alice):
    for _ in range(20):
        machine.create("ram", *(b"x" * 100,) * 20)
        ended = []

        def retrieve(ended=ended):
            with suppress(errors.SessionNotFound):
                while not ended:
                    assert len(machine.contents("ram")) == 20

        def discard(ended=ended):
            try:
                machine.custodian.discard(alice, "ram")
            finally:
                ended.append(True)

        together(retrieve, retrieve, discard, retrieve)
        assert machine.in_kernel() == {}


@pytest.mark.usefixtures("may_warn")  # without root's rights luod can't give files back to bob
@pytest.mark.parametrize("shared", [True, False], ids=["one session", "sessions of their own"])
def test_many_threads_leave_luod_and_kernel_of_one_mind(machine, alice, bob, shared):
    machine.limits = {"files_per_session": 12, "sessions_per_owner": 3}
    machine.start_anew()
    machine.create("always", b"x")
    common = [memfd(b"common") for _ in range(3)]

    def work(number):
        dice = random.Random(number)
        owner = dice.choice([alice, bob])
        for _ in range(150):
            name = "shared" if shared else f"s{number % 4}"
            tokens = dice.sample(range(6), 2)
            act = dice.randrange(12)
            with suppress(errors.WireError):
                if act == 0:
                    machine.create(name, owner=owner)
                elif act == 1 and dice.random() < 0.3:
                    machine.custodian.discard(owner, name)
                elif act < 5:
                    machine.preserve(name, {token: b"%d" % token for token in tokens}, owner)
                elif act < 7:
                    machine.give(name, {tokens[0]: dice.choice(common)}, owner)
                elif act < 9:
                    machine.custodian.unpreserve(owner, name, [dice.choice(tokens)])
                elif act == 9:
                    machine.custodian.document()
                else:
                    for token, text in machine.contents(name, owner).items():
                        assert text in (b"%d" % token, b"common")

    together(*(lambda number=number: work(number) for number in range(8)))
    for fd in common:
        fd.close()
    assert machine.is_of_one_mind()
    before = {owner: machine.everything(owner) for owner in (alice, bob)}
    assert before[alice]["always"] == {0: b"x"}
    held = machine.custodian.totals()
    machine.kexec()
    assert {owner: machine.everything(owner) for owner in (alice, bob)} == before
    assert machine.custodian.totals()[2:] == held[2:]

    def rearm(owner, session):
        machine.custodian.rearm(owner, session.name)

    works = [
        lambda owner=owner, session=session: rearm(owner, session)
        for owner in (alice, bob)
        for session in machine.custodian.sessions(owner.uid)
    ]
    together(*works)
    assert machine.is_of_one_mind()
    assert {owner: machine.everything(owner) for owner in (alice, bob)} == before


def test_requests_on_other_sessions_go_on_while_one_is_slow(machine, alice):
    machine.create("slow")
    machine.create("quick", b"x")
    machine.control.delay(Call.PRESERVE_FD, 0.3)
    order = []

    def slow():
        machine.preserve("slow", {0: b"large"})
        order.append("slow")

    def quick():
        while not machine.custodian.session(alice.uid, "slow").files:
            pass
        machine.contents("quick")
        machine.custodian.sessions()
        machine.create("new")
        order.append("quick")

    together(slow, quick)
    assert order == ["quick", "slow"]


def test_giving_up_lets_go_of_everything(machine):
    machine.create("ram", b"one")
    machine.create("other", b"two")
    machine.stop()
    assert machine.control.state().sessions == []


class Fuzz:
    """Random requests, each of which may fail, updates in between, and what should be there after each of them."""

    def __init__(self, machine, alice, seed):
        self.machine = machine
        self.alice = alice
        self.dice = random.Random(seed)
        self.there = {}

    def run(self, steps):
        for _ in range(steps):
            act = self.dice.choice([self.create, self.preserve, self.preserve, self.unpreserve, self.discard, self.end])
            name = self.dice.choice("abc")
            if self.dice.random() < 0.4:
                self.sabotage()
            with suppress(errors.WireError, KernelError):
                act(name)
            self.machine.control.clear_faults()
            self.machine.journal.fails_at = 0
            assert self.machine.everything() == self.there
            assert self.machine.is_of_one_mind()
            if self.dice.random() < 0.05:
                self.update()

    def sabotage(self):
        if self.dice.random() < 0.3:
            self.machine.journal.fails_at = self.dice.randint(1, 4)
        else:
            call = self.dice.choice([Call.OPEN, Call.CREATE_SESSION, Call.PRESERVE_FD, Call.FINISH])
            number = self.dice.choice([errno.ENOMEM, errno.EMFILE, errno.EBUSY, errno.ENOSPC])
            self.machine.control.fault(call, number, self.dice.randint(1, 3))

    def create(self, name):
        self.machine.create(name)
        self.there[name] = {}

    def preserve(self, name):
        tokens = self.dice.sample(range(8), self.dice.randint(1, 4))
        new = {token: self.dice.randbytes(4) for token in tokens}
        self.machine.preserve(name, new)
        self.there[name] |= new

    def unpreserve(self, name):
        tokens = list(self.there.get(name, {9: b""}))
        tokens = self.dice.sample(tokens, self.dice.randint(1, len(tokens))) if tokens else [9]
        self.machine.custodian.unpreserve(self.alice, name, tokens)
        for token in tokens:
            del self.there[name][token]

    def discard(self, name):
        if self.dice.random() < 0.2:
            self.machine.custodian.discard(self.alice, name)
            del self.there[name]

    def end(self, name):
        if self.dice.random() < 0.2:
            self.machine.journal.fails_at = 0
            self.machine.custodian.finish(self.alice, name)
            del self.there[name]
        else:
            self.machine.custodian.rearm(self.alice, name)

    def update(self):
        for session in self.machine.custodian.sessions():
            if session.state is State.INCOMING:
                self.machine.custodian.rearm(self.alice, session.name)
        self.machine.kexec()


@pytest.mark.usefixtures("may_warn")
@pytest.mark.parametrize("seed", range(4))
def test_whatever_fails_in_between_what_was_acknowledged_is_there(machine, alice, seed):
    Fuzz(machine, alice, seed).run(120)


def test_a_finish_that_could_not_be_written_down_is_not_begun(machine, alice):
    machine.create("ram", b"one")
    machine.kexec()
    machine.custodian.retrieve(alice, "ram", None)[0][0].fd.close()
    machine.journal.fall_behind()
    machine.control.fault(Call.CREATE_SESSION, errno.ENOMEM)
    with pytest.raises(KernelError):
        machine.custodian.finish(alice, "ram")
    assert machine.contents("ram") == {0: b"one"}
    machine.custodian.finish(alice, "ram")
    assert machine.everything() == {}
