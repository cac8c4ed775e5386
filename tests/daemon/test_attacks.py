"""What clients have tried who mean ill, and what a wrong start once cost: nobody else waits, nothing is lost."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, ExitStack, contextmanager

import pytest
import trio

from bystander import BLOCKS, kinds_of_descriptors, lingering_socket, nobody_waits, unharmed
from eventually import eventually, within
from leftovers import open_descriptors
from luod import daemon
from luod.client import connect
from luod.manifest import Document
from luod.sockets import ancillary
from luod.varlink.messages import Call
from memory import content, memfd, memfds
from running import luod_running

CUSTODY = "io.luod.Custody"
LONG_REPLY = Call("org.varlink.service.GetInterfaceDescription", {"interface": CUSTODY}).encode()


async def never_read(wire, calls):
    """Send calls and read no reply, until luod reads no more either."""
    with trio.move_on_after(0.2):
        await wire.send(calls)


async def test_what_a_client_leaves_unread_in_luods_queue_is_closed_at_nobodys_cost(host):
    before = kinds_of_descriptors()["socket"]
    with ExitStack() as stack:
        async with nobody_waits(host):
            async with host.wire_as(4242) as wire:
                await never_read(wire, LONG_REPLY * 5000)
                with lingering_socket(stack, BLOCKS) as lingering:
                    await wire.send(b"{", [lingering.fileno()])
            await eventually(lambda: kinds_of_descriptors()["socket"] == before + 4)  # the bystander's, the stack's


async def test_many_short_messages_at_once_hold_up_nobody(host):
    quiet = b'{"method":"","oneway":true}\0'
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(host.wire_as(4242)) for _ in range(50)]
        async with nobody_waits(host, time.process_time), trio.open_nursery() as nursery:
            for wire in wires:
                nursery.start_soon(wire.send, quiet * 2000)


WRONG = {
    "wrong names": ("Watch", {"sessions": [""] * 8000}, "sessions[0]"),
    "wrong tokens": ("Unpreserve", {"session": "ram", "tokens": [-1] * 8000}, "tokens[0]"),
    "unknown parameters": ("List", {f"x{number}": 0 for number in range(8000)}, "x0"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_wrong_thousands_of_times_is_told_once_and_holds_up_nobody(host, what):
    member, parameters, parameter = WRONG[what]
    call = Call(f"{CUSTODY}.{member}", parameters, more=True).encode()
    async with unharmed(host), AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(host.wire_as(4242)) for _ in range(40)]
        async with nobody_waits(host, time.process_time):
            for wire in wires:
                await wire.send(call[:-1])
            async with trio.open_nursery() as nursery:
                for wire in wires:
                    nursery.start_soon(wire.send, call[-1:])
            for wire in wires:
                assert (await wire.reply()).parameters["parameter"] == parameter


async def test_replies_that_nobody_reads_take_few_descriptors(host):
    await host.reboot(threads_per_owner=2)
    async with host.wire() as wire:
        await wire.call(f"{CUSTODY}.Create", {"name": "ram"})
        with memfds(*[b"x"] * 100) as given:
            files = {"session": "ram", "files": [{"fileDescriptorIndex": index} for index in range(100)]}
            await wire.send(Call(f"{CUSTODY}.Preserve", files).encode(), [fd.fileno() for fd in given])
            assert (await wire.reply()).error is None
    # The journal's, and the flight recorder's with a duplicate that its mapping has: the files are in their bag.
    await eventually(lambda: kinds_of_descriptors()["/memfd"] == 3)
    before = kinds_of_descriptors()["/memfd"]
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        retrieve = Call(f"{CUSTODY}.Retrieve", {"session": "ram"}).encode()
        for _ in range(10):
            nursery.start_soon(never_read, await stack.enter_async_context(host.wire()), retrieve * 300)
        lent = [kinds_of_descriptors()["/memfd"] - before]
        with trio.fail_after(20):
            while lent[-20:] != [200] * 20:  # so many threads, so many replies
                await trio.sleep(0.005)
                lent.append(kinds_of_descriptors()["/memfd"] - before)
        assert max(lent) == 200


async def test_a_client_that_does_not_read_and_sends_what_lingers_does_not_hold_up_the_stop(host, monkeypatch):
    monkeypatch.setattr(daemon, "GRACE", 0.2)
    await host.reboot()
    with ExitStack() as stack:
        async with host.wire_as(4242) as wire:
            await never_read(wire, LONG_REPLY * 5000)
            with lingering_socket(stack, 5 * BLOCKS) as lingering:
                await wire.send(b"{", [lingering.fileno()])
            before = trio.current_time()
            await host.reboot()
            assert trio.current_time() - before < 5 * BLOCKS / 2


async def test_a_watch_keeps_nothing_that_came_behind_it(host):
    """The client's own end of the connection, for instance: luod would wait for ever for itself to leave."""
    async with host.client() as luod:
        assert await luod.list() == []  # luod has accepted the connection
        before = kinds_of_descriptors()
        watch = Call(f"{CUSTODY}.Watch", {}, more=True).encode()
        preserve = Call(f"{CUSTODY}.Preserve", {"session": "ram", "files": [{"fileDescriptorIndex": 0}]}).encode()
        theirs = socket.socket(socket.AF_UNIX)
        with theirs:
            theirs.connect(host.socket)
            theirs.sendmsg([watch + preserve], ancillary([theirs.fileno()]))
            assert await trio.to_thread.run_sync(theirs.recv, 1000)
        await eventually(lambda: kinds_of_descriptors() == before)


