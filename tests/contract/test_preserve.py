"""PRESERVE_FD: what it takes and what it refuses (luo_preserve_file, mm/memfd_luo.c)."""

import fcntl
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from errno import EBADF, EBUSY, EEXIST, EFBIG, ENOENT, EPERM

import pytest

from luod.fds import OwnedFd
from luod.kernel.api import Call

from .steps import memfd, opened, outgoing, refused

CLOSED = 1_000_000
"""A number that no descriptor has."""


@contextmanager
def named_file(directory):
    """The descriptor and the path of a file that has a name."""
    number, path = tempfile.mkstemp(dir=directory)
    with OwnedFd(number) as fd:
        try:
            yield fd.fileno(), path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)


def is_in_memory(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


def test_a_token_is_used_once_in_a_session(kernel):
    with outgoing(kernel, "a") as session, memfd() as first, memfd() as second:
        session.preserve_fd(first, 5)
        with refused(Call.PRESERVE_FD, EEXIST):
            session.preserve_fd(second, 5)


def test_two_sessions_may_use_one_token(kernel):
    with outgoing(kernel, "a") as one, outgoing(kernel, "b") as two, memfd() as first, memfd() as second:
        one.preserve_fd(first, 5)
        two.preserve_fd(second, 5)


def test_every_u64_is_a_token(kernel):
    with outgoing(kernel, "a") as session, ExitStack() as held:
        for token in (0, 1, 2**31, 2**63, 2**64 - 1):
            session.preserve_fd(held.enter_context(memfd()), token)


@pytest.mark.parametrize("fd", [CLOSED, -1])
def test_a_number_that_is_not_open_is_a_bad_descriptor(kernel, fd):
    with outgoing(kernel, "a") as session, refused(Call.PRESERVE_FD, EBADF):
        session.preserve_fd(fd, 1)


def test_a_descriptor_for_the_path_only_is_a_bad_one(kernel):
    with outgoing(kernel, "a") as session, opened("/", os.O_PATH) as fd, refused(Call.PRESERVE_FD, EBADF):
        session.preserve_fd(fd, 1)


def test_there_is_no_handler_for_devices_directories_pipes_and_sessions(kernel):
    with outgoing(kernel, "a") as session, ExitStack() as held:
        read, write = os.pipe()
        strangers = [
            held.enter_context(opened("/dev/null", os.O_RDWR)),
            held.enter_context(opened("/", os.O_RDONLY)),
            held.enter_context(opened("/proc/self/status", os.O_RDONLY)),
            held.enter_context(OwnedFd(read)).fileno(),
            held.enter_context(OwnedFd(write)).fileno(),
            held.enter_context(OwnedFd(os.eventfd(0))).fileno(),
            session.fileno(),
        ]
        for fd in strangers:
            with refused(Call.PRESERVE_FD, ENOENT):
                session.preserve_fd(fd, 1)


def test_there_is_no_handler_for_a_file_on_disk(kernel, tmp_path):
    with named_file(tmp_path) as (fd, path), outgoing(kernel, "a") as session:
        if is_in_memory(fd):
            pytest.skip("there is no disk here")
        os.unlink(path)
        with refused(Call.PRESERVE_FD, ENOENT):
            session.preserve_fd(fd, 1)


def test_there_is_no_handler_for_huge_pages(kernel):
    try:
        huge = OwnedFd(os.memfd_create("huge", os.MFD_HUGETLB | os.MFD_CLOEXEC))
    except OSError:
        pytest.skip("this machine has no huge pages")
    with huge, outgoing(kernel, "a") as session, refused(Call.PRESERVE_FD, ENOENT):
        session.preserve_fd(huge.fileno(), 1)


def test_a_file_in_memory_is_taken_only_without_a_name(kernel):
    with named_file("/dev/shm") as (fd, path), outgoing(kernel, "a") as session:
        if not is_in_memory(fd):
            pytest.skip("/dev/shm is not in memory here")
        with refused(Call.PRESERVE_FD, ENOENT):
            session.preserve_fd(fd, 1)
        os.unlink(path)
        session.preserve_fd(fd, 1)


def test_a_file_is_preserved_once(kernel):
    with outgoing(kernel, "a") as one, outgoing(kernel, "b") as two, memfd() as fd:
        one.preserve_fd(fd, 1)
        for session in (one, two):
            with refused(Call.PRESERVE_FD, EBUSY):
                session.preserve_fd(fd, 2)


def test_a_file_is_the_same_by_whatever_descriptor(kernel):
    with outgoing(kernel, "a") as session, memfd() as fd:
        session.preserve_fd(fd, 1)
        with OwnedFd.duplicate_of(fd) as duplicate, refused(Call.PRESERVE_FD, EBUSY):
            session.preserve_fd(duplicate.fileno(), 2)
        with opened(f"/proc/self/fd/{fd}", os.O_RDONLY) as again, refused(Call.PRESERVE_FD, EBUSY):
            session.preserve_fd(again, 2)


def test_giving_an_outgoing_session_up_unpreserves_its_files(kernel):
    with memfd() as fd:
        for _ in range(100):
            with outgoing(kernel, "a") as session:
                session.preserve_fd(fd, 1)


def test_the_token_is_looked_at_before_the_descriptor(kernel):
    with outgoing(kernel, "a") as session, memfd() as fd, opened("/dev/null", os.O_RDWR) as null:
        session.preserve_fd(fd, 1)
        for other in (CLOSED, null, fd):
            with refused(Call.PRESERVE_FD, EEXIST):
                session.preserve_fd(other, 1)


def test_a_refused_file_leaves_its_token_free(kernel):
    with outgoing(kernel, "a") as session, memfd() as fd, opened("/dev/null", os.O_RDWR) as null:
        with refused(Call.PRESERVE_FD, EBADF):
            session.preserve_fd(CLOSED, 1)
        with refused(Call.PRESERVE_FD, ENOENT):
            session.preserve_fd(null, 1)
        session.preserve_fd(fd, 1)


def test_a_refused_descriptor_is_not_kept(kernel):
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with outgoing(kernel, "a") as session, OwnedFd(read):
        with OwnedFd(write), refused(Call.PRESERVE_FD, ENOENT):
            session.preserve_fd(write, 1)
        assert os.read(read, 1) == b""


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_a_descriptor_for_reading_or_writing_only_is_taken(kernel, flags):
    with outgoing(kernel, "a") as session, memfd(b"x") as fd, opened(f"/proc/self/fd/{fd}", flags) as half:
        session.preserve_fd(half, 1)


def test_an_empty_file_is_taken(kernel):
    with outgoing(kernel, "a") as session, memfd() as fd:
        session.preserve_fd(fd, 1)


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_WRITE, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL])
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDONLY])
def test_holes_are_allocated(kernel, seals, flags):
    size = 64 * 4096 + 17
    with outgoing(kernel, "a") as session, memfd() as fd:
        os.ftruncate(fd, size)
        os.pwrite(fd, b"x", 100_000)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        assert os.fstat(fd).st_blocks * 512 < size
        with opened(f"/proc/self/fd/{fd}", flags) as again:
            session.preserve_fd(again, 1)
        assert os.fstat(fd).st_blocks * 512 >= size


