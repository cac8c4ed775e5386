"""Calls as no program of this kernel's age makes them: what an older or a newer one would be told (luo_core.c)."""

import fcntl
import os
from errno import E2BIG, EFAULT, EINVAL, ENOTTY, ENXIO

import pytest

from luod.kernel import abi

from .steps import fails, not_simulated, opened, outgoing

pytestmark = not_simulated("its descriptors are sockets: they know no ioctl")

NEWEST = abi.GET_NAME
DIRECTION_AND_SIZE = 3 << 30 | 16 << 16


@pytest.fixture
def device(kernel_path):
    with opened(kernel_path, os.O_RDWR) as fd:
        yield fd


@pytest.fixture
def session(kernel):
    with outgoing(kernel, "session") as session:
        yield session.fileno()


def call(fd, request, argument=b"", size=None):
    """An ioctl whose argument says that it is of this size, its own if none is given; the argument afterwards."""
    argument = bytearray(argument.ljust(256, b"\0"))
    if size is not None:
        argument[:4] = size.to_bytes(4, "little")
    fcntl.ioctl(fd, request, argument, True)
    return argument


def named(name=b"named"):
    return abi.NAMED.pack(abi.NAMED.size, -1, name)


@pytest.mark.parametrize(
    "request_", [NEWEST + 1, 0xBAFF, abi.PRESERVE_FD - 1, abi.CREATE_SESSION, abi.RETRIEVE_SESSION]
)
def test_a_number_that_a_session_does_not_know_is_not_valid(session, request_):
    with fails(EINVAL):
        call(session, request_, size=72)


@pytest.mark.parametrize("request_", [abi.RETRIEVE_SESSION + 1, 0xBAFF, abi.PRESERVE_FD, abi.GET_NAME])
def test_a_number_that_the_device_does_not_know_is_not_valid(device, request_):
    with fails(EINVAL):
        call(device, request_, size=72)


@pytest.mark.parametrize("changed", [0x5400 | abi.GET_NAME & 0xFF, abi.GET_NAME | DIRECTION_AND_SIZE])
def test_a_number_of_another_type_direction_or_size_is_no_call(session, changed):
    with fails(ENOTTY):
        call(session, changed, size=72)


def test_another_types_number_that_means_nothing_here_is_not_valid_either(session):
    with fails(EINVAL):
        call(session, 0x5401, size=72)


@pytest.mark.parametrize("size", [0, 4, abi.SESSION_NAME.size - 1])
def test_a_smaller_struct_than_the_first_one_is_not_valid(session, size):
    with fails(EINVAL):
        call(session, abi.GET_NAME, size=size)


@pytest.mark.parametrize("size", [0, 8, abi.NAMED.size - 1])
def test_the_device_takes_no_smaller_struct_either(device, size):
    with fails(EINVAL):
        call(device, abi.CREATE_SESSION, named(), size)


def test_a_larger_struct_is_taken_as_far_as_the_kernel_knows_it(session):
    answer = call(session, abi.GET_NAME, size=200)
    assert answer[8:16] == b"session\0"


def test_a_larger_struct_that_asks_for_what_the_kernel_does_not_know_is_too_big(session):
    argument = bytearray(200)
    argument[199] = 1
    with fails(E2BIG):
        call(session, abi.GET_NAME, argument, size=200)


def test_what_is_reserved_must_be_zero(session):
    with fails(EINVAL):
        call(session, abi.GET_NAME, abi.SESSION_NAME.pack(abi.SESSION_NAME.size, 1, b""))


def test_an_argument_that_is_no_memory_is_a_bad_address(session):
    with fails(EFAULT):
        fcntl.ioctl(session, abi.GET_NAME, 8)


def test_what_can_be_called_is_looked_at_before_the_argument(session):
    with fails(EINVAL):
        fcntl.ioctl(session, NEWEST + 1, 8)
    with fails(EFAULT):
        fcntl.ioctl(session, abi.FINISH, 8)  # which an outgoing session refuses


def test_a_name_that_starts_with_nul_is_empty(device):
    with fails(EINVAL):
        call(device, abi.CREATE_SESSION, named(b"\0after"))


def test_a_process_shows_the_names_of_its_sessions(session):
    assert os.readlink(f"/proc/self/fd/{session}") == "anon_inode:[luo_session] session"


def test_a_session_cannot_be_opened_by_its_path(session):
    with fails(ENXIO):
        os.open(f"/proc/self/fd/{session}", os.O_RDWR)
