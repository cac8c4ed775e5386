"""What each request sends, and what it makes of the answer, in both kinds of client."""

import os

import pytest

from luod import errors
from luod.client import BadReply, Disconnected, ToPreserve
from memory import memfd, memfds

from .played import RAM, Peer, page


def test_create_returns_the_session(luod, connected):
    def script(peer):
        peer.asked("Create", {"name": "ram", "labels": {"vm": "7"}})
        peer.answers({"session": RAM | {"labels": {"vm": "7"}, "aFieldOfTomorrow": 1}})

    luod.plays(script)
    with connected() as client:
        session = client.create("ram", labels={"vm": "7"})
    assert (session.name, session.labels, session.direction) == ("ram", {"vm": "7"}, "outgoing")


def test_the_owner_is_passed_on(luod, connected):
    def script(peer):
        peer.asked("Discard", {"session": "ram", "owner": 107})
        peer.answers()

    luod.plays(script)
    with connected() as client:
        client.discard("ram", owner=107)


def test_preserve_lends_the_descriptor_and_names_it(luod, connected):
    def script(peer):
        peer.asked("Preserve", {"session": "ram", "files": [{"fileDescriptorIndex": 0, "token": 7, "name": "guest"}]})
        assert os.readlink(f"/proc/self/fd/{peer.fds[0].fileno()}").startswith("/memfd:test")
        peer.answers({"files": [{"token": 7, "name": "guest", "size": 4096, "retrieved": False}]})

    luod.plays(script)
    with memfd() as fd, connected() as client:
        file = client.preserve("ram", fd, token=7, name="guest")
        os.fstat(fd.fileno())
    assert (file.token, file.size) == (7, 4096)


def test_preserve_all_sends_all_in_one_message(luod, connected):
    def script(peer):
        named = [{"fileDescriptorIndex": 0, "token": 1}, {"fileDescriptorIndex": 1}]
        peer.asked("Preserve", {"session": "ram", "files": named})
        assert len(peer.fds) == 2
        peer.answers({"files": [{"token": 1, "retrieved": False}, {"token": 2, "retrieved": False}]})

    luod.plays(script)
    with memfds(b"", b"") as fds, connected() as client:
        files = client.preserve_all("ram", [ToPreserve(fds[0], token=1), ToPreserve(fds[1])])
    assert [file.token for file in files] == [1, 2]


def test_more_descriptors_than_a_message_holds_are_refused_before_anything_is_sent(luod, connected):
    luod.plays(Peer.sees_the_client_go)
    with connected() as client, pytest.raises(errors.InvalidParameter, match="253"):
        client.preserve_all("ram", [ToPreserve(0)] * 254)


def test_what_luod_would_not_take_is_refused_before_anything_is_sent(luod, connected):
    luod.plays(Peer.sees_the_client_go)
    with connected() as client:
        with pytest.raises(errors.InvalidParameter, match="session"):
            client.find("no such/name")
        with pytest.raises(errors.InvalidParameter, match=r"files\[0\].token"):
            client.preserve("ram", 0, token=-1)


def test_a_descriptor_that_is_not_open_leaves_the_connection_as_it_was(luod, connected):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        peer.answers()

    luod.plays(script)
    with connected() as client:
        with pytest.raises(OSError, match="Bad file descriptor"):
            client.preserve("ram", 9999)
        client.discard("ram")


def test_unpreserve_says_whether_the_memory_is_free(luod, connected):
    def script(peer):
        peer.asked("Unpreserve", {"session": "ram", "tokens": [1, 2]})
        peer.answers({"released": False})

    luod.plays(script)
    with connected() as client:
        assert client.unpreserve("ram", [1, 2]) is False


def test_finish_says_rearm_only_when_it_is_asked_to(luod, connected):
    def script(peer):
        peer.asked("Finish", {"session": "ram"})
        peer.answers()
        peer.asked("Finish", {"session": "ram", "rearm": True})
        peer.answers()

    luod.plays(script)
    with connected() as client:
        client.finish("ram")
        client.finish("ram", rearm=True)


def test_retrieve_follows_the_pages(luod, connected):
    def script(peer):
        peer.asked("Retrieve", {"session": "ram"})
        peer.answers(page(5, 6, following=[7]), fds=2)
        peer.asked("Retrieve", {"session": "ram", "tokens": [7]})
        peer.answers(page(7), fds=1)

    luod.plays(script)
    with connected() as client:
        files = client.retrieve("ram")
    assert list(files) == [5, 6, 7]
    for file in files.values():
        file.close()


def test_a_page_that_is_refused_closes_those_before_it(luod, connected):
    def script(peer):
        peer.asked("Retrieve", {"session": "ram"})
        peer.answers(page(5, 6, following=[7]), fds=2)
        peer.asked("Retrieve", {"session": "ram", "tokens": [7]})
        peer.refuses(errors.RetrieveFailed("ram", 7, 12))
        peer.asked("Discard", {"session": "ram"})
        peer.answers()

    luod.plays(script)
    with connected() as client:
        with pytest.raises(errors.RetrieveFailed, match="ENOMEM"):
            client.retrieve("ram")
        client.discard("ram")


def test_a_page_that_never_comes_closes_those_before_it(luod, connected):
    def script(peer):
        peer.asked("Retrieve", {"session": "ram"})
        peer.answers(page(5, 6, following=[7]), fds=2)
        peer.asked("Retrieve", {"session": "ram", "tokens": [7]})
        os.unlink(luod.path)

    luod.plays(script)
    with connected(patience=0) as client, pytest.raises(Disconnected, match="luod closed it"):
        client.retrieve("ram")