def test_more_than_4294967295_pages_are_too_many(kernel):
    with outgoing(kernel, "a") as session, memfd() as fd:
        os.ftruncate(fd, 2**32 * os.sysconf("SC_PAGE_SIZE"))
        with refused(Call.PRESERVE_FD, EFBIG):
            session.preserve_fd(fd, 1)


def test_a_preserved_file_can_be_written_in_place(kernel):
    with outgoing(kernel, "a") as session, memfd(b"old") as fd:
        session.preserve_fd(fd, 1)
        os.pwrite(fd, b"new", 0)
        assert os.pread(fd, 4, 0) == b"new"


@pytest.mark.not_simulated("a process can't freeze a file's size")
def test_a_preserved_file_keeps_its_size(kernel):
    with memfd(b"old") as fd:
        with outgoing(kernel, "a") as session:
            session.preserve_fd(fd, 1)
            for change in (
                lambda: os.ftruncate(fd, 0),
                lambda: os.ftruncate(fd, 100_000),
                lambda: os.pwrite(fd, b"x", 100_000),
            ):
                with pytest.raises(OSError, check=lambda error: error.errno == EPERM):
                    change()
        os.ftruncate(fd, 100_000)


@pytest.mark.not_simulated("a process can't pin pages")
def test_a_preserved_file_cannot_be_sealed_against_writing(kernel):
    with outgoing(kernel, "a") as session, memfd(b"old") as fd:
        session.preserve_fd(fd, 1)
        with pytest.raises(OSError, check=lambda error: error.errno == EBUSY):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_threads_preserve_in_one_session_at_once(kernel):
    with outgoing(kernel, "a") as session, ExitStack() as held, ThreadPoolExecutor(8) as threads:
        fds = [held.enter_context(memfd(b"%d" % number)) for number in range(500)]
        list(threads.map(session.preserve_fd, fds, range(500)))
        for token, fd in enumerate(fds):
            with refused(Call.PRESERVE_FD, EEXIST):
                session.preserve_fd(fd, token)
