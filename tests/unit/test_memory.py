"""Only memory that its owner gave whole is taken into custody."""

import fcntl
import os
import socket

import pytest

from luod.errors import NotPreservable
from luod.fds import OwnedFd
from luod.memory import F_SEAL_EXEC, NO_WRITING, Given, check, look_at, without_memory
from luod.policy import Owner
from memory import memfd

ME = Owner(uid=os.geteuid(), gid=os.getegid(), trusted_uid=os.geteuid())
PAGE = os.sysconf("SC_PAGE_SIZE")
MFD_NOEXEC_SEAL = 0x8
MFD_EXEC = 0x10


def given(fd, index=3):
    return Given(index, fd)


def opened_again(fd, flags):
    return OwnedFd(os.open(f"/proc/self/fd/{fd.fileno()}", flags | os.O_CLOEXEC))


def test_a_memfd_is_known_by_its_inode_size_and_seals():
    with memfd(b"x" * 5000) as fd, fd.duplicate() as again, opened_again(fd, os.O_RDWR) as anew, memfd() as other:
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        known = check(given(fd), ME)
        assert (known.size, known.seals) == (5000, fcntl.F_SEAL_SHRINK)
        assert check(given(again), ME) == check(given(anew), ME) == look_at(fd) == known
        assert check(given(other), ME).inode != known.inode


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE])
def test_memory_of_any_size_is_whole(size):
    with memfd(b"x" * size) as fd:
        assert check(given(fd), ME).size == size


@pytest.mark.parametrize("seals", [fcntl.F_SEAL_WRITE, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL])
def test_sealed_memory_is_welcome(seals):
    with memfd() as fd:
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, seals)
        assert check(given(fd), ME).seals == seals


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK, NO_WRITING & ~fcntl.F_SEAL_WRITE])
def test_memory_that_would_come_back_read_only_is_refused(seals):
    """So is every memfd made without MFD_EXEC where vm.memfd_noexec is 1: the kernel adds MFD_NOEXEC_SEAL itself."""
    with memfd(flags=MFD_NOEXEC_SEAL) as fd:
        assert look_at(fd).seals == F_SEAL_EXEC
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, seals)
        with pytest.raises(NotPreservable, match=r"come back read-only: make it with MFD_EXEC") as caught:
            check(given(fd), ME)
        assert caught.value.file_descriptor_index == 3


def test_memory_that_nobody_may_write_anyway_is_welcome_though_it_cannot_be_executed():
    with memfd(flags=MFD_NOEXEC_SEAL) as fd:
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, NO_WRITING)
        assert check(given(fd), ME).seals == NO_WRITING | F_SEAL_EXEC


def test_memory_that_may_be_executed_is_welcome():
    with memfd(flags=MFD_EXEC | os.MFD_ALLOW_SEALING) as fd:
        assert check(given(fd), ME).seals == 0


@pytest.mark.parametrize(("size", "written"), [(PAGE + 1, 1), (10 * PAGE, 9 * PAGE), (1 << 40, 0)])
def test_memory_that_is_not_there_yet_is_not_luods_to_allocate(size, written):
    with memfd(b"x" * written) as fd:
        os.ftruncate(fd.fileno(), size)
        with pytest.raises(NotPreservable, match="sparse") as caught:
            check(given(fd), ME)
        assert caught.value.file_descriptor_index == 3
        missing = without_memory(os.fstat(fd.fileno()))
        assert str(missing) in caught.value.reason
        assert 0 < missing <= size
        if size < 1 << 30:
            os.posix_fallocate(fd.fileno(), 0, size)
            assert check(given(fd), ME).size == size


def a_pipe():
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(reader)
    return OwnedFd(writer)


def a_socket():
    return OwnedFd(socket.socket().detach())


def a_file():
    return OwnedFd(os.open("/", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC))


def a_path():
    return OwnedFd(os.open("/proc/self/exe", os.O_PATH | os.O_CLOEXEC))


def an_event():
    return OwnedFd(os.eventfd(0))


@pytest.mark.parametrize("make", [a_pipe, a_socket, a_file, a_path, an_event], ids=lambda make: make.__name__)
def test_what_is_no_memory_is_refused(make):
    try:
        fd = make()
    except OSError as error:
        pytest.skip(f"not here: {error}")
    with fd, pytest.raises(NotPreservable, match="it is not a memfd"):
        check(given(fd), ME)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_memory_that_is_not_open_for_reading_and_writing_is_refused(flags):
    with memfd() as fd, opened_again(fd, flags) as again, pytest.raises(NotPreservable, match="reading and writing"):
        check(given(again), ME)


def test_anothers_memory_is_refused_but_not_that_of_whom_it_is_trusted_to():
    with memfd() as fd:
        someone = ME.uid + 1
        with pytest.raises(NotPreservable, match=f"belongs to uid {ME.uid}, not to uid {someone}"):
            check(given(fd), Owner(uid=someone, gid=1, trusted_uid=someone))
        assert check(given(fd), Owner(uid=someone, gid=1, trusted_uid=ME.uid))
