"""The simulator's process: what it bears, and how closely it follows who holds what."""

import array
import os
import resource
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from errno import EINVAL, EMFILE, ENODEV, ENOTTY

import pytest

from luod.fds import OwnedFd
from luod.kernel.api import Call, KernelError
from luod.sim import wire
from luod.sim.client import SimKernel
from luod.sim.process import simulator


@pytest.fixture
def control(tmp_path):
    with simulator(tmp_path / "sim") as control:
        yield control


@pytest.fixture
def kernel(control):
    return SimKernel(control.path)


@pytest.fixture
def device(kernel):
    with kernel.open() as device:
        yield device


@pytest.fixture
def session(device):
    session = device.create_session("session")
    yield session
    session.give_up()


@contextmanager
def refused(call, number):
    with pytest.raises(KernelError) as caught:
        yield
    assert (caught.value.call, caught.value.errno) == (call, number)


@contextmanager
def memfd():
    with OwnedFd(os.memfd_create("x")) as fd:
        yield fd.fileno()


@contextmanager
def connection(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(path)
        yield sock


def process_of(path):
    with connection(path) as sock:
        return struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def descriptors(process):
    """What a process has open."""
    directory = f"/proc/{process}/fd"
    found = []
    for number in os.listdir(directory):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"{directory}/{number}"))
    return found


def send(sock, data, fds=()):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def answer(sock, data, fds=()):
    """The errno of the reply to a packet; None where the simulator only drops it."""
    ours, theirs = wire.pair()
    with ours:
        with theirs:
            send(sock, data, [theirs.fileno(), *fds])
        reply = wire.receive(ours)
    return None if reply is None else reply.body["errno"]


MALFORMED = [
    b"x",
    b"\xff\xfe",
    b"[]",
    b"1",
    b'"FINISH"',
    b"[" * 10_000,
    b"{}",
    b'{"call": null}',
    b'{"call": ["FINISH"]}',
    b'{"call": "no such call"}',
    b'{"call": "PRESERVE_FD"' + b" " * 100_000 + b"}",
]

NOT_VALID = [
    b'{"call": "%b", "token": %b}' % (call, token)
    for call in (b"PRESERVE_FD", b"RETRIEVE_FD")
    for token in (b"null", b"-1", b"1.5", b"true", b'"1"', b"18446744073709551616", b"NaN", b"[]")
]


@pytest.mark.parametrize("data", MALFORMED)
def test_what_cannot_be_read_is_no_call(control, session, data):
    with wire.borrowed(session.fileno()) as sock:
        assert answer(sock, data) == ENOTTY
    with connection(control.path) as sock:
        assert answer(sock, data) == ENOTTY
    assert session.get_name() == "session"


@pytest.mark.parametrize("data", NOT_VALID)
def test_a_value_that_is_not_valid_is_refused(session, data):
    with wire.borrowed(session.fileno()) as sock:
        assert answer(sock, data) == EINVAL


@pytest.mark.parametrize(
    "data",
    [
        b'{"call": "CREATE_SESSION", "name": 5}',
        b'{"call": "CREATE_SESSION", "name": "\\ud800"}',
        b'{"call": "CREATE_SESSION", "name": "no descriptor"}',
        b'{"call": "RETRIEVE_SESSION"}',
        b'{"call": "kexec", "carry": 1, "number": 0}',
        b'{"call": "kexec", "carry": true, "number": -1}',
        b'{"call": "fault", "of": "FINISH", "number": 0, "nth": 1}',
        b'{"call": "fault", "of": "FINISH", "number": 5, "nth": 0}',
        b'{"call": "fault", "of": "kexec", "number": 5, "nth": 1}',
        b'{"call": "fault", "of": ["FINISH"], "number": 5, "nth": 1}',
        b'{"call": "delay", "of": "FINISH", "seconds": -1}',
        b'{"call": "delay", "of": "FINISH", "seconds": NaN}',
        b'{"call": "delay", "of": "FINISH", "seconds": Infinity}',
    ],
)
def test_a_call_on_a_connection_checks_its_values(control, data):
    with connection(control.path) as sock:
        assert answer(sock, b'{"call": "open"}') == 0
        assert answer(sock, data) == EINVAL


def test_a_session_is_made_of_a_socket_only(control):
    with connection(control.path) as sock, memfd() as file, socket.socket() as tcp:
        assert answer(sock, b'{"call": "open"}') == 0
        for fd in (file, tcp.fileno()):
            assert answer(sock, b'{"call": "CREATE_SESSION", "name": "a"}', [fd])
    assert control.state().sessions == []