@pytest.mark.parametrize(
    ("reply", "fds", "complaint"),
    [
        (page(5) | {"next": 7}, 1, "next"),
        (page(5, 5), 2, "token 5 came twice"),
        ({"files": [], "next": [5]}, 0, "a page without a file"),
    ],
)
def test_descriptors_of_a_reply_that_makes_no_sense_are_closed(luod, connected, reply, fds, complaint):
    def script(peer):
        peer.asked("Retrieve", {"session": "ram"})
        peer.answers(reply, fds)

    luod.plays(script)
    with connected() as client, pytest.raises(BadReply, match=complaint):
        client.retrieve("ram")


@pytest.mark.parametrize(
    ("request_of", "reply", "fds", "complaint"),
    [
        (lambda client: client.create_delegated("vm"), {"session": RAM}, 0, "came without its descriptor"),
        (lambda client: client.claim("vm"), {"session": RAM}, 0, "fileDescriptorIndex: "),
        (lambda client: client.preserve_all("ram", [ToPreserve(0)]), {"files": []}, 0, "0 files for 1 descriptors"),
        (lambda client: client.retrieve("ram"), {"files": [{"file_descriptor_index": 0, "token": 1}]}, 0, "not there"),
    ],
)
def test_a_reply_that_lacks_what_it_is_for_is_a_bad_one(luod, connected, request_of, reply, fds, complaint):
    luod.plays(lambda peer: (peer.receives(), peer.answers(reply, fds)))
    with connected() as client, pytest.raises(BadReply, match=complaint):
        request_of(client)


def test_descriptors_that_nobody_asked_for_are_closed(luod, connected):
    def script(peer):
        peer.asked("Discard", {"session": "ram"})
        peer.answers({"giftFileDescriptor": 0}, fds=1)

    luod.plays(script)
    with connected() as client:
        client.discard("ram")


def test_a_delegated_session_comes_as_the_kernels(luod, connected):
    def script(peer):
        peer.asked("Create", {"name": "vm", "mode": "delegated"})
        peer.answers({"session": RAM | {"mode": "delegated"}, "fileDescriptorIndex": 0}, fds=1)
        peer.asked("Claim", {"session": "vm"})
        peer.answers({"session": RAM | {"mode": "delegated"}, "fileDescriptorIndex": 0}, fds=1)

    luod.plays(script)
    with connected() as client:
        session, kernel_session = client.create_delegated("vm")
        kernel_session.give_up()
        client.claim("vm").give_up()
    assert session.mode == "delegated"


def test_nothing_of_yours_is_none(luod, connected):
    def script(peer):
        peer.asked("List", {"session": "ram"})
        peer.answers()
        peer.asked("List", {"session": "ram"})
        peer.refuses(errors.SessionNotFound("ram"))

    luod.plays(script)
    with connected() as client:
        assert client.find("ram") is None
        assert client.find("ram") is None


@pytest.mark.parametrize("error", [errors.RestoreUnavailable("EIO"), errors.SessionLost("ram", "was dropped")])
def test_what_cannot_be_given_back_is_raised_and_never_none(luod, connected, error):
    def script(peer):
        peer.asked("List", {"session": "ram"})
        peer.refuses(error)

    luod.plays(script)
    with connected() as client, pytest.raises(type(error)) as raised:
        client.find("ram")
    assert raised.value.parameters() == error.parameters()


def test_a_session_that_is_listed_as_lost_is_raised_by_find(luod, connected):
    def script(peer):
        peer.asked("List", {"session": "ram"})
        peer.answers({"session": RAM | {"lost": "the kernel dropped it"}})

    luod.plays(script)
    with connected() as client, pytest.raises(errors.SessionLost, match="the kernel dropped it"):
        client.find("ram")


def test_list_collects_all_replies(luod, connected):
    def script(peer):
        peer.asked("List", {"all": True}, more=True)
        peer.answers({"session": RAM}, continues=True)
        peer.answers({"session": RAM | {"uid": 0, "lost": "gone"}})
        peer.asked("List", more=True)
        peer.answers({"session": None})

    luod.plays(script)
    with connected() as client:
        assert [session.uid for session in client.list(all_owners=True)] == [1000, 0]
        assert client.list() == []


def test_status_manifest_and_timeline_are_of_the_update_interface(luod, connected):
    def script(peer):
        peer.asked("io.luod.Update.Status")
        counts = {"generation": 3, "sessions": 1, "files": 2, "bytes": 8192}
        peer.answers({"phase": "idle", "kernel": {}, "device": {}} | counts)
        peer.asked("io.luod.Update.Manifest")
        peer.answers({"manifest": {"version": 1}})
        peer.asked("io.luod.Update.Timeline")
        peer.answers({"generation": 3, "generations": [2, 3], "events": []})
        peer.asked("io.luod.Update.Timeline", {"generation": 2})
        peer.answers({"generation": 2, "generations": [2, 3], "events": [{"what": "ready", "usec": 1}]})

    luod.plays(script)
    with connected() as client:
        assert client.status().generation == 3
        assert client.manifest() == {"version": 1}
        assert client.timeline().generations == [2, 3]
        assert client.timeline(2).events == [{"what": "ready", "usec": 1}]


def test_a_raw_call_gives_the_answer_and_its_descriptors(luod, connected):
    def script(peer):
        peer.asked("com.example.Ping", {"inFileDescriptor": 0})
        peer.answers({"outFileDescriptor": 0}, fds=1)

    luod.plays(script)
    with memfd() as fd, connected() as client:
        answer = client.call("com.example.Ping", {"inFileDescriptor": 0}, [fd])
    with answer.fds:
        assert (answer.parameters, len(answer.fds)) == ({"outFileDescriptor": 0}, 1)
