"""Whatever many strangers send at once, in whatever pieces, with whatever descriptors: nobody else notices.

The load is random, and bounded. A failure shows its seed; $FUZZ_SEED repeats it.
"""

import os
import random
import select
import socket
import time
from contextlib import ExitStack, suppress

import trio

from bystander import kinds_of_descriptors, nobody_waits, unharmed
from luod.errors import SessionNotFound
from luod.fds import OwnedFd
from luod.sockets import ancillary
from luod.varlink.messages import Call
from memory import memfd

from .conftest import acting_as

ROUNDS = 3000
CONNECTIONS = 12
STRANGER = 4242 if os.geteuid() == 0 else os.geteuid()
ODD = [None, True, 0, -1, 2**63, 1.5, "", "s", "\0", "\ud800", "é" * 40, [], [[]], {}, {"fileDescriptorIndex": 0}]


def some_call(chance):
    """A method and its parameters, as they should be."""
    custody, token = "io.luod.Custody", chance.randrange(20)
    return chance.choice(
        [
            (f"{custody}.Create", {"name": "s", "mode": chance.choice(["custodial", "delegated"]), "labels": {}}),
            (f"{custody}.Preserve", {"session": "s", "files": [{"fileDescriptorIndex": 0, "token": token}]}),
            (f"{custody}.Preserve", {"session": "s", "files": [{"fileDescriptorIndex": 0, "name": "n"}]}),
            (f"{custody}.Unpreserve", {"session": "s", "tokens": [token]}),
            (f"{custody}.Retrieve", {"session": "s"}),
            (f"{custody}.Retrieve", {"session": "s", "tokens": [token]}),
            (f"{custody}.Finish", {"session": "s", "rearm": True}),
            (f"{custody}.Discard", {"session": "s"}),
            (f"{custody}.Claim", {"session": "s"}),
            (f"{custody}.List", {"session": "s"}),
            (f"{custody}.List", {"all": True}),
            (f"{custody}.Watch", {"sessions": ["s"], "participate": True}),
            (f"{custody}.Veto", {"update": 1, "watcher": "w", "reason": "r"}),
            ("io.luod.Update.Status", {}),
            ("io.luod.Update.Start", {"force": True}),
            ("org.varlink.service.GetInterfaceDescription", {"interface": custody}),
            ("nothing", {}),
        ]
    )