def test_sessions_are_made_on_the_device_only(control):
    with connection(control.path) as sock, memfd() as fd:
        assert answer(sock, b'{"call": "CREATE_SESSION", "name": "a"}', [fd]) == ENODEV


def test_the_calls_of_a_session_are_not_those_of_the_device(control, session):
    with wire.borrowed(session.fileno()) as sock:
        assert answer(sock, b'{"call": "kexec"}') == ENOTTY
    with connection(control.path) as sock:
        assert answer(sock, b'{"call": "FINISH"}') == ENOTTY


def test_a_request_without_a_socket_for_the_reply_is_dropped(control, session):
    with memfd() as fd, wire.borrowed(session.fileno()) as sock:
        for fds in ([], [fd], [fd] * 253):
            send(sock, b'{"call": "FINISH"}', fds)
    assert session.get_name() == "session"


def test_descriptors_that_nobody_asked_for_are_closed(control, session):
    with OwnedFd(os.memfd_create("unwanted")) as owned, wire.borrowed(session.fileno()) as sock:
        fd = owned.fileno()
        for data in (*MALFORMED, b'{"call": "GET_NAME"}', b'{"call": "FINISH"}'):
            answer(sock, data, [fd] * 200)
        send(sock, b"x", [fd] * 253)
        send(sock, b"", [fd])
        session.get_name()
    assert not [each for each in descriptors(process_of(control.path)) if "unwanted" in each]


def test_an_empty_packet_is_passed_over(session):
    with wire.borrowed(session.fileno()) as sock:
        send(sock, b"")
    assert session.get_name() == "session"


def test_a_session_that_is_shut_down_for_writing_lives_on(control, device, session):
    with wire.borrowed(session.fileno()) as sock:
        sock.shutdown(socket.SHUT_WR)
    with refused(Call.FINISH, ENODEV):
        session.finish()
    assert [each.name for each in control.state().sessions] == ["session"]
    session.give_up()
    assert control.state().sessions == []


def test_what_a_holder_asked_for_before_it_hung_up_is_done_first(control, device):
    with memfd() as fd:
        for _ in range(50):
            session = device.create_session("a")
            ours, theirs = wire.pair()
            with ours, theirs, wire.borrowed(session.fileno()) as sock:
                for token in range(20):
                    send(sock, b'{"call": "PRESERVE_FD", "token": %d}' % token, [theirs.fileno(), fd])
            session.give_up()
            session = device.create_session("a")
            session.preserve_fd(fd, 1)
            session.give_up()


def test_a_request_whose_sender_does_not_wait_is_carried_out(control, session):
    ours, theirs = wire.pair()
    with memfd() as fd, wire.borrowed(session.fileno()) as sock:
        with ours, theirs:
            send(sock, b'{"call": "PRESERVE_FD", "token": 1}', [theirs.fileno(), fd])
        assert session.get_name() == "session"
    [state] = control.state().sessions
    assert [file.token for file in state.files] == [1]


def test_every_close_is_seen_by_the_next_call_under_load(control, kernel):
    def churn(device, name):
        with memfd() as fd:
            for _ in range(150):
                session = device.create_session(name)
                session.preserve_fd(fd, 1)
                session.give_up()

    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            with kernel.open() as device:
                list(threads.map(churn, [device] * 8, "abcdefgh"))
    assert control.state().sessions == []


def test_the_device_is_free_right_after_its_close_under_load(control, kernel):
    with kernel.open() as device:
        sessions = [device.create_session(f"{number}") for number in range(6)]

    def bustle(session):
        for _ in range(300):
            session.get_name()

    with ThreadPoolExecutor(6) as threads:
        running = [threads.submit(bustle, session) for session in sessions]
        for _ in range(300):
            kernel.open().close()
        for each in running:
            each.result()
    for session in sessions:
        session.give_up()


def test_what_belonged_to_the_old_kernel_is_no_device_any_more(control, kernel):
    with kernel.open() as device:
        session = device.create_session("a")
        control.kexec()
        for _ in range(2):
            with refused(Call.CREATE_SESSION, ENODEV):
                device.create_session("b")
            with refused(Call.GET_NAME, ENODEV):
                session.get_name()
        with kernel.open() as new:
            new.retrieve_session("a").give_up()
            session.give_up()
            with refused(Call.RETRIEVE_SESSION, 2):
                new.retrieve_session("a")


