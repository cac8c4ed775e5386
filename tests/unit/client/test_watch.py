"""Calls with several answers: Watch, and any other."""

from collections.abc import Callable

import pytest

from luod.client import Event, connect, connect_trio

from .played import Peer


def watched(*events: dict) -> Callable[[Peer], None]:
    """A connection on which luod tells of these; of the last one before it stops."""

    def script(peer: Peer) -> None:
        peer.asked("Watch", {"sessions": ["ram"], "participate": True}, more=True)
        for event in events:
            peer.answers(event, continues=event is not STOPPING)

    return script


PREPARE = {"event": "prepare", "update": 4}
STOPPING = {"event": "stopping"}


def watching(secret: str) -> dict:
    return {"event": "watching", "watcher": secret}


def takes_part(peer: Peer) -> None:
    peer.asked("Ready", {"update": 4, "watcher": "secret"})
    peer.answers()
    peer.asked("Veto", {"update": 4, "watcher": "secret", "reason": "a guest is migrating"})
    peer.answers()


def test_who_watches_takes_part_on_the_connection_that_is_free(luod):
    luod.plays(takes_part, watched(watching("secret"), PREPARE))
    with connect() as client, client.watch(["ram"], participate=True) as events:
        for event in events:
            if event.event == "prepare":
                client.ready(event)
                client.veto(event, "a guest is migrating")
                break


async def test_who_watches_in_trio_takes_part_on_the_connection_that_is_free(luod):
    luod.plays(takes_part, watched(watching("secret"), PREPARE))
    async with connect_trio() as client, client.watch(["ram"], participate=True) as events:
        async for event in events:
            if event.event == "prepare":
                await client.ready(event)
                await client.veto(event, "a guest is migrating")
                break


@pytest.mark.parametrize("last", [[STOPPING], []], ids=["stopped", "killed"])
def test_who_watches_goes_on_with_the_next_luod(luod, last):
    first = watched(watching("one"), *last)
    luod.plays(Peer.sees_the_client_go, first, watched(watching("two"), PREPARE))
    seen = []
    with connect() as client, client.watch(["ram"], participate=True) as events:
        for event in events:
            seen.append((event.event, event.watcher))
            if event.event == "prepare":
                break
    assert [known for known in seen if known[0] != "stopping"] == [
        ("watching", "one"),
        ("watching", "two"),
        ("prepare", "two"),
    ]


def leaves_early(peer: Peer) -> None:
    peer.asked("Watch", more=True)
    peer.answers({"event": "watching", "watcher": "secret"}, continues=True)
    peer.sees_the_client_go()


def test_who_leaves_the_block_is_no_watcher_any_more(luod):
    luod.plays(Peer.sees_the_client_go, leaves_early)
    with connect() as client, client.watch() as events:
        assert next(events).event == "watching"


async def test_who_leaves_the_block_in_trio_is_no_watcher_any_more(luod):
    luod.plays(Peer.sees_the_client_go, leaves_early)
    async with connect_trio() as client, client.watch() as events:
        async for event in events:
            assert event.event == "watching"
            break


def test_an_event_that_announces_nothing_can_not_be_answered(luod):
    luod.plays(Peer.sees_the_client_go)
    with connect() as client, pytest.raises(ValueError, match="'stopping' doesn't announce"):
        client.ready(Event(event="stopping"))


def streams(peer: Peer) -> None:
    peer.asked("com.example.Count", {"to": 2}, more=True)
    peer.answers({"oneFileDescriptor": 0}, fds=1, continues=True)
    peer.answers({"two": 2})


def test_a_stream_gives_each_answer_and_its_descriptors(luod):
    luod.plays(Peer.sees_the_client_go, streams)
    counted = []
    with connect() as client, client.stream("com.example.Count", {"to": 2}) as answers:
        for answer in answers:
            with answer.fds:
                counted.append((answer.parameters, len(answer.fds)))
    assert counted == [({"oneFileDescriptor": 0}, 1), ({"two": 2}, 0)]


async def test_a_stream_in_trio_gives_each_answer_and_its_descriptors(luod):
    luod.plays(Peer.sees_the_client_go, streams)
    counted = []
    async with connect_trio() as client, client.stream("com.example.Count", {"to": 2}) as answers:
        async for answer in answers:
            with answer.fds:
                counted.append((answer.parameters, len(answer.fds)))
    assert counted == [({"oneFileDescriptor": 0}, 1), ({"two": 2}, 0)]