async def test_an_upgrade_is_refused(host):
    async with unharmed(host), host.wire() as wire:
        reply = await wire.call(f"{CUSTODY}.Create", {"name": "new"}, upgrade=True)
        assert (reply.error, reply.parameters["parameter"]) == ("org.varlink.service.InvalidParameter", "upgrade")
        assert (await wire.call(f"{CUSTODY}.List", {"session": "new"})).error == f"{CUSTODY}.SessionNotFound"


@pytest.mark.warns("can't accept connections for now: Too many open files")
async def test_without_descriptors_for_connections_those_that_are_there_are_served_and_others_wait(host, monkeypatch):
    monkeypatch.setattr(daemon, "_COPY_PAUSE", 3600)  # the readable copy takes a descriptor, too
    await host.reboot()
    async with unharmed(host), host.wire() as first:
        assert (await first.call(f"{CUSTODY}.List", {"session": "ram"})).error is None
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with host.wire() as second:
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(open_descriptors()), limits[1]))
            try:
                await second.send(Call(f"{CUSTODY}.List", {"session": "ram"}).encode())
                for _ in range(10):
                    assert (await first.call(f"{CUSTODY}.List", {"session": "ram"})).error is None
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert (await second.reply()).error is None


# The process

HANDED_OVER = """
import os, socket, sys
family, kind, name, listens = {family}, {kind}, {name}, {listens}
sock = socket.socket(family, kind)
sock.bind(name)
if listens:
    sock.listen()
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}}
os.execv(sys.executable, [sys.executable, "-m", "luod", *sys.argv[1:]])
"""


def handed(family="socket.AF_UNIX", kind="socket.SOCK_STREAM", name='"\\0" + sys.argv[2]', listens=True):
    """Python code that becomes a luod to which this socket was handed over."""
    return HANDED_OVER.format(family=family, kind=kind, name=name, listens=listens)


