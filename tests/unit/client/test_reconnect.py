"""A luod that ends and comes back, or doesn't: what a client makes of it."""

import errno
import os
import socket
import threading

import pytest
import trio
import trio.testing

from eventually import within
from luod import errors
from luod.client import Disconnected, NotRunning, ToPreserve, connect, connect_trio, requests
from luod.client.exchange import _ASKED_AGAIN, Connect, Conversation, Send, pauses
from luod.fds import FdBundle
from luod.lifecycle import Direction
from memory import memfd

from .played import RAM, Peer, page, refused, served, unanswered

THERE = {"session": RAM}


# A call that is asked again


@pytest.mark.parametrize(
    ("act", "method", "parameters", "answer"),
    [
        (lambda client: client.find("ram"), "List", {"session": "ram"}, THERE),
        (lambda client: client.retrieve("ram"), "Retrieve", {"session": "ram"}, {"files": []}),
        (lambda client: client.manifest(), "io.luod.Update.Manifest", {}, {"manifest": {}}),
    ],
)
def test_a_question_that_nobody_answered_is_asked_again(luod, connected, act, method, parameters, answer):
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
    luod.plays(lambda peer: peer.sock.recv(1, socket.MSG_PEEK), served("com.example.Shoot", {}))
    with connected() as client:
        client.call("com.example.Shoot")


def test_any_other_call_that_nobody_answered_is_not_asked_again(luod, connected):
    luod.plays(unanswered("com.example.Shoot", {}), served("Discard", {"session": "ram"}))
    with connected() as client:
        with pytest.raises(Disconnected, match="luod closed it"):
            client.call("com.example.Shoot")
        client.discard("ram")


def test_who_has_no_patience_is_told_that_nobody_answered(luod, connected):
    luod.plays(unanswered("List", {"session": "ram"}), served("List", {"session": "ram"}, THERE))
    with connected(patience=0) as client:
        with pytest.raises(Disconnected, match="luod closed it"):
            client.find("ram")
        assert client.find("ram").name == "ram"


def test_a_list_that_was_broken_off_begins_anew(luod, connected):
    def broken_off(peer):
        peer.asked("List", more=True)
        peer.answers(THERE, continues=True)

    def whole(peer):
        peer.asked("List", more=True)
        peer.answers(THERE, continues=True)
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


def test_answers_to_a_call_with_more_that_nobody_asked_for_end_the_connection(luod, connected):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        peer.answers(continues=True)
        peer.sees_the_client_go()

    luod.plays(script, served("Discard", {"session": "disk"}))
    with connected() as client:
        client.discard("ram")
        client.discard("disk")


# What became of one that changes something


LATER = RAM | {"createdUSec": 2**60}
"""A session that was made after whatever a test asked for."""


def finds(there):
    """luod tells what is there of `ram`; None for nothing."""

    def script(peer):
        peer.asked("List", {"session": "ram"})
        if there is None:
            peer.refuses(errors.SessionNotFound("ram"))
        else:
            peer.answers({"session": there})

    return script


def then(*scripts):
    """On one connection, one after the other."""

    def script(peer):
        for each in scripts:
            each(peer)

    return script


CREATE = ("Create", {"name": "ram"})
DISCARD = ("Discard", {"session": "ram"})
FINISH = ("Finish", {"session": "ram"})
REARM = ("Finish", {"session": "ram", "rearm": True})
UNPRESERVE = ("Unpreserve", {"session": "ram", "tokens": [1, 2]})
FILE = {"token": 1, "size": 9, "retrieved": False}
ACTS = {
    CREATE[0]: (lambda client: client.create("ram"), THERE),
    DISCARD[0]: (lambda client: client.discard("ram"), {}),
    FINISH[0]: (lambda client: client.finish("ram"), {}),
    "rearm": (lambda client: client.finish("ram", rearm=True), {}),
    UNPRESERVE[0]: (lambda client: client.unpreserve("ram", [1, 2]), {"released": True}),
}


