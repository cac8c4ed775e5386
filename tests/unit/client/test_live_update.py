"""What operators ask of luod around a live update, in both kinds of client."""

import os
import socket
import threading

import pytest

from luod import errors
from luod.client import Disconnected, connect, connect_trio
from memory import content, memfd

from .played import Peer, served, unanswered

UPDATE = "io.luod.Update"
CHECK = {"name": "image", "outcome": "fail", "detail": "none is loaded", "remedy": "load one", "loses": ["ram"]}
IDLE = {"kernel": {}, "device": {}, "generation": 1, "sessions": 0, "files": 0, "bytes": 0}


def progress(phase: str, ready: int = 0, *waiting: str) -> dict:
    return {"phase": phase, "ready": ready, "waiting": list(waiting), "update": 4, "deadlineUSec": 5}


def test_a_kernel_is_loaded_from_borrowed_descriptors(luod, connected):
    def script(peer):
        named = {"kernelFileDescriptor": 0, "initrdFileDescriptor": 1, "runningFileDescriptor": 2}
        peer.asked(f"{UPDATE}.LoadKernel", named | {"reuseCommandLine": True})
        assert [content(fd) for fd in peer.fds] == [b"kernel", b"initrd", b"running"]
        peer.answers({"image": {"release": "7.3"}})

    luod.plays(script)
    with memfd(b"kernel") as kernel, memfd(b"initrd") as initrd, memfd(b"running") as running, connected() as client:
        loaded = client.load_kernel(kernel, initrd, reuse=True, running_fd=running)
        os.fstat(kernel.fileno())
    assert loaded == {"release": "7.3"}


def test_what_is_not_given_takes_no_index(luod, connected):
    def script(peer):
        named = {"kernelFileDescriptor": 0, "runningFileDescriptor": 1, "commandLine": "quiet"}
        peer.asked(f"{UPDATE}.LoadKernel", named)
        peer.refuses(errors.BadImage("it is a picture"))

    luod.plays(script)
    with memfd() as kernel, memfd() as running, connected() as client, pytest.raises(errors.BadImage, match="picture"):
        client.load_kernel(kernel, command_line="quiet", running_fd=running)


def test_a_kernel_is_unloaded_and_an_update_aborted(luod, connected):
    def script(peer):
        peer.asked(f"{UPDATE}.UnloadKernel")
        peer.answers()
        peer.asked(f"{UPDATE}.Abort", {"reason": "why"})
        peer.answers()
        peer.asked(f"{UPDATE}.Abort")
        peer.refuses(errors.NoUpdate())

    luod.plays(script)
    with connected() as client:
        client.unload_kernel()
        client.abort_update("why")
        with pytest.raises(errors.NoUpdate):
            client.abort_update()


def test_preflight_tells_what_came_of_each_check(luod, connected):
    def script(peer):
        peer.asked(f"{UPDATE}.Preflight", {"via": "direct"})
        peer.answers({"checks": [CHECK, {"name": "device", "outcome": "pass", "detail": "there"}]})

    luod.plays(script)
    with connected() as client:
        image, device = client.preflight("direct")
    assert (image.outcome, image.loses, device.remedy) == ("fail", ["ram"], None)


def test_a_way_that_there_is_not_is_refused_before_anything_is_sent(luod, connected):
    luod.plays(Peer.sees_the_client_go)
    with connected() as client, pytest.raises(errors.InvalidParameter, match="via"):
        client.preflight("magic")


def test_the_timeline_is_of_a_generation(luod, connected):
    luod.plays(
        served(
            f"{UPDATE}.Timeline",
            {"generation": 3},
            {"generation": 3, "generations": [2, 3], "events": [{"what": "kernel", "usec": 1}]},
        )
    )
    with connected() as client:
        assert client.timeline(3).events == [{"what": "kernel", "usec": 1}]


@pytest.mark.parametrize(
    ("method", "asked"),
    [("unload_kernel", "UnloadKernel"), ("preflight", "Preflight"), ("timeline", "Timeline")],
)
def test_what_does_no_harm_is_asked_again(luod, connected, method, asked):
    answer = {"checks": [], "generation": 0, "generations": [], "events": []}
    luod.plays(unanswered(f"{UPDATE}.{asked}", {}), served(f"{UPDATE}.{asked}", {}, answer))
    with connected() as client:
        getattr(client, method)()