class Strangers:
    """What one can do to luod's socket, chosen by chance."""

    def __init__(self, host, chance, stack):
        self._host = host
        self._chance = chance
        self._stack = stack
        self._connections = []

    def act(self):
        if len(self._connections) < CONNECTIONS:
            sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
            self._connect(sock)
            sock.setblocking(False)
            self._connections.append(sock)
        sock = self._chance.choice(self._connections)
        deeds = [self._ask, self._say, self._read, self._shut, self._leave]
        try:
            self._chance.choices(deeds, [60, 25, 15, 1, 2])[0](sock)
        except BlockingIOError:
            pass
        except OSError:  # luod has ended the connection
            self._leave(sock)

    def _connect(self, sock):
        if os.geteuid() == STRANGER:
            sock.connect(self._host.socket)
        else:
            with acting_as(STRANGER, self._host.directory):
                sock.connect("io.luod")

    def _leave(self, sock):
        sock.close()
        self._connections.remove(sock)

    def _read(self, sock):
        for fd in socket.recv_fds(sock, 1 << 16, 253)[1]:
            os.close(fd)

    def _shut(self, sock):
        sock.shutdown(self._chance.choice([socket.SHUT_RD, socket.SHUT_WR]))

    def _ask(self, sock):
        """A call as it should be, but for what its descriptor is."""
        method, parameters = some_call(self._chance)
        kind = self._chance.choice([0, 0, 0, None])
        with ExitStack() as passing:
            fds = [self._descriptor(sock, passing, kind)] if "files" in parameters else []
            sock.sendmsg([Call(method, parameters, more=self._chance.random() < 0.1).encode()], ancillary(fds))

    def _say(self, sock):
        """Anything, in any pieces, with any descriptors."""
        data = b"".join(self._message() for _ in range(self._chance.choice([1, 1, 1, 2, 20])))
        count = self._chance.choice([0, 0, 1, 1, 2, 5, 253])
        with ExitStack() as passing:
            fds = [self._descriptor(sock, passing) for _ in range(min(count, 5))] * (1 + count // 5)
            cuts = sorted(self._chance.randrange(len(data)) for _ in range(self._chance.choice([0, 0, 0, 1, 3])))
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                sock.sendmsg([data[start:end]], ancillary(fds[:253]))
                if self._chance.random() < 0.7:
                    fds = []

    def _message(self):
        method, parameters = some_call(self._chance)
        flags = self._chance.choice([{}, {}, {"oneway": True}, {"more": True}, {"upgrade": True}])
        data = bytearray(Call(method, self._changed(parameters), **flags).encode())
        match self._chance.randrange(10):
            case 0:
                data[self._chance.randrange(len(data))] = self._chance.randrange(256)
            case 1:
                del data[self._chance.randrange(len(data)) :]
            case 2:
                data = bytearray(self._chance.randbytes(self._chance.randrange(1, 300)))
        return bytes(data) or b"\0"

    def _changed(self, value):
        if self._chance.random() < 0.08:
            return self._chance.choice(ODD)
        if isinstance(value, dict):
            return {key: self._changed(inner) for key, inner in value.items() if self._chance.random() > 0.1}
        if isinstance(value, list):
            return [self._changed(inner) for inner in value] * self._chance.choice([1, 1, 1, 0, 2, 300])
        return value

    def _descriptor(self, sock, passing, kind=None):
        match self._chance.randrange(9) if kind is None else kind:
            case 0:
                fd = passing.enter_context(memfd(b"stranger"))
                os.fchown(fd.fileno(), STRANGER, -1)
                return fd.fileno()
            case 1:
                read, write = (passing.enter_context(OwnedFd(fd)) for fd in os.pipe2(os.O_CLOEXEC))
                return self._chance.choice([read, write]).fileno()
            case 2:
                return sock.fileno()
            case 3:  # a cycle: a socket that waits in its own queue
                one, other = (passing.enter_context(end) for end in socket.socketpair())
                one.sendmsg([b"x"], ancillary([other.fileno(), one.fileno(), sock.fileno()]))
                return other.fileno()
            case 4:
                return passing.enter_context(select.epoll()).fileno()
            case 5:
                return passing.enter_context(OwnedFd(os.open(self._host.socket, os.O_PATH | os.O_CLOEXEC))).fileno()
            case 6:
                return passing.enter_context(OwnedFd(os.open("/", os.O_RDONLY | os.O_CLOEXEC))).fileno()
            case 7:
                return passing.enter_context(OwnedFd(os.eventfd(0))).fileno()
            case _:
                return self._chance.choice(self._connections).fileno()


async def test_whatever_strangers_send_nobody_else_notices(host):
    seed = int(os.environ.get("FUZZ_SEED", random.randrange(1 << 32)))
    print(f"FUZZ_SEED={seed}")
    await host.reboot(slow_reader_seconds=1, half_message_seconds=1)
    async with unharmed(host), host.client() as luod:
        assert len(await luod.list()) == 3  # luod has accepted the connection
        known = {session.name for session in await luod.list(owner=STRANGER)}
        before = kinds_of_descriptors()
        with ExitStack() as stack:
            strangers = Strangers(host, random.Random(seed), stack)
            async with nobody_waits(host, time.process_time):
                for _ in range(ROUNDS):
                    strangers.act()
                    await trio.lowlevel.checkpoint()
        with trio.move_on_after(60):
            while kinds_of_descriptors() != before:  # what they sent before they left is still being done
                for session in await luod.list(owner=STRANGER):  # by chance one has another name
                    with suppress(SessionNotFound):
                        if session.name not in known:
                            await luod.discard(session.name, owner=STRANGER)
        assert kinds_of_descriptors() == before
