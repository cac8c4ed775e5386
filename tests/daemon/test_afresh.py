"""A boot that should have had sessions and has none: luod says so, and begins afresh only where it is told to."""

import pytest

from luod import errors
from luod.sim.client import SimMachine
from luod.sim.image import bzimage
from memory import content, memfd, memfds

MISSED = "a live update from boot {}, generation 0 started this kernel, and nothing came over"


@pytest.fixture(autouse=True)
def lives_on(monkeypatch):
    monkeypatch.setattr("luod.sim.client.power_off", lambda: None)


async def goes(host, line, **image):
    """The machine goes into a kernel that says where it comes from; luod starts there. Which boot it came from."""
    async with host.client() as luod:
        boot = (await luod.status()).kernel["bootId"]
        await luod.create("ram")
        with memfds(b"one") as (file,):
            await luod.preserve("ram", file, 0)
    machine = SimMachine(host.control.path)
    with memfd(bzimage(**image)) as kernel:
        machine.load(kernel.fileno(), f"{line} luod.from={boot}/0")
    machine.kexec()
    await host.shut_down()
    await host.boot()
    return boot


async def phase(host):
    async with host.client() as luod:
        return (await luod.status()).phase


@pytest.mark.warns("nothing came over")
async def test_what_should_have_come_over_is_missed_until_somebody_accepts_the_loss(host):
    boot = await goes(host, "liveupdate=on", kho=["kho-v9"])
    assert await phase(host) == "unavailable"
    await host.reboot()
    async with host.client() as luod:
        with pytest.raises(errors.RestoreUnavailable) as caught:
            await luod.create("ram")
        assert caught.value.reason == MISSED.format(boot)
        await luod.start_afresh()
    await host._ended.wait()
    await host.boot()
    assert await phase(host) == "idle"
    await host.reboot()
    assert await phase(host) == "idle"


async def test_a_luod_that_nobody_keeps_anything_for_misses_nothing_once_it_had_it(host):
    await goes(host, "liveupdate=on")
    async with host.client() as luod:
        for fd in (await luod.retrieve("ram")).values():
            with fd:
                assert content(fd) == b"one"
    await host.reboot()
    assert await phase(host) == "idle"