def test_an_abort_is_not_asked_again(luod, connected):
    luod.plays(unanswered(f"{UPDATE}.Abort", {}))
    with connected() as client, pytest.raises(Disconnected):
        client.abort_update()


def starts_anew(phase: str):
    """A connection on which luod ends when it is asked to start afresh, and one on which it says how it is then."""

    def status(peer: Peer) -> None:
        peer.asked(f"{UPDATE}.Status")
        peer.answers(IDLE | {"phase": phase})
        if phase == "unavailable":
            peer.asked(f"{UPDATE}.StartAfresh")

    return status


def test_to_start_afresh_is_asked_for_until_it_is_done(luod, connected):
    asked = unanswered(f"{UPDATE}.StartAfresh", {})
    luod.plays(asked, starts_anew("unavailable"), starts_anew("idle"))
    with connected() as client:
        client.start_afresh()


ASKED = {"via": "direct", "deadlineSec": 10, "unready": "proceed", "force": True}


def starts(peer: Peer) -> None:
    peer.asked(f"{UPDATE}.Start", ASKED, more=True)
    peer.answers(progress("preparing", 0, "qemu: hasn't answered"), continues=True)
    peer.answers(progress("executing", 1), continues=True)


def test_an_update_tells_of_its_progress_until_luod_is_gone(luod):
    luod.plays(Peer.sees_the_client_go, starts)
    with connect() as client, client.update(via="direct", deadline=10, unready="proceed", force=True) as steps:
        first = next(steps)
        assert (first.phase, first.waiting, first.deadline_usec) == ("preparing", ["qemu: hasn't answered"], 5)
        assert next(steps).phase == "executing"
        with pytest.raises(Disconnected):
            next(steps)


async def test_an_update_in_trio_tells_of_its_progress_until_luod_is_gone(luod):
    luod.plays(Peer.sees_the_client_go, starts)
    async with (
        connect_trio() as client,
        client.update(via="direct", deadline=10, unready="proceed", force=True) as steps,
    ):
        assert (await anext(steps)).phase == "preparing"
        assert (await anext(steps)).phase == "executing"
        with pytest.raises(Disconnected):
            await anext(steps)


def aborts(peer: Peer) -> None:
    peer.asked(f"{UPDATE}.Start", more=True)
    peer.answers(progress("preparing"), continues=True)
    peer.refuses(errors.UpdateAborted("a guest is migrating"))


def test_an_update_that_is_off_raises_why(luod):
    luod.plays(Peer.sees_the_client_go, aborts)
    with connect() as client, client.update() as steps:
        assert next(steps).phase == "preparing"
        with pytest.raises(errors.UpdateAborted, match="migrating"):
            next(steps)


def leaves_early(peer: Peer) -> None:
    peer.asked(f"{UPDATE}.Start", more=True)
    peer.answers(progress("preparing"), continues=True)
    peer.sees_the_client_go()


def test_who_leaves_the_block_of_an_update_hangs_up(luod):
    luod.plays(Peer.sees_the_client_go, leaves_early)
    with connect() as client, client.update() as steps:
        assert next(steps).phase == "preparing"


def follows(*phases: str):
    def script(peer: Peer) -> None:
        peer.asked(f"{UPDATE}.Follow", more=True)
        for phase in phases:
            peer.answers(progress(phase), continues=phase != "idle")

    return script


def test_who_follows_goes_on_with_the_next_luod_until_nothing_goes_on(luod):
    luod.plays(Peer.sees_the_client_go, follows("executing"), follows("restoring", "idle"))
    with connect() as client, client.follow() as steps:
        assert [step.phase for step in steps] == ["executing", "restoring", "idle"]


async def test_who_follows_in_trio_goes_on_with_the_next_luod_until_nothing_goes_on(luod):
    luod.plays(Peer.sees_the_client_go, follows("executing"), follows("restoring", "idle"))
    async with connect_trio() as client, client.follow() as steps:
        assert [step.phase async for step in steps] == ["executing", "restoring", "idle"]


def test_who_waits_for_a_luod_connects_when_it_is_there(tmp_path):
    path = str(tmp_path / "late")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        late = threading.Timer(0.2, listener.listen)
        late.start()
        with connect(path, wait=True):
            pass
        late.join()
