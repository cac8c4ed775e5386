"""A live update, from the load of the next kernel to the last owner who comes back; and every way back."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.lowlevel

from daemon.conftest import Host
from eventually import eventually
from leftovers import children
from luod import errors, handover, sealed
from luod.client import Disconnected, connect
from luod.config import Network
from luod.daemon import GRACE
from luod.going import CameBack
from luod.kernel.api import Call
from luod.network.handing import alone, held
from luod.operations import NO_MEANS
from luod.sim.client import SimMachine
from luod.sim.image import bzimage
from manager import service_manager
from memory import content, memfd, memfds

LINE = "quiet liveupdate=on kho=on"
RAM = "ram" if os.geteuid() == 0 else f"ram of uid {os.geteuid()}"


class PoweredOff(BaseException):
    """The machine has gone into the next kernel under this luod."""


class Leaving(Host):
    """A host that leaves for the next kernel by itself."""

    async def _run(self, *arguments, task_status):
        self.is_off = False
        try:
            await super()._run(*arguments, task_status=task_status)
        except BaseExceptionGroup as group:
            if group.split(PoweredOff)[1] is not None:
                raise
            self.is_off = True

    async def load(self, line=LINE, **image):
        with memfd(bzimage(**image)) as fd:
            async with self.client() as luod:
                return await luod.load_kernel(fd, command_line=line)

    async def update(self, **how):
        """Update, until the machine has gone. What was said on the way."""
        said = []
        with pytest.raises(Disconnected):
            await self.begin(said, **how)
        await self._ended.wait()
        assert self.is_off
        return said

    async def begin(self, said, **how):
        """Update, until that is over. What is said on the way is added to `said`."""
        async with self.client() as luod, luod.update(**how) as steps:
            async for progress in steps:
                said.append(progress)

    async def arrive(self):
        """The next luod, in the next kernel: the service manager is another one, too."""
        self.manager.forget(*self.manager.names)
        await self.boot()


@pytest.fixture
async def host(sim, tmp_path, nursery, monkeypatch):
    def power_off():
        raise PoweredOff

    monkeypatch.setattr("luod.sim.client.power_off", power_off)
    with service_manager() as manager:
        host = Leaving(sim, tmp_path, nursery)
        host.manager = manager
        await host.boot()
        yield host
        await host.shut_down()


async def preserve(host, name, *contents, **labels):
    async with host.client() as luod:
        await luod.create(name, labels=labels)
        with memfds(*contents) as files:
            for token, fd in enumerate(files):
                await luod.preserve(name, fd, token)


async def contents(host, name):
    found = {}
    async with host.client() as luod:
        for token, fd in (await luod.retrieve(name)).items():
            with fd:
                found[token] = content(fd)
    return found


class Taker:
    """Somebody who takes part: what it was told, and what it answers."""

    def __init__(self, host, sessions=None):
        self.host = host
        self.sessions = sessions
        self.told = []

    def was_told(self, event):
        return any(each.event == event for each in self.told)

    @asynccontextmanager
    async def takes_part(self):
        async with trio.open_nursery() as nursery, self.host.client() as luod:
            nursery.start_soon(self._watch, luod)
            await eventually(lambda: self.was_told("watching"))
            yield self
            nursery.cancel_scope.cancel()

    async def _watch(self, luod):
        async with luod.watch(self.sessions, participate=True) as events:
            async for event in events:
                self.told.append(event)

    async def asked(self):
        await eventually(lambda: self.was_told("prepare"))
        return self.told[-1]

    async def ready(self):
        event = await self.asked()
        async with self.host.client() as luod:
            await luod.ready(event)

    async def veto(self, reason):
        event = await self.asked()
        async with self.host.client() as luod:
            await luod.veto(event, reason)


async def refused(host, error, **how):
    """An update that doesn't come to it: why."""
    with pytest.raises(error) as caught:
        await host.begin([], **how)
    return caught.value


async def all_is_as_before(host, name="ram", *expected):
    """The phase is idle, and what is held can be had, added to and taken away."""
    async with host.client() as luod:
        assert (await luod.status()).phase == "idle"
        with memfds(b"more") as (fd,):
            await luod.preserve(name, fd, token=99)
        await luod.unpreserve(name, [99])
    assert await contents(host, name) == dict(enumerate(expected))


