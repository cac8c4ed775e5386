"""The steps that the contract's tests are told in."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from luod.fds import OwnedFd
from luod.kernel.api import KernelError

MFD_NOEXEC_SEAL = 0x8


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
    """A memfd, its position after its content."""
    with OwnedFd(os.memfd_create("contract", flags | os.MFD_CLOEXEC)) as fd:
        os.write(fd.fileno(), content)
        yield fd.fileno()


@contextmanager
def opened(path, flags):
    with OwnedFd(os.open(path, flags | os.O_CLOEXEC)) as fd:
        yield fd.fileno()


def content(fd):
    return os.pread(fd, os.fstat(fd).st_size, 0)


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
