"""The simulated kernel's rules beyond the contract, without its process."""

import os
import resource
from contextlib import contextmanager
from errno import EEXIST, EFBIG, EIO, ENOMEM, ENOSPC

import pytest

from luod.fds import OwnedFd
from luod.kernel.api import Call
from luod.sim.kernel import FREEZE, Kernel


@pytest.fixture
def kernel():
    kernel = Kernel()
    yield kernel
    kernel.shut_down()


@contextmanager
def refused(number):
    with pytest.raises(OSError, check=lambda error: error.errno == number):
        yield


@contextmanager
def memfd(size=0):
    with OwnedFd(os.memfd_create("x")) as fd:
        os.ftruncate(fd.fileno(), size)
        yield fd.fileno()


def preserve(kernel, session, token, size=1):
    with memfd(size) as fd:
        kernel.preserve_fd(session, fd, token)


def test_a_fault_strikes_the_nth_call_and_no_other(kernel):
    kernel.faults.plan(Call.CREATE_SESSION, ENOSPC, 3)
    kernel.create_session("1")
    kernel.create_session("2")
    with refused(ENOSPC):
        kernel.create_session("3")
    kernel.create_session("3")


def test_calls_that_fail_by_themselves_are_not_counted(kernel):
    kernel.faults.plan(Call.CREATE_SESSION, ENOSPC, 2)
    kernel.create_session("1")
    with refused(EEXIST):
        kernel.create_session("1")
    with refused(ENOSPC):
        kernel.create_session("2")


def test_faults_count_side_by_side(kernel):
    kernel.faults.plan(Call.CREATE_SESSION, ENOMEM, 2)
    kernel.faults.plan(Call.CREATE_SESSION, ENOSPC, 1)
    kernel.faults.plan(Call.OPEN, EIO, 1)
    with refused(ENOSPC):
        kernel.create_session("1")
    with refused(ENOMEM):
        kernel.create_session("1")
    with refused(EIO):
        kernel.open()


def test_a_fault_reaches_over_a_kexec(kernel):
    preserve(kernel, kernel.create_session("a"), 1)
    kernel.faults.plan(Call.RETRIEVE_FD, ENOMEM, 1)
    kernel.kexec()
    with refused(ENOMEM):
        kernel.retrieve_fd(kernel.retrieve_session("a"), 1)


def test_freezes_are_counted_by_file(kernel):
    for name in "ab":
        session = kernel.create_session(name)
        for token in range(3):
            preserve(kernel, session, token)
    kernel.faults.plan(FREEZE, EIO, 6)
    with refused(EIO):
        kernel.kexec()
    kernel.faults.plan(FREEZE, EIO, 7)
    kernel.kexec()


def test_a_file_that_could_not_be_made_anew_fails_for_ever(kernel):
    session = kernel.create_session("a")
    preserve(kernel, session, 1, size=100_000)
    preserve(kernel, session, 2, size=10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        kernel.kexec()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    session = kernel.retrieve_session("a")
    for _ in range(2):
        with refused(EFBIG):
            kernel.retrieve_fd(session, 1)
    kernel.retrieve_fd(session, 2).close()
    kernel.finish(session)


def test_more_page_pointers_than_kvmalloc_gives_are_refused_before_anything_is_allocated(kernel):
    with memfd((2**31 // 8) * os.sysconf("SC_PAGE_SIZE")) as fd:
        with refused(ENOMEM):
            kernel.preserve_fd(kernel.create_session("a"), fd, 1)
        assert os.fstat(fd).st_blocks == 0


def test_the_size_is_that_at_preserve(kernel):
    with memfd(10_000) as grown, memfd(10_000) as cut:
        session = kernel.create_session("a")
        kernel.preserve_fd(session, grown, 1)
        kernel.preserve_fd(session, cut, 2)
        os.ftruncate(grown, 20_000)
        os.ftruncate(cut, 5_000)
        kernel.kexec()
    session = kernel.retrieve_session("a")
    for token in (1, 2):
        with kernel.retrieve_fd(session, token) as file:
            assert os.fstat(file.fileno()).st_size == 10_000


def test_what_came_over_is_another_file_than_what_was_preserved(kernel):
    with memfd(5) as old:
        kernel.preserve_fd(kernel.create_session("a"), old, 1)
        kernel.kexec()
        os.pwrite(old, b"late!", 0)
        with kernel.retrieve_fd(kernel.retrieve_session("a"), 1) as new:
            assert os.pread(new.fileno(), 5, 0) == b"\0" * 5
            assert os.fstat(new.fileno()).st_ino != os.fstat(old).st_ino
        kernel.preserve_fd(kernel.create_session("a"), old, 1)


def test_nothing_stays_open_after_a_kexec_that_carries_nothing(kernel):
    before = os.listdir("/proc/self/fd")
    preserve(kernel, kernel.create_session("a"), 1)
    kernel.kexec()
    preserve(kernel, kernel.create_session("b"), 1)
    kernel.kexec(carry=False)
    assert os.listdir("/proc/self/fd") == before
    assert kernel.state()["sessions"] == []


def test_state_tells_every_session_and_file(kernel):
    preserve(kernel, kernel.create_session("old"), 7, size=10)
    kernel.kexec()
    kernel.create_session("new")
    kernel.retrieve_fd(kernel.retrieve_session("old"), 7).close()
    new, old = kernel.state()["sessions"]
    assert new == {"name": "new", "direction": "outgoing", "retrieved": False, "files": []}
    assert (old["name"], old["direction"], old["retrieved"]) == ("old", "incoming", True)
    assert [(file["token"], file["size"], file["retrieved"]) for file in old["files"]] == [(7, 10, True)]