@contextmanager
def process(code, *arguments):
    """Run Python code in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.stderr.read()


WRONG_STARTS = {
    "a socket path that is taken": ("", ["--socket", "{directory}/a-file"]),
    "a limit that leaves no room": ("", ["--config", "{directory}/greedy.toml"]),
    "a TCP socket": (handed("socket.AF_INET", name='("127.0.0.1", 0)'), []),
    "a datagram socket": (handed(kind="socket.SOCK_DGRAM", listens=False), []),
    "a packet socket": (handed(kind="socket.SOCK_SEQPACKET"), []),
    "a socket that doesn't listen": (handed(listens=False), []),
}
BECOME_LUOD = 'import os, sys; os.execv(sys.executable, [sys.executable, "-m", "luod", *sys.argv[1:]])'


@pytest.mark.parametrize("what", WRONG_STARTS)
def test_a_luod_that_cannot_start_loses_nothing_that_came_over(sim, tmp_path, what):
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as luod, memfd(b"kept") as fd:
        luod.create("ram")
        luod.preserve("ram", fd, token=1)
        sim.kexec()
    (tmp_path / "a-file").write_text("precious")
    (tmp_path / "greedy.toml").write_text("[limits]\ndescriptors_in_flight_per_owner = 1000000000\n")
    code, options = WRONG_STARTS[what]
    options = [option.format(directory=tmp_path) for option in options]
    device = ["--device", sim.path, "--runtime-directory", tmp_path]
    with process(code or BECOME_LUOD, *device, *options) as wrong:
        assert wrong.wait(20) == 1
        assert wrong.stderr.read().count("\n") == 1
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as luod:
        with luod.retrieve("ram")[1] as back:
            assert content(back) == b"kept"
        luod.finish("ram")


def test_a_socket_in_no_file_system_can_be_handed_over(sim, tmp_path):
    with process(handed(), "--device", sim.path, "--runtime-directory", tmp_path) as luod:
        assert f"listening on @{sim.path}" in luod.stderr.readline()


def test_a_service_manager_that_is_gone_and_a_hangup_end_nothing(sim, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    arguments = ["--device", sim.path, "--runtime-directory", tmp_path, "--socket", tmp_path / "io.luod"]
    with process(BECOME_LUOD, *arguments) as luod:
        assert "can't be told READY=1" in luod.stderr.readline()
        assert "listening on" in luod.stderr.readline()
        luod.send_signal(signal.SIGHUP)
        assert "can't be told RELOADING=1" in luod.stderr.readline()
        assert "the configuration was read again" in luod.stderr.readline()
        assert "can't be told READY=1" in luod.stderr.readline()
        with connect(str(tmp_path / "io.luod")) as client:
            assert client.list() == []


@pytest.mark.parametrize("umask", [0, 0o077])
def test_whatever_the_umask_everybody_reaches_the_socket_and_nobody_else_writes_beside_it(sim, tmp_path, umask):
    before = os.umask(umask)
    try:
        arguments = ["--device", sim.path, "--runtime-directory", tmp_path / "run", "--socket", tmp_path / "run" / "l"]
        with process(BECOME_LUOD, *arguments) as luod:
            assert "listening on" in luod.stderr.readline()
            assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755
            assert (tmp_path / "run" / "l").stat().st_mode & 0o777 == 0o666
            within(20, (tmp_path / "run" / "manifest.json").exists)
            assert (tmp_path / "run" / "manifest.json").stat().st_mode & 0o007 == 0
    finally:
        os.umask(before)


def test_the_readable_copy_knows_the_last_thing_that_was_acknowledged(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as luod:
        for number in range(5):
            luod.create(f"session-{number}")
    document = Document.read((tmp_path / "run" / "manifest.json").read_bytes())
    assert [session.name for session in document.sessions] == [f"session-{number}" for number in range(5)]


@pytest.mark.warns("can't be told WATCHDOG=1")
async def test_a_service_manager_that_is_frozen_holds_up_nobody(host, monkeypatch, tmp_path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        await host.reboot()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as talker:
            await eventually(lambda: is_full(talker, address))
        with trio.fail_after(5):
            for _ in range(20):
                async with host.client() as luod:
                    assert await luod.list() == []
                await trio.sleep(0.01)  # more than the watchdog's time, in all
        monkeypatch.delenv("NOTIFY_SOCKET")
    await eventually(lambda: not [thread for thread in threading.enumerate() if "notify" in thread.name])


def is_full(talker, address):
    """Fill a queue that nobody reads."""
    try:
        talker.sendto(b"X=1", address)
    except BlockingIOError:
        return True
    return False