async def test_what_is_held_comes_over_and_the_next_luod_knows_where_from(host):
    await preserve(host, "ram", b"one", b"two")
    boot = (await status(host)).kernel["bootId"]
    image = await host.load()
    assert image["release"] == "7.3.4-simulated"
    said = await host.update()
    assert (said[0].phase, said[-1].phase) == ("preparing", "executing")
    await host.arrive()
    after = await status(host)
    assert (after.generation, after.phase) == (1, "restoring")
    assert (after.last_update["generation"], after.last_update["via"]) == (1, "direct")
    assert after.last_update["blackoutUSec"] > 0
    assert SimMachine(host.control.path).running.command_line() == f"{LINE} luod.from={boot}/0"
    assert await contents(host, "ram") == {0: b"one", 1: b"two"}


async def status(host):
    async with host.client() as luod:
        return await luod.status()


async def test_those_who_take_part_are_waited_for(host):
    await preserve(host, "ram", b"one")
    await host.load()
    async with Taker(host).takes_part() as one, Taker(host).takes_part() as two, trio.open_nursery() as nursery:
        nursery.start_soon(host.update)
        await one.ready()
        assert not host.is_off
        progress = await seen(host)
        assert (progress.phase, progress.ready, len(progress.waiting)) == ("preparing", 1, 1)
        assert progress.waiting[0].endswith(f"(process {os.getpid()}) for {RAM}: no answer")
        async with host.client() as luod:
            with memfds(b"late") as (fd,):
                await luod.preserve("ram", fd, token=7)
        await two.ready()
    await host.arrive()
    assert await contents(host, "ram") == {0: b"one", 7: b"late"}


async def seen(host):
    """What somebody who looks on is told first."""
    async with host.client() as luod, luod.follow() as steps:
        return await anext(aiter(steps))


async def test_whoever_looks_on_is_not_told_of_each_owner_that_comes_back(host):
    names = [f"ram{number}" for number in range(60)]
    for name in names:
        await preserve(host, name, b"one")
    await host.kexec()
    told, began = [], trio.current_time()
    async with trio.open_nursery() as nursery, host.client() as luod:

        async def look_on():
            async with host.client() as other, other.follow() as steps:
                async for step in steps:
                    told.append(step)  # noqa: PERF401 - it is looked at meanwhile

        nursery.start_soon(look_on)
        await eventually(lambda: told)
        for name in names:
            await luod.finish(name, rearm=True)
    assert (told[0].phase, told[-1].phase) == ("restoring", "idle")
    assert len(told) < 4 + (trio.current_time() - began) / 0.1  # luod.conversation._LOOK_PAUSE


