"""Every resource has an end, and whoever reaches it is told; whoever is slow or gone is nobody else's trouble."""

from contextlib import AsyncExitStack, ExitStack, suppress
from errno import ENOMEM

import pytest
import trio

from bystander import BLOCKS, lingering_socket, nobody_waits
from luod import daemon, served
from luod.errors import KernelFailed, QuotaExceeded
from luod.kernel.api import Call as KernelCall
from luod.varlink.messages import Call
from memory import content, memfd

CUSTODY = "io.luod.Custody"


async def test_a_lingering_socket_holds_up_nobody_but_its_sender(host):
    with ExitStack() as stack:
        async with host.wire_as(4242) as wire:
            await wire.call(f"{CUSTODY}.Create", {"name": "ram"})
            with lingering_socket(stack, BLOCKS) as lingering:
                files = {"session": "ram", "files": [{"fileDescriptorIndex": 0}]}
                await wire.send(Call(f"{CUSTODY}.Preserve", files).encode(), [lingering.fileno()])
            # From here on luod's is the only copy.
            assert (await wire.reply()).error == f"{CUSTODY}.NotPreservable"
            async with nobody_waits(host):
                before = trio.current_time()
                await wire.call(f"{CUSTODY}.List", {"session": "ram"})  # answered once luod has closed the socket
                assert trio.current_time() - before > BLOCKS / 2


async def test_a_slow_preserve_holds_up_no_other_session(host):
    async with host.client() as luod:
        await luod.create("slow")
        await luod.create("quick")
        host.control.delay(KernelCall.PRESERVE_FD, BLOCKS)
        with memfd() as fd:
            async with nobody_waits(host):
                await luod.preserve("slow", fd)


async def test_an_owner_has_so_many_connections_and_the_next_is_told(host):
    await host.reboot(connections_per_owner=2)
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(host.wire()) for _ in range(2)]
        for wire in (first, second):
            assert (await wire.call(f"{CUSTODY}.List", {}, more=True)).error is None
        async with host.wire() as third:
            reply = await third.reply()
            assert reply.error == f"{CUSTODY}.QuotaExceeded"
            assert reply.parameters == {"quota": "connections", "limit": 2}
            assert await third.is_ended()
        async with host.wire_as(4242) as other:
            assert (await other.call(f"{CUSTODY}.List", {}, more=True)).error is None
        first.close()
        with trio.fail_after(20):
            while True:  # luod hears of the end of a connection a little later
                async with host.wire() as third:
                    if (await third.call(f"{CUSTODY}.List", {}, more=True)).error is None:
                        break


async def test_whoever_comes_when_luod_is_full_waits_and_is_served(host):
    await host.reboot(connections=2)
    async with host.wire() as first, host.wire() as second, host.wire() as third:
        for wire in (first, second):
            assert (await wire.call(f"{CUSTODY}.List", {}, more=True)).error is None
        await third.send(Call(f"{CUSTODY}.List", {}, more=True).encode())
        with trio.move_on_after(0.1) as waited:
            await third.reply()
        assert waited.cancelled_caught
        second.close()
        assert (await third.reply()).error is None


async def test_half_a_message_may_not_take_for_ever(host):
    await host.reboot(half_message_seconds=0.2)
    data = Call(f"{CUSTODY}.List", {}, more=True).encode()
    async with host.wire() as wire:
        assert (await wire.call(f"{CUSTODY}.List", {}, more=True)).error is None
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:

                async def trickle():
                    for byte in data[:-1]:  # each byte comes in time, the message doesn't
                        await wire.send(bytes([byte]))
                        await trio.sleep(0.05)

                nursery.start_soon(trickle)
                reply = await wire.reply()
                nursery.cancel_scope.cancel()
        assert reply.parameters == {"parameter": "message", "reason": "is not complete after 0.2 seconds"}


async def test_a_connection_may_be_idle_for_longer_than_half_a_message(host):
    await host.reboot(half_message_seconds=0.05)
    async with host.wire() as wire:
        await trio.sleep(0.2)
        assert (await wire.call(f"{CUSTODY}.List", {}, more=True)).error is None


async def test_a_client_that_does_not_read_is_let_go(host):
    await host.reboot(slow_reader_seconds=0.2)
    async with host.wire() as wire:
        calls = Call("org.varlink.service.GetInterfaceDescription", {"interface": CUSTODY}).encode() * 200
        with trio.fail_after(10), suppress(BrokenPipeError, ConnectionResetError):
            while True:
                await wire.send(calls)
    async with host.client() as luod:
        assert await luod.list() == []


