"""Whatever call fails in luod's start, or where a connection begins: it is named, and nothing is lost."""

import errno
import logging
import os
from contextlib import suppress

import pytest
import trio

from faults import Faults
from luod.daemon import StartError
from luod.varlink.messages import Call
from manager import service_manager
from memory import content, memfd


@pytest.fixture
async def host(host, caplog):
    """A host whose service manager keeps what luod gives it."""
    caplog.set_level(logging.CRITICAL, logger="luod")  # what it says of failures is not looked at here
    with service_manager() as manager:
        await host.shut_down()
        host.manager = manager
        await host.boot()
        yield host
        await host.shut_down()


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


async def begin_anew(host):
    """Nothing is left of what was there before; then there is a session, and in the fd store what nobody knows."""
    await host.kexec(carry=False)
    async with host.client() as luod:
        await luod.create("ram")
        with memfd(b"kept") as fd:
            await luod.preserve("ram", fd, token=0)
    host.manager.entries.append(("~zzz", os.open("/dev/null", os.O_RDONLY)))


async def is_whole(host):
    async with host.client() as luod:
        with (await luod.retrieve("ram"))[0] as back:
            assert content(back) == b"kept"
        return (await luod.status()).fd_store["unclear"]


async def stop(host):
    await host.shut_down()
    return ["/dev/null, kept as ~zzz"]


async def live_update(host):
    """After which nobody kept anything."""
    await trio.to_thread.run_sync(host.control.kexec)
    await host.shut_down()
    host.manager.forget(*host.manager.names)
    return []


@pytest.mark.parametrize("end", [stop, live_update])
async def test_a_call_that_fails_in_a_start_is_named_and_loses_nothing(host, faults, end):
    for number, nth in faults.each_call([errno.EIO]):
        await begin_anew(host)
        unclear = await end(host)
        with faults.strike(nth, number), suppress(StartError):
            await host.boot()
        await host.shut_down()
        await host.boot()
        assert await is_whole(host) == unclear


async def test_a_call_that_fails_where_a_connection_begins_ends_nothing_else(host, faults):
    await begin_anew(host)
    for number, nth in faults.each_call([errno.EACCES]):
        with faults.strike(nth, number):
            stream = await trio.open_unix_socket(host.socket)
            async with stream:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(Call("org.varlink.service.GetInfo", {}).encode())
                    await stream.receive_some()
        await is_whole(host)