async def test_stages_are_asked_one_after_the_other(host):
    await preserve(host, "vm", b"one", stage="1")
    await preserve(host, "disk", b"two", stage="2")
    await host.load()
    async with (
        Taker(host, ["disk"]).takes_part() as disk,
        Taker(host, ["vm"]).takes_part() as vm,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(host.update)
        await vm.asked()
        assert not disk.was_told("prepare")
        await vm.ready()
        await disk.ready()
    await host.arrive()


async def test_who_changes_its_mind_while_a_later_stage_is_waited_for_is_heard_at_once(host):
    await preserve(host, "vm", b"one", stage="1")
    await preserve(host, "disk", b"two", stage="2")
    await host.load()
    async with (
        Taker(host, ["disk"]).takes_part() as disk,
        Taker(host, ["vm"]).takes_part() as vm,
        trio.open_nursery() as nursery,
    ):

        async def change():
            await vm.ready()
            await disk.asked()
            await vm.veto("not after all")

        nursery.start_soon(change)
        error = await refused(host, errors.UpdateAborted, deadline=3600)
        assert error.reason.endswith("refused, not after all")


async def test_who_goes_away_while_a_later_stage_is_waited_for_is_named_at_once(host):
    await preserve(host, "vm", b"one", stage="1")
    await preserve(host, "disk", b"two", stage="2")
    await host.load()
    said = []
    async with Taker(host, ["disk"]).takes_part() as disk, trio.open_nursery() as nursery:

        async def fail():
            said.append((await refused(host, errors.UpdateAborted, deadline=3600)).reason)

        async with Taker(host, ["vm"]).takes_part() as vm:
            nursery.start_soon(fail)
            await vm.ready()
            await disk.asked()
    assert said[0].endswith(": went away")


async def test_who_begins_to_take_part_while_others_get_ready_is_asked_too(host):
    await preserve(host, "ram", b"one")
    await host.load()
    async with Taker(host).takes_part() as one, trio.open_nursery() as nursery:
        nursery.start_soon(host.update)
        await one.asked()
        async with Taker(host).takes_part() as late:
            await late.asked()
            await one.ready()
            assert not host.is_off
            await late.ready()
            await eventually(lambda: host.is_off)
    await host.arrive()
    assert await contents(host, "ram") == {0: b"one"}


async def test_a_veto_aborts_and_everybody_asked_hears_why(host):
    await preserve(host, "ram", b"one")
    await host.load()
    async with Taker(host).takes_part() as one, Taker(host).takes_part() as two, trio.open_nursery() as nursery:
        nursery.start_soon(one.veto, "a migration is going on")
        error = await refused(host, errors.UpdateAborted, unready="proceed")
        assert error.reason.endswith("refused, a migration is going on")
        await eventually(lambda: two.was_told("aborted"))
        assert two.told[-1].reason == error.reason
    await all_is_as_before(host, "ram", b"one")


@pytest.mark.warns("live update 1 goes on in spite of a failed check: abi")
async def test_force_is_about_checks_and_not_about_those_who_take_part(host):
    await preserve(host, "ram", b"one")
    await host.load(kho=["kho-v9"])
    async with Taker(host).takes_part() as one, trio.open_nursery() as nursery:
        nursery.start_soon(one.veto, "a migration is going on")
        error = await refused(host, errors.UpdateAborted, force=True)
        assert error.reason.endswith("refused, a migration is going on")
    await all_is_as_before(host, "ram", b"one")


async def test_who_does_not_answer_in_time_is_named(host):
    await preserve(host, "ram", b"one")
    await host.load()
    async with Taker(host).takes_part() as one:
        error = await refused(host, errors.UpdateAborted, deadline=1)
        assert error.reason.startswith("not ready in time: ")
        assert error.reason.endswith(f"(process {os.getpid()}) for {RAM}: no answer")
        await eventually(lambda: one.was_told("aborted"))
    await all_is_as_before(host, "ram", b"one")


async def test_an_operator_may_go_on_without_who_does_not_answer(host):
    await preserve(host, "ram", b"one")
    await host.load()
    async with Taker(host).takes_part():
        await host.update(deadline=1, unready="proceed")
    await host.arrive()
    assert await contents(host, "ram") == {0: b"one"}


async def test_who_goes_away_while_it_is_waited_for_is_named_at_once(host):
    await preserve(host, "ram", b"one")
    await host.load()
    said = []
    async with Taker(host).takes_part() as stays, trio.open_nursery() as nursery:

        async def fail():
            said.append((await refused(host, errors.UpdateAborted, deadline=3600)).reason)

        async with Taker(host).takes_part() as goes:
            nursery.start_soon(fail)
            await goes.asked()
            await stays.ready()
    assert said[0].endswith(": went away")
    await all_is_as_before(host, "ram", b"one")


async def test_who_was_ready_and_goes_away_before_the_machine_does_is_named(host):
    await preserve(host, "ram", b"one")
    await host.load()
    host.control.delay(Call.KEXEC_LOAD, 3)
    said = []

    async def fail():
        said.append((await refused(host, errors.UpdateAborted)).reason)

    async with trio.open_nursery() as nursery, Taker(host).takes_part() as one:
        nursery.start_soon(fail)
        await one.ready()
        while (await seen(host)).phase == "preparing":
            await trio.lowlevel.checkpoint()
    assert said[0].endswith(" for ram: went away")
    await all_is_as_before(host, "ram", b"one")


async def test_an_abort_brings_everything_back(host):
    await preserve(host, "ram", b"one")
    await host.load()
    async with Taker(host).takes_part() as one, trio.open_nursery() as nursery:

        async def abort():
            await one.asked()
            async with host.client() as luod:
                await luod.abort_update("not today")

        nursery.start_soon(abort)
        assert (await refused(host, errors.UpdateAborted)).reason == "not today"
        await eventually(lambda: one.was_told("aborted"))
    await all_is_as_before(host, "ram", b"one")
    async with host.client() as luod:
        with pytest.raises(errors.NoUpdate):
            await luod.abort_update()


async def test_when_whoever_began_it_goes_away_it_is_off(host):
    await preserve(host, "ram", b"one")
    await host.load()
    async with Taker(host).takes_part() as one:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.begin, [])
            await one.asked()
            nursery.cancel_scope.cancel()
        await eventually(lambda: one.was_told("aborted"))
        assert one.told[-1].reason == "whoever began it went away"
    await all_is_as_before(host, "ram", b"one")


