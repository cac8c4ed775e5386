"""A luod that ends and comes back, or doesn't: what a client makes of it."""

import errno
import os
import socket
import threading

import pytest
import trio
import trio.testing

from luod import errors
from luod.client import Disconnected, NotRunning, ToPreserve, connect, connect_trio, requests
from luod.client.exchange import Connect, Conversation, Send, _pauses
from luod.lifecycle import Direction
from memory import memfd

from .played import RAM, page, refused, served, unanswered

NO_FILES = {"session": RAM}
NOT_FOUND = errors.SessionNotFound("ram")
EXISTS = errors.SessionExists("ram")
GOES_OUT = errors.WrongDirection("ram", Direction.OUTGOING)


def holding(*files):
    return {"session": RAM | {"files": [{"token": t, "name": n, "size": s, "retrieved": False} for t, n, s in files]}}


# A call that is asked again


@pytest.mark.parametrize(
    ("act", "method", "parameters", "answer"),
    [
        (lambda client: client.create("ram"), "Create", {"name": "ram"}, NO_FILES),
        (lambda client: client.discard("ram"), "Discard", {"session": "ram"}, {}),
        (lambda client: client.finish("ram"), "Finish", {"session": "ram"}, {}),
        (lambda client: client.find("ram"), "List", {"session": "ram"}, NO_FILES),
        (
            lambda client: client.unpreserve("ram", [1]),
            "Unpreserve",
            {"session": "ram", "tokens": [1]},
            {"released": True},
        ),
        (lambda client: client.manifest(), "io.luod.Update.Manifest", {}, {"manifest": {}}),
    ],
)
def test_a_call_that_nobody_answered_is_asked_again(luod, connected, act, method, parameters, answer):
    luod.plays(unanswered(method, parameters), unanswered(method, parameters), served(method, parameters, answer))
    with connected() as client:
        act(client)


def test_a_call_that_came_too_late_for_a_luod_goes_to_the_next_whatever_it_is(luod, connected):
    gone = threading.Event()
    luod.plays(lambda peer: gone.set(), served("com.example.Shoot", {}))
    with connected() as client:
        gone.wait()
        client.call("com.example.Shoot")


def test_a_call_that_luod_never_read_goes_to_the_next_whatever_it_is(luod, connected):
    def script(peer):
        while not peer.sock.recv(1, socket.MSG_PEEK):
            pass

    luod.plays(script, served("com.example.Shoot", {}))
    with connected() as client:
        client.call("com.example.Shoot")


def test_any_other_call_that_nobody_answered_is_not_asked_again(luod, connected):
    luod.plays(unanswered("com.example.Shoot", {}), served("Discard", {"session": "ram"}))
    with connected() as client:
        with pytest.raises(Disconnected, match="luod closed it"):
            client.call("com.example.Shoot")
        client.discard("ram")


def test_who_has_no_patience_is_told_that_nobody_answered(luod, connected):
    luod.plays(unanswered("Discard", {"session": "ram"}), served("Discard", {"session": "ram"}))
    with connected(patience=0) as client:
        with pytest.raises(Disconnected, match="luod closed it"):
            client.discard("ram")
        client.discard("ram")


def test_a_list_that_was_broken_off_begins_anew(luod, connected):
    def broken_off(peer):
        peer.asked("List", more=True)
        peer.answers(NO_FILES, continues=True)

    def whole(peer):
        peer.asked("List", more=True)
        peer.answers(NO_FILES, continues=True)
        peer.answers({"session": RAM | {"name": "disk"}})

    luod.plays(broken_off, whole)
    with connected() as client:
        assert [session.name for session in client.list()] == ["ram", "disk"]


def test_of_a_retrieve_that_was_broken_off_only_the_missing_page_is_asked_again(luod, connected):
    def first(peer):
        peer.asked("Retrieve", {"session": "ram"})
        peer.answers(page(1, following=[2]), fds=1)
        peer.asked("Retrieve", {"session": "ram", "tokens": [2]})

    def second(peer):
        peer.asked("Retrieve", {"session": "ram", "tokens": [2]})
        peer.answers(page(2), fds=1)

    luod.plays(first, second)
    with connected() as client:
        files = client.retrieve("ram")
    assert list(files) == [1, 2]
    for fd in files.values():
        fd.close()


# What it finds done


@pytest.mark.parametrize(
    ("act", "method", "parameters", "refusal"),
    [
        (lambda client: client.discard("ram"), "Discard", {"session": "ram"}, NOT_FOUND),
        (lambda client: client.finish("ram"), "Finish", {"session": "ram"}, NOT_FOUND),
        (lambda client: client.finish("ram", rearm=True), "Finish", {"session": "ram", "rearm": True}, GOES_OUT),
    ],
)
def test_what_is_found_done_counts_as_done_if_it_was_asked_before(luod, connected, act, method, parameters, refusal):
    luod.plays(unanswered(method, parameters), refused(method, parameters, refusal))
    with connected() as client:
        act(client)

    luod.plays(refused(method, parameters, refusal))
    with connected() as client, pytest.raises(type(refusal)):
        act(client)


def test_to_finish_what_goes_out_is_refused_however_often_it_is_asked(luod, connected):
    luod.plays(unanswered("Finish", {"session": "ram"}), refused("Finish", {"session": "ram"}, GOES_OUT))
    with connected() as client, pytest.raises(errors.WrongDirection):
        client.finish("ram")