@pytest.mark.parametrize(
    ("act", "call", "there"),
    [
        ("Create", CREATE, LATER),
        ("Create", CREATE, LATER | {"files": [FILE]}),
        ("Discard", DISCARD, None),
        ("Discard", DISCARD, LATER),
        ("Finish", FINISH, None),
        ("Finish", FINISH, LATER),
        ("rearm", REARM, None),
        ("rearm", REARM, RAM | {"generation": 1}),
        ("Unpreserve", UNPRESERVE, RAM),
        ("Unpreserve", UNPRESERVE, RAM | {"files": [FILE | {"token": 3}]}),
    ],
)
def test_what_is_found_done_is_not_asked_again(luod, connected, act, call, there):
    luod.plays(unanswered(*call), then(finds(there), Peer.sees_the_client_go))
    with connected() as client:
        ACTS[act][0](client)


@pytest.mark.parametrize(
    ("act", "call", "there"),
    [
        ("Create", CREATE, None),
        ("Create", CREATE, RAM),
        ("Create", CREATE, LATER | {"labels": {"vm": "1"}}),
        ("Create", CREATE, LATER | {"mode": "delegated"}),
        ("Discard", DISCARD, RAM),
        ("Finish", FINISH, RAM | {"direction": "incoming"}),
        ("Finish", FINISH, RAM | {"generation": 1}),
        ("rearm", REARM, RAM | {"direction": "incoming", "generation": 1}),
        ("rearm", REARM, RAM),
        ("Unpreserve", UNPRESERVE, RAM | {"files": [FILE]}),
        ("Unpreserve", UNPRESERVE, RAM | {"lost": "it is"}),
        ("Unpreserve", UNPRESERVE, None),
    ],
)
def test_what_is_found_not_done_is_asked_again(luod, connected, act, call, there):
    do, answer = ACTS[act]
    luod.plays(unanswered(*call), then(finds(there), served(*call, answer)))
    with connected() as client:
        do(client)


@pytest.mark.parametrize("error", [errors.SessionNotFound("ram"), errors.WrongDirection("ram", Direction.OUTGOING)])
def test_what_is_refused_is_refused_however_often_it_was_asked(luod, connected, error):
    luod.plays(unanswered(*REARM), then(finds(RAM), refused(*REARM, error)))
    with connected() as client, pytest.raises(type(error)):
        client.finish("ram", rearm=True)


@pytest.mark.parametrize("token", [7, None])
@pytest.mark.parametrize(("found", "name"), [("mine", "pages"), ("mine", "old"), ("other", "pages")])
def test_a_file_that_is_found_counts_as_preserved_if_it_is_that_very_file_by_that_name(
    luod, connected, token, found, name
):
    asked = {"session": "ram", "files": [{"fileDescriptorIndex": 0, "name": "pages"}]}
    if token is not None:
        asked["files"][0]["token"] = token
    held = [FILE | {"token": 6, "size": 4}, FILE | {"token": 7, "size": 4, "name": name}]

    def next_luod(peer):
        finds(RAM | {"files": held})(peer)
        if name == "pages":
            peer.asked("Retrieve", {"session": "ram", "tokens": [7]})
            peer.lends(page(7), [files[found].fileno()])
        if (found, name) != ("mine", "pages"):
            peer.asked("Preserve", asked)
            peer.refuses(errors.AlreadyPreserved(0))

    luod.plays(unanswered("Preserve", asked), next_luod)
    with memfd(b"mine") as mine, memfd(b"else") as other, connected() as client:
        files = {"mine": mine, "other": other}
        given = [ToPreserve(mine, token, "pages")]
        if (found, name) == ("mine", "pages"):
            assert [file.token for file in client.preserve_all("ram", given)] == [7]
        else:
            with pytest.raises(errors.AlreadyPreserved):
                client.preserve_all("ram", given)


