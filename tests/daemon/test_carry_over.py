"""What came over is exposed to the next kexec, until somebody comes for it or luod carries it over by itself."""

import pytest
import trio

from luod import errors
from manager import service_manager
from memory import content, memfds


@pytest.fixture
async def host(host):
    """A host whose service manager keeps what luod gives it, and whose owners have little time to come back."""
    with service_manager() as manager:
        await host.shut_down()
        host.manager = manager
        host.settings["carry_over_seconds"] = 0.05
        await host.boot()
        yield host
        await host.shut_down()


async def preserve(host, name, *contents):
    async with host.client() as luod:
        await luod.create(name)
        with memfds(*contents) as files:
            for token, fd in enumerate(files):
                await luod.preserve(name, fd, token)


async def contents(luod, name):
    found = {}
    for token, fd in (await luod.retrieve(name)).items():
        with fd:
            found[token] = content(fd)
    return found


async def carried_over(host, name):
    async with host.client() as luod:
        with trio.fail_after(20):
            while not (await luod.find(name)).carried_over:  # noqa: ASYNC110 - luod tells nobody
                await trio.sleep(0.01)


@pytest.fixture
def stays_up(monkeypatch):
    """That luod is stopped carries nothing over: the machine doesn't go down."""
    monkeypatch.setattr("luod.carry_over.machine_is_going_down", lambda: False)


async def grace_is_over(host):
    """Let luod carry over by itself what nobody has come for until now."""
    host.settings["carry_over_seconds"] = 0.05
    await host.reboot()


async def test_what_nobody_comes_for_lives_through_the_next_update_and_the_one_after(host):
    await preserve(host, "ram", b"one", b"two")
    for generation in (1, 2, 3):
        await host.kexec()
        await carried_over(host, "ram")
        async with host.client() as luod:
            session = await luod.find("ram")
            assert (session.direction, session.generation) == ("incoming", generation)
    async with host.client() as luod:
        assert await contents(luod, "ram") == {0: b"one", 1: b"two"}


async def test_to_its_owner_it_is_what_it_was(host):
    await preserve(host, "ram", b"one")
    await preserve(host, "more", b"two")
    await host.kexec()
    await carried_over(host, "ram")
    await carried_over(host, "more")
    async with host.client() as luod:
        with memfds(b"three") as (fd,), pytest.raises(errors.WrongDirection):
            await luod.preserve("ram", fd)
        assert await contents(luod, "ram") == {0: b"one"}
        await luod.finish("ram", rearm=True)
        assert (await luod.find("ram")).direction == "outgoing"
        await luod.finish("more")
        assert await luod.find("more") is None
    await host.kexec()
    async with host.client() as luod:
        assert [session.name for session in await luod.list()] == ["ram"]
        assert await contents(luod, "ram") == {0: b"one"}


async def test_who_has_come_is_left_in_peace(host, stays_up):
    await preserve(host, "mine", b"one")
    await preserve(host, "left", b"two")
    host.settings["carry_over_seconds"] = 3600.0
    await host.kexec()
    async with host.client() as luod:
        assert await contents(luod, "mine") == {0: b"one"}
    await grace_is_over(host)
    await carried_over(host, "left")
    async with host.client() as luod:
        assert not (await luod.find("mine")).carried_over


@pytest.mark.warns("session bad of uid")
async def test_what_cannot_be_carried_over_is_said_once_and_stops_nothing(host, stays_up):
    await preserve(host, "bad", b"one")
    await preserve(host, "good", b"two")
    host.settings["carry_over_seconds"] = 3600.0
    await host.kexec()
    host.control.fault("RETRIEVE_FD", 12)
    await grace_is_over(host)
    await carried_over(host, "good")
    async with host.client() as luod:
        with pytest.raises(errors.RetrieveFailed):
            await luod.retrieve("bad")


async def test_before_the_machine_goes_down_everything_is_carried_over(host, monkeypatch, tmp_path):
    monkeypatch.setattr("luod.systemd._SYSTEMD_RUNS", tmp_path / "not there")
    host.settings["carry_over_seconds"] = 3600.0
    await preserve(host, "claimed", b"one")
    await preserve(host, "left", b"two")
    await host.kexec()
    async with host.client() as luod:
        assert await contents(luod, "claimed") == {0: b"one"}
    await host.shut_down()
    await host.boot()
    async with host.client() as luod:
        assert all(session.carried_over for session in await luod.list())
    await host.kexec()
    async with host.client() as luod:
        assert await contents(luod, "claimed") == {0: b"one"}
        assert await contents(luod, "left") == {0: b"two"}


async def test_while_the_machine_stays_up_a_stop_carries_nothing_over(host, monkeypatch, tmp_path):
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho running\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("luod.systemd._SYSTEMD_RUNS", tmp_path)
    host.settings["carry_over_seconds"] = 3600.0
    await preserve(host, "left", b"two")
    await host.kexec()
    await host.shut_down()
    await host.boot()
    async with host.client() as luod:
        assert not (await luod.find("left")).carried_over
        assert await contents(luod, "left") == {0: b"two"}


@pytest.mark.warns("finished session left of uid")
async def test_what_nobody_comes_for_is_finished_after_a_while_only_where_that_is_configured(host):
    await preserve(host, "left", b"one")
    await preserve(host, "mine", b"two")
    await host.kexec()
    for name in ("left", "mine"):
        await carried_over(host, name)
    async with host.client() as luod:
        assert await contents(luod, "mine") == {0: b"two"}
    host.settings["finish_unclaimed_seconds"] = 0.5
    await host.shut_down()
    await host.boot()
    async with host.client() as luod:
        with trio.fail_after(20):
            while await luod.find("left") is not None:  # noqa: ASYNC110 - luod tells nobody
                await trio.sleep(0.01)
        assert await contents(luod, "mine") == {0: b"two"}


async def test_status_names_what_nobody_has_come_for(host):
    await preserve(host, "left", b"one")
    await host.kexec()
    await carried_over(host, "left")
    async with host.client() as luod:
        (problem,) = (await luod.status()).problems
        assert "left" in problem
        assert await contents(luod, "left") == {0: b"one"}
        assert (await luod.status()).problems is None