async def test_a_reboot_that_comes_back_leaves_all_as_it_was_and_the_next_one_goes(host):
    await preserve(host, "ram", b"one")
    await host.load()
    host.control.fault(Call.KEXEC, errno.EBUSY)
    async with Taker(host).takes_part() as one, trio.open_nursery() as nursery:
        nursery.start_soon(one.ready)
        error = await refused(host, errors.UpdateAborted)
        assert "EBUSY" in error.reason
        await eventually(lambda: one.was_told("aborted"))
    await all_is_as_before(host, "ram", b"one")
    await host.update()
    await host.arrive()
    assert await contents(host, "ram") == {0: b"one"}


async def test_the_next_kernel_is_loaded_again_right_before(host):
    await preserve(host, "ram", b"one")
    await host.load()
    host.control.fault(Call.KEXEC_LOAD, errno.ENOMEM)
    error = await refused(host, errors.UpdateAborted)
    assert "kexec_file_load" in error.reason
    await all_is_as_before(host, "ram", b"one")


async def test_there_is_one_at_a_time_and_nobody_loads_another_kernel_meanwhile(host):
    await host.load()
    async with Taker(host).takes_part() as one, trio.open_nursery() as nursery:
        nursery.start_soon(host.update)
        await one.asked()
        await refused(host, errors.UpdateInProgress)
        with pytest.raises(errors.UpdateInProgress):
            await host.load()
        async with host.client() as luod:
            with pytest.raises(errors.UpdateInProgress):
                await luod.unload_kernel()
        await one.ready()
    await host.arrive()


@pytest.fixture
def hanging(monkeypatch):
    """A file system that hangs, for whoever loads a kernel: `let_go` ends that."""
    hangs, let_go = threading.Event(), threading.Event()
    read = sealed._read

    def wait(*where):
        hangs.set()
        let_go.wait()
        return read(*where)

    def begin():
        monkeypatch.setattr(sealed, "_read", wait)
        return hangs, let_go

    yield begin
    let_go.set()


async def test_a_kernel_that_is_read_for_ever_holds_up_no_live_update(host, hanging):
    await preserve(host, "ram", b"one")
    await host.load()
    hangs, let_go = hanging()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.load)
        await eventually(hangs.is_set)
        host.control.fault(Call.KEXEC, errno.EBUSY)
        assert "EBUSY" in (await refused(host, errors.UpdateAborted)).reason
        let_go.set()
    await all_is_as_before(host, "ram", b"one")


async def test_a_kernel_that_is_read_only_when_a_live_update_goes_on_is_not_loaded_any_more(host, hanging):
    await preserve(host, "ram", b"one")
    await host.load()
    hangs, let_go = hanging()

    async def load():
        with pytest.raises(errors.UpdateInProgress):
            await host.load(release="7.4.0-late")
        assert (await status(host)).image["release"] == "7.3.4-simulated"
        await one.veto("seen")

    async with Taker(host).takes_part() as one, trio.open_nursery() as nursery:
        nursery.start_soon(load)
        await eventually(hangs.is_set)
        nursery.start_soon(refused, host, errors.UpdateAborted)
        await one.asked()
        let_go.set()
    await all_is_as_before(host, "ram", b"one")


@pytest.mark.parametrize(
    ("image", "line", "check"),
    [
        ({"luo": ["luo-v9"]}, LINE, "abi"),
        ({"kho": ["kho-v9"]}, LINE, "abi"),
        ({"handlers": []}, LINE, "handlers"),
        ({}, "quiet", "command-line"),
        ({}, f"{LINE} kho=off", "command-line"),
    ],
)
async def test_what_would_lose_everything_is_refused(host, image, line, check):
    await preserve(host, "ram", b"one")
    await host.load(line, **image)
    error = await refused(host, errors.PreflightFailed)
    assert check in error.checks
    async with host.client() as luod:
        [failed] = [each for each in await luod.preflight() if each.name == check]
    assert failed.outcome == "fail"
    assert any("ram" in loss for loss in failed.loses)
    assert failed.remedy
    await all_is_as_before(host, "ram", b"one")


async def test_without_a_kernel_there_is_no_update(host):
    assert "image" in (await refused(host, errors.PreflightFailed)).checks


@pytest.mark.warns("live update 1 goes on in spite of a failed check: abi")
async def test_what_is_forced_is_lost_as_announced_and_the_next_luod_begins_afresh(host):
    await preserve(host, "ram", b"one")
    await host.load(kho=["kho-v9"])
    await host.update(force=True)
    await host.arrive()
    async with host.client() as luod:
        assert (await luod.status()).phase == "idle"
        assert await luod.list() == []


