"""Outgoing sessions: names, and how long they live (kernel/liveupdate/luo_session.c)."""

import os
import socket
from contextlib import ExitStack
from errno import EEXIST, EINVAL, ENOENT, ENOTTY

import pytest

from luod.fds import OwnedFd
from luod.kernel.api import Call

from .steps import incoming, memfd, outgoing, process_that, refused, room_for_descriptors


@pytest.mark.parametrize("name", ["x", "n" * 63, "ü" * 31, "a b/c.d"])
def test_a_name_is_1_to_63_bytes(kernel, name):
    with outgoing(kernel, name) as session:
        assert session.get_name() == name


@pytest.mark.parametrize("name", ["", "n" * 64, "ü" * 32, "n" * 200])
def test_an_empty_or_longer_name_is_refused(kernel, name):
    with kernel.open() as device, refused(Call.CREATE_SESSION, EINVAL):
        device.create_session(name)


def test_a_name_need_not_be_utf8(kernel):
    name = os.fsdecode(b"\xff\xfe")
    with outgoing(kernel, name) as session:
        assert session.get_name() == name


def test_names_are_unique_among_outgoing_sessions(kernel):
    with outgoing(kernel, "taken"), kernel.open() as device, refused(Call.CREATE_SESSION, EEXIST):
        device.create_session("taken")


def test_a_name_is_free_right_after_the_last_close(kernel):
    with kernel.open() as device:
        for _ in range(100):
            device.create_session("again").give_up()


def test_a_session_lives_until_its_last_copy_is_closed(kernel):
    with kernel.open() as device:
        session = device.create_session("copied")
        with session.duplicate():
            session.give_up()
            with refused(Call.CREATE_SESSION, EEXIST):
                device.create_session("copied")
        device.create_session("copied").give_up()


def test_a_session_outlives_the_device(kernel):
    with outgoing(kernel, "outlives") as session:
        assert session.get_name() == "outlives"


def test_a_sessions_descriptor_is_close_on_exec(kernel):
    with outgoing(kernel, "cloexec") as session:
        assert not os.get_inheritable(session.fileno())


def test_a_session_is_known_by_its_descriptor_alone(kernel):
    with outgoing(kernel, "adopted") as session:
        other = kernel.adopt(session.duplicate())
        with memfd(b"x") as fd:
            other.preserve_fd(fd, 1)
            with refused(Call.PRESERVE_FD, EEXIST):
                session.preserve_fd(fd, 1)
        assert other.get_name() == "adopted"
        other.give_up()


def test_a_session_in_flight_is_alive(kernel):
    with kernel.open() as device:
        session = device.create_session("in flight")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(ours, [b"x"], [session.fileno()])
            session.give_up()
            with refused(Call.CREATE_SESSION, EEXIST):
                device.create_session("in flight")
            _, [fd], _, _ = socket.recv_fds(theirs, 1, 1)
            session = kernel.adopt(OwnedFd(fd))
            assert session.get_name() == "in flight"
            socket.send_fds(ours, [b"x"], [session.fileno()])
            session.give_up()
        device.create_session("in flight").give_up()


def test_another_process_holds_a_session_until_it_is_killed(kernel):
    with kernel.open() as device:
        session = device.create_session("inherited")
        with process_that("", inherits=[session.fileno()]) as process:
            session.give_up()
            with refused(Call.CREATE_SESSION, EEXIST):
                device.create_session("inherited")
            process.kill()
            process.wait()
            device.create_session("inherited").give_up()


def test_two_processes_use_one_session(kernel, kernel_path):
    preserves = """if True:
        import os
        from luod.fds import OwnedFd
        from luod.kernel.find import kernel_at
        session = kernel_at(sys.argv[1]).adopt(OwnedFd(int(sys.argv[2])))
        session.preserve_fd(os.memfd_create("theirs"), 1)
    """
    with (
        outgoing(kernel, "shared") as session,
        memfd() as fd,
        process_that(preserves, kernel_path, session.fileno(), inherits=[session.fileno()]) as process,
    ):
        with refused(Call.PRESERVE_FD, EEXIST):
            session.preserve_fd(fd, 1)
        process.kill()
        process.wait()
        with refused(Call.PRESERVE_FD, EEXIST):
            session.preserve_fd(fd, 1)


def test_a_descriptor_that_is_no_session_knows_no_call_of_one(kernel):
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    for fd in (ours.detach(), theirs.detach(), read, write, os.memfd_create("x")):
        with OwnedFd(fd):
            stranger = kernel.adopt(OwnedFd.duplicate_of(fd))
            try:
                with refused(Call.GET_NAME, ENOTTY):
                    stranger.get_name()
            finally:
                stranger.give_up()


def test_an_outgoing_session_cannot_be_retrieved(kernel):
    with outgoing(kernel, "outgoing"), kernel.open() as device, refused(Call.RETRIEVE_SESSION, ENOENT):
        device.retrieve_session("outgoing")


@pytest.mark.parametrize("name", ["", "unknown", "n" * 64])
def test_a_name_that_did_not_come_over_is_unknown(kernel, name):
    with refused(Call.RETRIEVE_SESSION, ENOENT), incoming(kernel, name):
        pass


@pytest.mark.parametrize("token", [1, 7, 2**64 - 1])
def test_nothing_can_be_retrieved_from_an_outgoing_session(kernel, token):
    with outgoing(kernel, "wrong way") as session, memfd() as fd:
        session.preserve_fd(fd, 1)
        with refused(Call.RETRIEVE_FD, EINVAL):
            session.retrieve_fd(token)


def test_an_outgoing_session_cannot_be_finished(kernel):
    with outgoing(kernel, "wrong way") as session, memfd() as fd:
        session.preserve_fd(fd, 1)
        with refused(Call.FINISH, EINVAL):
            session.finish()
        with refused(Call.PRESERVE_FD, EEXIST):
            session.preserve_fd(fd, 1)


def test_two_thousand_sessions_live_side_by_side(kernel):
    names = [f"many {number}" for number in range(2000)]
    with room_for_descriptors(2100), ExitStack() as held:
        with kernel.open() as device:
            sessions = [held.enter_context(device.create_session(name)) for name in names]
        assert [session.get_name() for session in sessions] == names
