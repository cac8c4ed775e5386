"""The steps that the contract's tests are told in."""

import ctypes
import fcntl
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from luod.fds import OwnedFd
from luod.kernel.api import KernelError
from luod.memory import new_memory

DEVICE = os.environ.get("LUOD_TEST_DEVICE")
"""A real kernel's device, /dev/liveupdate, or None: then the kernel is a simulated one."""

MFD_NOEXEC_SEAL = 0x8
MFD_EXEC = 0x10
F_SEAL_FUTURE_WRITE = 0x10
F_SEAL_EXEC = 0x20
NO_WRITING = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | F_SEAL_FUTURE_WRITE

FALLOC_FL_KEEP_SIZE = 0x1
FALLOC_FL_PUNCH_HOLE = 0x2

_libc = ctypes.CDLL(None, use_errno=True)


ONLY_SIMULATED = "only a simulated kernel fails when it is told to"
ONLY_A_SIMULATED_KEXEC = "a test lives through a simulated kexec only: tests/vm/test_contract.py goes through real ones"
"""Why a test of the contract skips on a real kernel."""


def not_simulated(reason):
    """Marks a fact that a simulated kernel doesn't show."""
    return pytest.mark.skipif(DEVICE is None, reason=f"not simulated: {reason}")


@contextmanager
def refused(call, number):
    """What is done inside is refused by `call`, with this errno."""
    with pytest.raises(KernelError) as caught:
        yield
    assert (caught.value.call, caught.value.errno) == (call, number)


def outgoing(kernel, name):
    """A new outgoing session."""
    with kernel.open() as device:
        return device.create_session(name)


def incoming(kernel, name):
    """An incoming session."""
    with kernel.open() as device:
        return device.retrieve_session(name)


@contextmanager
def memfd(content=b"", flags=os.MFD_ALLOW_SEALING):
    """A memfd, its position after its content; executable, whatever vm.memfd_noexec says, unless `flags` do."""
    with new_memory("contract", flags) as fd:
        os.write(fd.fileno(), content)
        yield fd.fileno()


@contextmanager
def opened(path, flags):
    with OwnedFd(os.open(path, flags | os.O_CLOEXEC)) as fd:
        yield fd.fileno()


def content(fd):
    return os.pread(fd, os.fstat(fd).st_size, 0)


def seals(fd):
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS)


def is_in_memory(fd):
    """Whether a file is a memfd or on a tmpfs."""
    try:
        seals(fd)
    except OSError:
        return False
    return True


def has_memory(fd):
    """Whether no part of a file is a hole."""
    status = os.fstat(fd)
    return status.st_blocks * 512 >= status.st_size


def fallocate(fd, mode, offset, length):
    """fallocate(2), which Python has without its modes only."""
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def fails(number):
    """What is done inside is no call of LUO, and fails with this errno."""
    with pytest.raises(OSError, check=lambda error: error.errno == number):
        yield


@contextmanager
def room_for_descriptors(count):
    """Let this process open so many descriptors more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/proc/self/fd")) + count
    if hard < wanted:
        pytest.skip(f"a process may open {hard} descriptors here, not {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def preserve(session, data, token):
    """Preserve a new file with this content, held by the session alone."""
    with memfd(data) as fd:
        session.preserve_fd(fd, token)


def retrieve(session, token):
    """The content of a file that is retrieved and closed again."""
    with session.retrieve_fd(token) as fd:
        return content(fd.fileno())


@contextmanager
def process_that(does, *arguments, inherits=()):
    """A Python process that has done something and goes on living; killed at the end, or before by its `kill`."""
    code = f"import sys\n{does}\nprint('done', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=inherits,
    ) as process:
        try:
            assert process.stdout.readline() == b"done\n"
            yield process
        finally:
            process.kill()