async def test_what_came_over_and_was_not_finished_goes_over_again(host):
    await preserve(host, "ram", b"one")
    for generation in (1, 2, 3):
        await host.load()
        await host.update()
        await host.arrive()
        async with host.client() as luod:
            assert (await luod.find("ram")).generation == generation
    assert await contents(host, "ram") == {0: b"one"}


async def test_a_luod_that_is_stopped_aborts(host):
    await preserve(host, "ram", b"one")
    await host.load()
    async with Taker(host).takes_part() as one, trio.open_nursery() as nursery:
        nursery.start_soon(partial(refused, host, errors.UpdateAborted))
        await one.asked()
        await host.shut_down()
        await eventually(lambda: one.was_told("aborted"))
        assert "luod stops" in [each.reason for each in one.told if each.event == "aborted"]
        await host.boot()
    await all_is_as_before(host, "ram", b"one")


async def test_who_waits_for_owners_does_not_hold_up_the_end_of_luod_and_goes_on_with_the_next(host):
    await preserve(host, "ram", b"one")
    await host.kexec()
    said = []

    async def wait():
        async with host.client() as luod, luod.follow() as steps:
            async for progress in steps:
                said.append(progress)  # noqa: PERF401 - as they come

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await eventually(lambda: said)
        with trio.fail_after(GRACE / 2):
            await host.reboot()
        async with host.client() as luod:
            await luod.finish("ram", rearm=True)
    assert {progress.phase for progress in said[:-1]} == {"restoring"}
    assert said[-1].phase == "idle"


async def test_a_luod_that_is_stopped_while_it_goes_at_once_says_what_comes_of_it(host):
    await preserve(host, "ram", b"one")
    await host.load()
    host.control.delay(Call.KEXEC, 0.5)
    host.control.fault(Call.KEXEC, errno.EBUSY)
    said = []

    async def stop():
        await eventually(lambda: said and said[-1].phase == "executing")
        await host.shut_down()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        with pytest.raises(errors.UpdateAborted, match="EBUSY"):
            await host.begin(said)
    await host.boot()
    await all_is_as_before(host, "ram", b"one")


async def test_a_luod_that_was_restarted_still_has_the_next_kernel(host):
    await preserve(host, "ram", b"one")
    await host.load()
    await host.reboot()
    assert (await status(host)).image["release"] == "7.3.4-simulated"
    await host.update()
    await host.arrive()
    assert (await status(host)).image is None
    assert await contents(host, "ram") == {0: b"one"}


@pytest.mark.warns("there can be no live update by this luod")
async def test_a_luod_that_can_not_leave_serves_all_the_same(host, monkeypatch):
    await preserve(host, "ram", b"one")
    monkeypatch.setattr("luod.means.thaw", lambda directory: directory["and this is a bug"])
    await host.reboot()
    assert (await status(host)).problems == [NO_MEANS]
    async with host.client() as luod:
        assert (await luod.manifest())["sessions"][0]["name"] == "ram"
        with pytest.raises(errors.UpdateAborted):
            await luod.preflight()
    assert await contents(host, "ram") == {0: b"one"}


async def test_only_operators_have_a_say(host):
    async with host.wire_as(1000) as wire:
        for method, parameters in {
            "Preflight": {},
            "UnloadKernel": {},
            "Abort": {},
            "Timeline": {},
            "StartAfresh": {},
        }.items():
            reply = await wire.call(f"io.luod.Update.{method}", parameters)
            assert reply.error == "org.varlink.service.PermissionDenied", method
        for method in ("Start", "Follow"):
            reply = await wire.call(f"io.luod.Update.{method}", {}, more=True)
            assert reply.error == "org.varlink.service.PermissionDenied", method


async def test_status_says_who_takes_part_to_operators_only(host):
    await preserve(host, "disk", b"one", stage="2")
    async with Taker(host, ["disk"]).takes_part():
        [one] = (await status(host)).participants
        async with host.wire_as(1000) as stranger:
            assert (await stranger.call("io.luod.Update.Status", {})).parameters["participants"] == []
    assert (one["stage"], one["uid"]) == (2, os.geteuid())
    assert json.dumps(one)


# The network


@pytest.fixture
def handing(host):
    """Have the host hand these links over: every host has `lo`."""

    async def begin(*links):
        host.settings = {"network": Network(handover=links)}
        await host.reboot()
        return host

    return begin


async def held_of_the_network(host):
    def look():
        with connect(host.socket) as luod:
            return held(luod)

    return await trio.to_thread.run_sync(look)


