"""Errors that come over a connection, and connections that end."""

import socket
import threading
from dataclasses import fields
from subprocess import run
from sys import executable

import pytest
import trio
import trio.testing

from luod import errors
from luod.client import BadReply, Disconnected, NotRunning, RemoteError, connect, connect_trio
from luod.client.failures import socket_path
from luod.sockets import send_blocking
from luod.varlink.messages import Reply

from .played import Peer, page, served


def test_an_error_that_nobody_knows_keeps_its_name_and_parameters(luod, connected):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        send_blocking(peer.sock, Reply({"moon": "full"}, error="com.example.Howling").encode())

    luod.plays(script)
    with connected() as client, pytest.raises(RemoteError) as raised:
        client.discard("ram")
    assert (raised.value.name, raised.value.parameters) == ("com.example.Howling", {"moon": "full"})


def test_an_error_with_parameters_of_tomorrow_is_still_itself(luod, connected):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        send_blocking(peer.sock, Reply({"session": "ram", "hint": 1}, error="io.luod.Custody.SessionNotFound").encode())

    luod.plays(script)
    with connected() as client, pytest.raises(errors.SessionNotFound, match="'ram'"):
        client.discard("ram")


def test_an_error_that_lacks_a_parameter_keeps_its_name(luod, connected):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        send_blocking(peer.sock, Reply(error="io.luod.Custody.SessionNotFound").encode())

    luod.plays(script)
    with connected() as client, pytest.raises(RemoteError, match=r"^io\.luod\.Custody\.SessionNotFound$"):
        client.discard("ram")


@pytest.mark.parametrize("error", list(errors.wire_errors()))
def test_every_error_of_ours_crosses_the_wire(luod, error):
    samples = {str: "x", int: 12, list[str]: ["x"]}
    sent = error(*(samples[parameter.type] for parameter in fields(error)))

    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        peer.refuses(sent)

    luod.plays(script)
    with connect() as client, pytest.raises(error) as raised:
        client.discard("ram")
    assert raised.value.parameters() == sent.parameters()
    assert str(raised.value) == str(sent)


def test_a_reply_that_is_not_as_the_interface_says_names_the_field(luod, connected):
    def script(peer):
        peer.asked("Unpreserve", {"session": "ram", "tokens": [1]})
        peer.answers({"released": "perhaps"})
        peer.asked("Discard", {"session": "ram"})
        peer.answers()

    luod.plays(script)
    with connected() as client:
        with pytest.raises(BadReply, match=r"io\.luod\.Custody\.Unpreserve: released: "):
            client.unpreserve("ram", [1])
        client.discard("ram")


@pytest.mark.parametrize("rubbish", [b"{\0", b"[]\0", b'{"parameters":[]}\0'])
def test_an_answer_that_is_not_varlink_ends_the_connection_and_not_the_client(luod, connected, rubbish):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        send_blocking(peer.sock, rubbish)
        peer.sees_the_client_go()

    luod.plays(script, served("Discard", {"session": "disk"}))
    with connected() as client:
        with pytest.raises(Disconnected, match="not Varlink"):
            client.discard("ram")
        client.discard("disk")


def test_a_refusal_that_came_before_the_call_is_heard(luod, connected):
    closed = threading.Event()

    def script(peer):
        peer.refuses(errors.QuotaExceeded("connections", 64))
        peer.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    luod.plays(script, served("Discard", {"session": "ram"}))
    with connected() as client:
        closed.wait()
        with pytest.raises(errors.QuotaExceeded):
            client.discard("ram")
        client.discard("ram")


def test_a_client_that_was_closed_says_so(luod):
    luod.plays(Peer.sees_the_client_go)
    client = connect()
    client.close()
    client.close()
    with pytest.raises(Disconnected, match="closed here"):
        client.status()


def test_closing_a_client_wakes_the_thread_that_waits_on_it(luod):
    asked = threading.Event()
    heard: list[BaseException] = []

    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        asked.set()
        peer.sees_the_client_go()

    def wait():
        with pytest.raises(Disconnected, match="closed here") as raised:
            client.discard("ram")
        heard.append(raised.value)

    luod.plays(script)
    client = connect()
    thread = threading.Thread(target=wait)
    thread.start()
    asked.wait()
    client.close()
    thread.join()
    assert len(heard) == 1


async def test_closing_a_client_wakes_the_task_that_waits_on_it(luod):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        peer.sees_the_client_go()

    async def wait(client):
        with pytest.raises(Disconnected, match="closed here"):
            await client.discard("ram")

    luod.plays(script)
    async with connect_trio() as client, trio.open_nursery() as nursery:
        nursery.start_soon(wait, client)
        await trio.testing.wait_all_tasks_blocked()
        client.close()


async def test_a_call_that_is_cancelled_takes_its_connection_with_it(luod):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        peer.sees_the_client_go()

    luod.plays(script, served("Discard", {"session": "disk"}))
    async with connect_trio() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.discard, "ram")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await client.discard("disk")


async def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_harms_nothing(luod):
    go_on = threading.Event()

    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        go_on.wait()
        peer.answers()
        peer.asked("Discard", {"session": "disk"})
        peer.answers()

    luod.plays(script)
    async with connect_trio() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.discard, "ram")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as waiting:
            waiting.start_soon(client.discard, "cpu")
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        go_on.set()
        await client.discard("disk")


def test_descriptors_that_there_is_no_room_for_end_the_connection_and_leak_nothing(luod):
    code = """if True:
        import os, resource
        from luod.client import Disconnected, connect
        with connect() as client:
            room = len(os.listdir("/proc/self/fd")) + 3  # listdir had one of these itself
            resource.setrlimit(resource.RLIMIT_NOFILE, (room, room))
            before = os.listdir("/proc/self/fd")
            try:
                client.retrieve("ram")
            except Disconnected as error:
                print(error)
            print(len(before) - 1 - len(os.listdir("/proc/self/fd")))
    """

    def script(peer):
        peer.asked("Retrieve", {"session": "ram"})
        peer.answers(page(*range(20)), fds=20)
        peer.sees_the_client_go()

    luod.plays(script)
    done = run([executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert "no room for them (RLIMIT_NOFILE)" in done.stdout
    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""


def test_no_luod_is_told_with_the_path_and_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("LUOD_SOCKET", str(tmp_path / "nothing"))
    with pytest.raises(NotRunning, match="there is no such socket") as raised:
        connect()
    assert raised.value.path == str(tmp_path / "nothing")

    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "abandoned"))
    with pytest.raises(NotRunning, match="nobody listens there"):
        connect(str(tmp_path / "abandoned"))


def test_no_luod_is_told_in_trio_as_well(tmp_path):
    async def main():
        async with connect_trio(str(tmp_path / "nothing")):
            pass

    with pytest.raises(NotRunning, match="there is no such socket"):
        trio.run(main)


async def test_a_client_in_trio_waits_while_the_queue_of_luod_is_full(tmp_path, autojump_clock):
    path = str(tmp_path / "io.luod")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        connected = trio.Event()

        async def come():
            async with connect_trio(path):
                connected.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come)
            with trio.move_on_after(5):
                await connected.wait()
            assert not connected.is_set()
            listener.accept()[0].close()
            await connected.wait()


def test_a_path_that_no_socket_can_have_is_no_missing_luod():
    with pytest.raises(OSError, match="File name too long: '/xxx"):
        connect("/" + "x" * 200)


def test_without_a_path_or_an_environment_it_is_run_luod(monkeypatch):
    monkeypatch.delenv("LUOD_SOCKET", raising=False)
    assert socket_path(None) == "/run/luod/io.luod"
