"""Those who do nothing wrong while others do: what they have is unharmed, and they don't wait."""

import socket
import struct
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress

import trio

from conftest import open_descriptors
from eventually import eventually
from luod.fds import OwnedFd
from memory import content, memfd

BLOCKS = 4
"""Seconds for which whatever is slow on purpose is slow."""


@asynccontextmanager
async def nobody_waits(host, clock=time.monotonic, at_most=BLOCKS / 2):
    """A bystander's calls are answered all the time meanwhile, each in at most so many seconds.

    By `clock`: where luod has much to do rather than something to wait for, the seconds are those that this process
    has worked (`time.process_time`), for what else a machine does is not luod's.
    """
    over = trio.Event()
    waits = []

    async def call():
        async with host.client() as luod:
            while not (waits and over.is_set()):
                asked = clock()
                assert await luod.find("nothing") is None
                waits.append(clock() - asked)
                await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        yield
        over.set()
    assert max(waits) < at_most


def lingering_socket(stack, seconds):
    """A TCP socket whose last close() blocks for `seconds`: what it has sent nobody reads."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    sender = socket.create_connection(listener.getsockname())
    stack.enter_context(listener.accept()[0])
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    sender.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sender.send(bytes(1 << 20))
    sender.setblocking(True)
    return OwnedFd(sender.detach())


def kinds_of_descriptors():
    """How many sockets, memfds and so on are open in luod and its clients: a session may be renewed meanwhile.

    Not the files: luod writes its readable copy whenever it has the time.
    """
    kinds = (target.partition(":")[0] for target in open_descriptors().values())
    return Counter(kind for kind in kinds if kind == "/memfd" or not kind.startswith("/"))


@asynccontextmanager
async def unharmed(host):
    """A bystander has a session with a file before and after, and luod as many descriptors."""
    with memfd(b"bystander") as fd:
        async with host.client() as luod:
            await luod.create("bystander")
            await luod.preserve("bystander", fd, token=1)
            (await luod.create_delegated("vm"))[1].give_up()
            await luod.create("ram")
            before = kinds_of_descriptors()
            yield
            await eventually(lambda: kinds_of_descriptors() == before)  # luod closes what came after it has answered
            with (await luod.retrieve("bystander"))[1] as back:
                assert content(back) == b"bystander"
            assert [file.token for file in (await luod.find("ram")).files] == []