async def test_descriptors_in_flight_have_a_limit(host):
    await host.reboot(descriptors_in_flight_per_owner=100)
    with memfd() as fd:
        async with host.wire() as wire:
            data = Call(f"{CUSTODY}.Preserve", {"session": "ram", "files": []}).encode()
            await wire.send(data[:10], [fd.fileno()] * 101)
            reply = await wire.reply()
            assert reply.parameters == {"quota": "descriptors in flight", "limit": 100}
            assert await wire.is_ended()
        async with host.wire() as wire:
            await wire.send(data[:10], [fd.fileno()] * 100)
    async with host.client() as luod:
        assert await luod.list() == []


async def test_watchers_have_a_limit_and_one_that_goes_makes_room(host):
    await host.reboot(watchers_per_owner=1)
    async with host.client() as luod:
        async with luod.watch() as events:
            assert (await anext(events)).event == "watching"
            with pytest.raises(QuotaExceeded, match="1 watchers"):
                async with luod.watch() as more:
                    await anext(more)
        with trio.fail_after(20):
            while True:  # luod hears of the end of a watcher a little later
                try:
                    async with luod.watch() as events:
                        assert (await anext(events)).event == "watching"
                        break
                except QuotaExceeded:
                    continue


async def test_a_watcher_is_told_what_came_over_and_when_luod_stops(host):
    async with host.client() as luod:
        await luod.create("ram")
    await host.kexec()
    async with host.client() as luod, luod.watch() as events, luod.watch(["other"]) as others:
        assert [(await anext(events)).event for _ in range(2)] == ["watching", "restored"]
        assert (await anext(others)).event == "watching"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.reboot)
            assert (await anext(events)).event == "stopping"
            assert (await anext(others)).event == "stopping"


async def test_a_watchers_connection_takes_no_other_call(host):
    async with host.wire() as wire:
        assert (await wire.call(f"{CUSTODY}.Watch", {}, more=True)).parameters["event"] == "watching"
        await wire.send(Call(f"{CUSTODY}.List", {}, more=True).encode())
        assert await wire.is_ended()


async def test_there_is_no_update_to_be_ready_for(host):
    async with host.wire() as watching, host.wire() as wire:
        secret = (await watching.call(f"{CUSTODY}.Watch", {}, more=True)).parameters["watcher"]
        for member, more in (("Ready", {}), ("Veto", {"reason": "busy"})):
            reply = await wire.call(f"{CUSTODY}.{member}", {"update": 1, "watcher": secret, **more})
            assert reply.error == "io.luod.Update.NoUpdate"


async def test_what_is_under_way_when_luod_stops_is_answered(host):
    async with host.client() as luod:
        await luod.create("ram")
        host.control.delay(KernelCall.PRESERVE_FD, 0.3)
        with memfd() as fd:
            async with trio.open_nursery() as nursery:
                preserved = trio.Event()

                async def preserve():
                    await luod.preserve("ram", fd)
                    preserved.set()

                nursery.start_soon(preserve)
                await trio.sleep(0.1)
                await host.reboot()
            assert preserved.is_set()


async def test_an_idle_client_does_not_hold_up_the_stop(host):
    async with host.wire() as wire:
        await wire.call(f"{CUSTODY}.List", {}, more=True)
        await wire.send(b"half a mess")
        with trio.fail_after(daemon.GRACE):
            await host.reboot()
        assert await wire.is_ended()


async def test_a_failing_kernel_is_named(host):
    async with host.client() as luod:
        host.control.fault(KernelCall.CREATE_SESSION, ENOMEM)
        with pytest.raises(KernelFailed, match="CREATE_SESSION with ENOMEM"):
            await luod.create("ram")
        await luod.create("ram")
        host.control.fault(KernelCall.PRESERVE_FD, ENOMEM)
        with memfd(b"whole") as fd:
            with pytest.raises(KernelFailed, match="PRESERVE_FD with ENOMEM"):
                await luod.preserve("ram", fd)
            await luod.preserve("ram", fd)
        with (await luod.retrieve("ram"))[0] as back:
            assert content(back) == b"whole"


@pytest.mark.warns("io.luod.Update.Status of uid")
async def test_a_fault_of_luods_own_ends_one_connection_and_nothing_else(host, monkeypatch):
    status = served.SERVED["io.luod.Update.Status"]
    broken = served.Served(status.method, lambda operations, request: [][0], for_operators=True)
    monkeypatch.setitem(served.SERVED, "io.luod.Update.Status", broken)
    async with host.client() as luod:
        await luod.create("ram")
        async with host.wire() as wire:
            await wire.send(Call("io.luod.Update.Status", {}).encode())
            assert await wire.is_ended()
        assert await luod.find("ram") is not None