def test_two_descriptors_of_one_file_do_not_count_as_preserved(luod, connected):
    asked = {"session": "ram", "files": [{"fileDescriptorIndex": 0}, {"fileDescriptorIndex": 1}]}

    def next_luod(peer):
        finds(RAM | {"files": [FILE | {"size": 4}]})(peer)
        peer.asked("Retrieve", {"session": "ram", "tokens": [1]})
        peer.lends(page(1), [mine.fileno()])
        peer.asked("Preserve", asked)
        peer.refuses(errors.AlreadyPreserved(1))

    luod.plays(unanswered("Preserve", asked), next_luod)
    with memfd(b"mine") as mine, connected() as client, pytest.raises(errors.AlreadyPreserved):
        client.preserve_all("ram", [ToPreserve(mine), ToPreserve(mine)])


def test_a_delegated_session_that_is_found_made_is_claimed(luod, connected):
    there = LATER | {"mode": "delegated"}

    def next_luod(peer):
        finds(there)(peer)
        peer.asked("Claim", {"session": "ram"})
        peer.answers({"session": there, "fileDescriptorIndex": 0}, fds=1)

    luod.plays(unanswered("Create", {"name": "ram", "mode": "delegated"}), next_luod)
    with connected() as client:
        session, kernel = client.create_delegated("ram")
        kernel.give_up()
    assert session.name == "ram"


def test_a_luod_that_has_no_room_yet_says_nothing_of_what_became_of_a_call(luod, connected):
    def full(peer):
        peer.refuses(errors.QuotaExceeded("connections", 128))

    luod.plays(unanswered(*DISCARD), full, then(finds(None), Peer.sees_the_client_go))
    with connected() as client:
        client.discard("ram")


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
    with connected(patience=0.1) as client, pytest.raises(Disconnected, match=r"and then: .*there is no such socket"):
        client.discard("ram")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EPROTOTYPE])
def test_whatever_is_in_the_way_afterwards_who_was_asked_may_have_done_it(number):
    steps = Conversation("/nowhere").run(requests.discard("ram"))
    assert isinstance(next(steps), Connect)
    assert isinstance(steps.send(None), Send)
    assert steps.send(None) is None
    assert isinstance(steps.send((b"", FdBundle())), Connect)
    with pytest.raises(Disconnected, match="and then"):
        steps.throw(OSError(number, os.strerror(number)))


def test_a_call_that_ends_every_luod_is_given_up(luod, connected):
    luod.plays(*[unanswered("List", {"session": "ram"})] * (1 + _ASKED_AGAIN))
    with connected() as client, pytest.raises(Disconnected, match="luod closed it"):
        client.find("ram")


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
    assert list(pauses(0)) == [0]
    waited = list(pauses(30))
    assert sum(waited) == 30
    assert waited[:-1] == sorted(waited[:-1])
    assert max(waited) == 1


# Closing while it is waited for


def test_closing_a_client_ends_the_call_of_a_thread_that_waits_for_luod(luod):
    heard: list[BaseException] = []
    luod.plays(lambda peer: os.unlink(luod.path))
    client = connect(patience=1e9)

    def wait():
        with pytest.raises(Disconnected, match="closed here") as raised:
            client.discard("ram")
        heard.append(raised.value)

    thread = threading.Thread(target=wait)
    thread.start()
    within(20, lambda: client._conversation.over)
    client.close()
    thread.join()
    assert len(heard) == 1


async def test_closing_a_client_ends_the_call_of_a_task_that_waits_for_luod(luod, autojump_clock):
    async def wait(client):
        with pytest.raises(Disconnected, match="closed here"):
            await client.discard("ram")

    async with connect_trio(patience=1e9) as client, trio.open_nursery() as nursery:
        luod.plays(lambda peer: os.unlink(luod.path))
        nursery.start_soon(wait, client)
        while not client._conversation.over:
            await trio.lowlevel.checkpoint()
        client.close()


def test_a_call_that_is_closed_between_two_sends_says_so():
    conversation = Conversation("/nowhere")
    steps = conversation.run(requests.discard("ram"))
    next(steps)
    steps.send(None)
    conversation.close()
    with pytest.raises(Disconnected, match="closed here"):
        steps.throw(OSError(errno.EBADF, "Bad file descriptor"))
