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

from .steps import (
    F_SEAL_EXEC,
    F_SEAL_FUTURE_WRITE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    content,
    fails,
    fallocate,
    has_memory,
    memfd,
    not_simulated,
    opened,
    outgoing,
    refused,
)

PAGE = os.sysconf("SC_PAGE_SIZE")

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


def test_there_is_no_handler_for_a_file_on_disk(kernel, on_disk):
    with named_file(on_disk) as (fd, path), outgoing(kernel, "a") as session:
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


def test_there_is_no_handler_for_huge_pages_that_are_in_use(kernel):
    with OwnedFd(os.memfd_create("huge", os.MFD_HUGETLB | os.MFD_CLOEXEC)) as huge, outgoing(kernel, "a") as session:
        try:
            os.posix_fallocate(huge.fileno(), 0, os.fstat(huge.fileno()).st_blksize)
        except OSError:
            pytest.skip("this machine has no huge page to spare: echo 4 >/proc/sys/vm/nr_hugepages")
        with refused(Call.PRESERVE_FD, ENOENT):
            session.preserve_fd(huge.fileno(), 1)


def test_a_file_in_memory_is_taken_only_without_a_name(kernel, in_memory):
    with named_file(in_memory) as (fd, path), outgoing(kernel, "a") as session:
        with refused(Call.PRESERVE_FD, ENOENT):
            session.preserve_fd(fd, 1)
        os.unlink(path)
        session.preserve_fd(fd, 1)


def test_a_file_in_memory_that_never_had_a_name_is_taken(kernel, in_memory):
    with opened(in_memory, os.O_RDWR | os.O_TMPFILE) as fd, outgoing(kernel, "a") as session:
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
        assert not has_memory(fd)
        with opened(f"/proc/self/fd/{fd}", flags) as again:
            session.preserve_fd(again, 1)
        assert has_memory(fd)


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


CANNOT_FREEZE = "a process can't freeze a file's size"


RESIZES = {
    "empty": lambda fd: os.ftruncate(fd, 0),
    "enlarge": lambda fd: os.ftruncate(fd, 100_000),
    "write beyond the end": lambda fd: os.pwrite(fd, b"x", 100_000),
    "write across the end": lambda fd: os.pwrite(fd, b"too long", 0),
    "allocate": lambda fd: os.posix_fallocate(fd, 0, 1),
    "allocate more": lambda fd: os.posix_fallocate(fd, 0, 100_000),
    "punch a hole": lambda fd: fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096),
}


@not_simulated(CANNOT_FREEZE)
@pytest.mark.parametrize("change", RESIZES.values(), ids=RESIZES)
def test_a_preserved_file_keeps_its_size_and_its_memory(kernel, change):
    with memfd(b"old") as fd:
        with outgoing(kernel, "a") as session:
            session.preserve_fd(fd, 1)
            with fails(EPERM):
                change(fd)
            assert content(fd) == b"old"
        change(fd)


@not_simulated(CANNOT_FREEZE)
def test_a_write_across_the_end_of_a_preserved_file_is_cut_at_its_last_page(kernel):
    with outgoing(kernel, "a") as session, memfd(b"o" * (PAGE + 3)) as fd:
        session.preserve_fd(fd, 1)
        assert os.pwrite(fd, b"n" * (PAGE + 4), 0) == PAGE
        assert content(fd) == b"n" * PAGE + b"ooo"


def test_a_preserved_file_may_be_given_the_size_it_has(kernel):
    with outgoing(kernel, "a") as session, memfd(b"old") as fd:
        session.preserve_fd(fd, 1)
        os.ftruncate(fd, 3)
        assert content(fd) == b"old"


def test_a_preserved_files_mode_and_times_may_be_changed(kernel):
    with outgoing(kernel, "a") as session, memfd(b"old") as fd:
        session.preserve_fd(fd, 1)
        os.fchmod(fd, 0o600)
        os.utime(fd, (1, 1))
        assert (os.fstat(fd).st_mode & 0o777, os.fstat(fd).st_mtime) == (0o600, 1)


@not_simulated("a process can't pin pages")
@pytest.mark.parametrize("seals", [fcntl.F_SEAL_WRITE, F_SEAL_EXEC])
def test_a_preserved_file_cannot_be_sealed_against_writing(kernel, seals):
    with outgoing(kernel, "a") as session, memfd(b"old") as fd:
        session.preserve_fd(fd, 1)
        with fails(EBUSY):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


@pytest.mark.parametrize("seals", [fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW, F_SEAL_FUTURE_WRITE, fcntl.F_SEAL_SEAL])
def test_a_preserved_file_can_be_sealed_in_other_ways(kernel, seals):
    with outgoing(kernel, "a") as session, memfd(b"old") as fd:
        session.preserve_fd(fd, 1)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def test_threads_preserve_in_one_session_at_once(kernel):
    with outgoing(kernel, "a") as session, ExitStack() as held, ThreadPoolExecutor(8) as threads:
        fds = [held.enter_context(memfd(b"%d" % number)) for number in range(500)]
        list(threads.map(session.preserve_fd, fds, range(500)))
        for token, fd in enumerate(fds):
            with refused(Call.PRESERVE_FD, EEXIST):
                session.preserve_fd(fd, token)