@pytest.mark.parametrize(
    ("there", "counts"),
    [
        (RAM, True),
        (RAM | {"labels": {"vm": "1"}}, False),
        (RAM | {"direction": "incoming"}, False),
        (RAM | {"mode": "delegated"}, False),
        (RAM | {"files": [{"token": 0, "size": 1, "retrieved": False}]}, False),
    ],
)
def test_a_session_that_is_found_counts_as_created_if_it_is_as_asked_for_and_empty(luod, connected, there, counts):
    def next_luod(peer):
        peer.asked("Create", {"name": "ram"})
        peer.refuses(EXISTS)
        peer.asked("List", {"session": "ram"})
        peer.answers({"session": there})

    luod.plays(unanswered("Create", {"name": "ram"}), next_luod)
    with connected() as client:
        if counts:
            assert client.create("ram").name == "ram"
        else:
            with pytest.raises(errors.SessionExists):
                client.create("ram")


def test_a_session_that_is_there_the_first_time_is_in_the_way(luod, connected):
    luod.plays(refused("Create", {"name": "ram"}, EXISTS))
    with connected() as client, pytest.raises(errors.SessionExists):
        client.create("ram")


@pytest.mark.parametrize(("left", "counts"), [([], True), ([(1, None, 9)], False)])
def test_tokens_that_are_gone_count_as_unpreserved(luod, connected, left, counts):
    def next_luod(peer):
        peer.asked("Unpreserve", {"session": "ram", "tokens": [1, 2]})
        peer.refuses(errors.TokenNotFound("ram", 2))
        peer.asked("List", {"session": "ram"})
        peer.answers(holding(*left))

    luod.plays(unanswered("Unpreserve", {"session": "ram", "tokens": [1, 2]}), next_luod)
    with connected() as client:
        if counts:
            assert client.unpreserve("ram", [1, 2]) is False  # nobody said that it was
        else:
            with pytest.raises(errors.TokenNotFound):
                client.unpreserve("ram", [1, 2])


@pytest.mark.parametrize("token", [7, None])
@pytest.mark.parametrize("same", [True, False])
def test_a_file_that_is_found_counts_as_preserved_if_it_is_that_very_file(luod, connected, token, same):
    asked = {"session": "ram", "files": [{"fileDescriptorIndex": 0, "name": "pages"}]}
    if token is not None:
        asked["files"][0]["token"] = token

    def next_luod(peer):
        peer.asked("Preserve", asked)
        peer.refuses(errors.AlreadyPreserved(0) if token is None else errors.TokenInUse("ram", 7))
        peer.asked("List", {"session": "ram"})
        peer.answers(holding((6, None, 4), (7, "pages", 4)))
        peer.asked("Retrieve", {"session": "ram", "tokens": [7]})
        peer.lends(page(7), [mine if same else other])

    luod.plays(unanswered("Preserve", asked), next_luod)
    with memfd(b"mine") as mine_fd, memfd(b"else") as other_fd, connected() as client:
        mine, other = mine_fd.fileno(), other_fd.fileno()
        files = [ToPreserve(mine, token, "pages")]
        if same:
            assert [file.token for file in client.preserve_all("ram", files)] == [7]
        else:
            with pytest.raises((errors.AlreadyPreserved, errors.TokenInUse)):
                client.preserve_all("ram", files)


# A luod that doesn't come back


def test_who_was_never_asked_is_not_running(luod, connected):
    luod.plays(lambda peer: os.unlink(luod.path))
    with connected(patience=0.1) as client, pytest.raises(NotRunning, match="there is no such socket"):
        client.discard("ram")


def test_who_was_asked_may_have_done_it(luod, connected):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        os.unlink(luod.path)

    luod.plays(script)
    with connected(patience=0.1) as client, pytest.raises(Disconnected, match=r"didn't come back: there is no such"):
        client.discard("ram")


def test_a_call_that_ends_every_luod_is_given_up(luod, connected):
    luod.plays(*[unanswered("Discard", {"session": "ram"})] * 3)
    with connected(patience=0.01) as client, pytest.raises(Disconnected, match="luod closed it"):
        client.discard("ram")


def test_no_luod_at_first_is_told_at_once(tmp_path):
    with pytest.raises(NotRunning):
        connect(str(tmp_path / "nothing"), patience=1e9)


def test_a_luod_that_takes_its_time_is_waited_for():
    conversation = Conversation("/nowhere")
    steps = conversation.run(requests.discard("ram"))
    step = next(steps)
    for pause in [0.0, 0.05, 0.1, 0.2]:
        assert step == Connect(pause)
        step = steps.throw(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    assert isinstance(steps.send(None), Send)


def test_what_else_is_wrong_with_a_path_is_not_waited_for():
    conversation = Conversation("/nowhere")
    steps = conversation.run(requests.discard("ram"))
    next(steps)
    with pytest.raises(PermissionError, match="/nowhere"):
        steps.throw(PermissionError(errno.EACCES, "Permission denied"))


def test_the_pauses_grow_and_last_as_long_as_patience():
    assert list(_pauses(0)) == [0]
    pauses = list(_pauses(30))
    assert sum(pauses) == 30
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) == 1


# Closing while it is waited for


def test_closing_a_client_wakes_the_thread_that_waits_for_luod(luod):
    heard: list[BaseException] = []
    luod.plays(lambda peer: os.unlink(luod.path))
    client = connect(patience=1e9)

    def wait():
        with pytest.raises(Disconnected, match="closed here") as raised:
            client.discard("ram")
        heard.append(raised.value)

    thread = threading.Thread(target=wait)
    thread.start()
    client.close()
    thread.join()
    assert len(heard) == 1


async def test_closing_a_client_wakes_the_task_that_waits_for_luod(luod):
    async def wait(client):
        with pytest.raises(Disconnected, match="closed here"):
            await client.discard("ram")

    luod.plays(lambda peer: os.unlink(luod.path))
    async with connect_trio(patience=1e9) as client, trio.open_nursery() as nursery:
        nursery.start_soon(wait, client)
        await trio.sleep(0.01)
        client.close()