async def test_the_network_goes_over_as_it_is_then(host, handing):
    await handing("lo", "no*link")
    await preserve(host, "ram", b"one")
    await host.load()
    before = time.time()
    said = await host.update()
    assert "the network is written down" in [progress.detail for progress in said]
    await host.arrive()
    (network,) = await held_of_the_network(host)
    assert network.snapshot.handover == ("lo", "no*link")
    assert network.snapshot.taken >= before
    assert network.session.direction == "incoming"
    assert await contents(host, "ram") == {0: b"one"}
    async with host.client() as luod:
        events = [event["what"] for event in (await luod.timeline()).events]
    assert events.index("prepare") < events.index("network") < events.index("carried")


async def test_where_nothing_is_to_go_over_nobody_looks_at_the_network(host):
    await host.load()
    said = await host.update()
    assert "the network is written down" not in [progress.detail for progress in said]
    await host.arrive()
    assert await held_of_the_network(host) == []


async def test_a_network_that_cannot_be_written_down_ends_the_update_and_all_is_as_before(host, handing):
    await handing("lo")
    await preserve(host, "ram", b"one")
    await host.load()
    host.control.fault(Call.PRESERVE_FD, errno.ENOMEM)
    error = await refused(host, errors.UpdateAborted)
    assert error.reason.startswith("the network can't be written down: ")
    assert "ENOMEM" in error.reason
    assert await held_of_the_network(host) == []
    await all_is_as_before(host, "ram", b"one")


@pytest.mark.warns("goes on although the network isn't written down")
async def test_by_force_it_goes_on_without_the_network_or_with_an_older_one(host, handing):
    await handing("lo")
    await host.load()
    host.control.fault(Call.PRESERVE_FD, errno.ENOMEM)
    await host.update(force=True)
    await host.arrive()
    assert await held_of_the_network(host) == []


@pytest.mark.warns("goes on although the network isn't written down")
async def test_who_takes_part_has_its_time_however_long_the_network_takes(host, handing, monkeypatch):
    monkeypatch.setattr(handover, "PATIENCE", 4.5)
    await handing("lo")
    await preserve(host, "ram", b"one")
    await host.load()
    with alone(host.directory):
        async with Taker(host).takes_part() as one, trio.open_nursery() as nursery:
            nursery.start_soon(one.ready)
            await host.update(force=True, deadline=4)
    await host.arrive()
    assert await contents(host, "ram") == {0: b"one"}


async def test_whoever_cannot_even_be_asked_to_write_it_down_is_a_reason_too(host, handing, monkeypatch):
    await handing("lo")
    await preserve(host, "ram", b"one")
    await host.load()

    def run(*words, patience):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("luod.handover.child.run", run)
    error = await refused(host, errors.UpdateAborted)
    assert error.reason == "the network can't be written down: [Errno 11] Resource temporarily unavailable"
    await all_is_as_before(host, "ram", b"one")


async def test_whoever_aborts_does_not_wait_until_the_network_is_written_down(host, handing):
    await handing("lo")
    await preserve(host, "ram", b"one")
    await host.load()
    said, before = [], children()
    with alone(host.directory), pytest.RaisesGroup(pytest.RaisesExc(errors.UpdateAborted, match="not today")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.begin, said)
            await eventually(lambda: "the network is written down" in [progress.detail for progress in said])
            async with host.client() as luod:
                await luod.abort_update("not today")
    await eventually(lambda: children() == before)
    await all_is_as_before(host, "ram", b"one")


async def test_a_broken_report_of_the_network_is_a_problem_in_the_status(host, tmp_path):
    (tmp_path / "network.json").write_text("{")
    said = await status(host)
    assert said.network is None
    assert "what came of the network isn't known: network.json is no JSON" in said.problems


async def test_who_stops_while_the_machine_goes_leaves_what_was_written_down_before(host, handing, monkeypatch):
    await handing("lo")
    await host.load()
    said = []

    def depart(*how):
        luoctl = [sys.executable, "-m", "luod.ctl", "--socket", host.socket]
        command = [*luoctl, "network", "snapshot", "lo", "--unless-taken"]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        raise CameBack("it was only tried")

    monkeypatch.setattr("luod.departure.depart", depart)
    error = await refused(host, errors.UpdateAborted)
    assert error.reason == "it was only tried"
    assert said == ["a live update is on its way, and has had it taken\n"]
    assert [each.name for each in await held_of_the_network(host)] == ["luod-network-a"]