def test_a_simulator_that_is_gone_is_no_device(tmp_path):
    with simulator(tmp_path / "sim") as control:
        device = SimKernel(control.path).open()
        session = device.create_session("a")
    with refused(Call.GET_NAME, ENODEV):
        session.get_name()
    with refused(Call.CREATE_SESSION, ENODEV):
        device.create_session("b")
    session.give_up()
    device.close()


def test_a_slow_call_stalls_no_other_session(tmp_path):
    with ThreadPoolExecutor(1) as threads, ExitStack() as held:
        with simulator(tmp_path / "sim") as control:
            device = held.enter_context(SimKernel(control.path).open())
            slow, quick = device.create_session("slow"), device.create_session("quick")
            control.delay(Call.PRESERVE_FD, 3600)
            call = threads.submit(slow.preserve_fd, held.enter_context(memfd()), 1)
            while not control.state().sessions[0].files:
                pass
            control.clear_faults()
            with memfd() as fd:
                quick.preserve_fd(fd, 1)
            assert slow.get_name() == "slow"
            assert not call.done()
        with refused(Call.PRESERVE_FD, ENODEV):
            call.result()
        for session in (slow, quick):
            session.give_up()


@pytest.mark.parametrize("waits", ["FINISH", "kexec"])
def test_the_same_session_and_kexec_wait_for_a_slow_call(control, session, waits):
    control.delay(Call.PRESERVE_FD, 0.3)
    start = time.monotonic()
    with ThreadPoolExecutor(1) as threads, memfd() as fd:
        call = threads.submit(session.preserve_fd, fd, 1)
        while not control.state().sessions[0].files:
            pass
        if waits == "kexec":
            control.kexec()
        else:
            with refused(Call.FINISH, EINVAL):
                session.finish()
        assert time.monotonic() - start >= 0.3
        call.result()


def test_a_delay_ends_with_the_faults(control, session):
    control.delay(Call.GET_NAME, 3600)
    control.clear_faults()
    assert session.get_name() == "session"


def test_a_simulator_without_descriptors_turns_clients_away_and_recovers(control, device, session):
    process = process_of(control.path)
    taken = len(descriptors(process))
    limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (taken + 8, limits[1]))
    with ExitStack() as held:
        for _ in range(40):
            held.enter_context(connection(control.path))
        with memfd() as fd, suppress(KernelError):
            session.preserve_fd(fd, 1)
        with suppress(OSError):
            control.state()
    resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
    assert session.get_name() == "session"
    with memfd() as fd:
        session.preserve_fd(fd, 2)


@contextmanager
def room_for(count):
    """Let this process open `count` more descriptors."""
    free = [os.open("/dev/null", os.O_RDONLY) for _ in range(count + 1)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free) + 1, limits[1]))
    try:
        with suppress(OSError):
            while True:
                filler.append(os.open("/dev/null", os.O_RDONLY))
        for fd in free[:count]:
            os.close(fd)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in (*filler, free[count]):
            os.close(fd)


def with_ever_more_room(attempt):
    """What comes of the first attempt that doesn't lack a descriptor."""
    for count in range(10):
        with room_for(count):
            try:
                return attempt()
            except KernelError as error:
                if error.errno != EMFILE:
                    raise
    raise AssertionError("ten descriptors were not enough")


def test_a_client_without_descriptors_loses_nothing(control, kernel):
    with kernel.open() as device, memfd() as fd:
        session = with_ever_more_room(lambda: device.create_session("a"))
        with_ever_more_room(lambda: session.preserve_fd(fd, 1))
        control.kexec()
        session.give_up()
    with kernel.open() as device:
        session = with_ever_more_room(lambda: device.retrieve_session("a"))
        with_ever_more_room(lambda: session.retrieve_fd(1)).close()
        with_ever_more_room(session.finish)
        session.give_up()


def test_ten_thousand_files_in_a_hundred_sessions_come_over(control, kernel):
    with kernel.open() as device:
        sessions = [device.create_session(f"{number}") for number in range(100)]
    for session in sessions:
        for token in range(100):
            with memfd() as fd:
                session.preserve_fd(fd, token)
    control.kexec()
    for session in sessions:
        session.give_up()
    assert sum(len(session.files) for session in control.state().sessions) == 10_000
