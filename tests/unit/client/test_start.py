"""The lines of the README: get back what there was, or start afresh, and never the one for the other."""

import os
from collections.abc import Callable

import pytest

from luod import errors
from luod.client import NotRunning, connect
from luod.fds import FdBundle, OwnedFd
from running import luod_running

from .played import RAM, Peer, page

START = """
with connect() as luod:
    ram = luod.find("ram") or luod.create("ram")  # None alone says that there is nothing: all else is raised
    if ram.direction == "incoming":
        luod.finish("ram", rearm=True)  # it goes over with the next live update, too
    if ram.files:
        memory = luod.retrieve("ram")[0]
    else:
        luod.preserve("ram", memory := make_memory(), token=0)
"""


def start(size: int = 4096) -> int:
    """Run the lines of the README. Returns the size of the memory that it ended with."""
    made = FdBundle()

    def make_memory():
        made.add(OwnedFd(os.memfd_create("ram")))
        os.posix_fallocate(made[0].fileno(), 0, size)
        return made[0]

    names = {"connect": connect, "make_memory": make_memory}
    with made:
        exec(START, names)
        with names["memory"] as memory:
            return os.fstat(memory.fileno()).st_size


def finds(answer: dict | errors.WireError) -> Callable[[Peer], None]:
    def script(peer):
        peer.asked("List", {"session": "ram"})
        if isinstance(answer, errors.WireError):
            peer.refuses(answer)
        else:
            peer.answers(answer)

    return script


def test_who_has_nothing_starts_afresh(luod):
    def script(peer):
        finds(errors.SessionNotFound("ram"))(peer)
        peer.asked("Create", {"name": "ram"})
        peer.answers({"session": RAM})
        peer.asked("Preserve", {"session": "ram", "files": [{"fileDescriptorIndex": 0, "token": 0}]})
        peer.answers({"files": [{"token": 0, "size": 4096, "retrieved": False}]})

    luod.plays(script)
    assert start() == 4096


def test_who_has_something_gets_it_back(luod):
    def script(peer):
        finds({"session": RAM | {"files": [{"token": 0, "size": 0, "retrieved": False}]}})(peer)
        peer.asked("Retrieve", {"session": "ram"})
        peer.answers(page(0), fds=1)

    luod.plays(script)
    assert start() == 0


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (errors.RestoreUnavailable("EIO"), errors.RestoreUnavailable),
        (errors.SessionLost("ram", "dropped"), errors.SessionLost),
        ({"session": RAM | {"lost": "dropped"}}, errors.SessionLost),
        (errors.PermissionDenied(), errors.PermissionDenied),
    ],
)
def test_nobody_starts_afresh_by_mistake(luod, answer, raised):
    luod.plays(finds(answer))
    with pytest.raises(raised):
        start()


def test_nobody_starts_afresh_while_luod_is_not_running(tmp_path, monkeypatch):
    monkeypatch.setenv("LUOD_SOCKET", str(tmp_path / "nothing"))
    with pytest.raises(NotRunning):
        start()


def test_memory_is_found_again_after_a_crash_and_after_each_live_update(sim, tmp_path, monkeypatch):
    monkeypatch.setenv("LUOD_SOCKET", str(tmp_path / "io.luod"))
    with luod_running(sim.path, tmp_path):
        assert [start(size=8192), start(size=1), start(size=1)] == [8192, 8192, 8192]
        sim.kexec()
    for _ in range(2):
        with luod_running(sim.path, tmp_path):
            assert [start(size=1), start(size=1)] == [8192, 8192]
            sim.kexec()


def test_a_session_that_went_over_empty_starts_afresh(sim, tmp_path, monkeypatch):
    monkeypatch.setenv("LUOD_SOCKET", str(tmp_path / "io.luod"))
    with luod_running(sim.path, tmp_path), connect() as luod:
        luod.create("ram")
        sim.kexec()
    with luod_running(sim.path, tmp_path):
        assert start(size=8192) == 8192
