"""luod's end of a connection, played by a test, and a client in trio that can be called as one that blocks."""

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

import trio
import trio.testing

from luod import errors
from luod.client import connect_trio
from luod.client.exchange import PATIENCE
from luod.fds import FdBundle
from luod.sockets import receive_blocking, send_blocking
from luod.varlink.framing import Framer
from luod.varlink.messages import Call, Reply

RAM = {
    "name": "ram",
    "kernelName": "l1-0",
    "mode": "custodial",
    "direction": "outgoing",
    "uid": 1000,
    "gid": 1000,
    "labels": {},
    "files": [],
    "generation": 0,
    "createdUSec": 1_700_000_000_000_000,
}


class Peer:
    """luod's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fds = FdBundle()
        self._framer = Framer()

    def receives(self) -> Call:
        """Receive a call; its descriptors are in `fds` until the next."""
        self.fds.close()
        while (message := self._framer.next_message()) is None:
            data, fds = receive_blocking(self.sock)
            assert data, "the client went away"
            self._framer.feed(data, fds)
        self.fds = message.fds
        return Call.read(message.body)

    def asked(self, method: str, parameters: dict | None = None, *, more: bool = False) -> None:
        """Receive a call, which is this one."""
        name = method if "." in method else f"io.luod.Custody.{method}"
        assert self.receives() == Call(name, parameters or {}, more=more)

    def answers(self, parameters: dict | None = None, fds: int = 0, *, continues: bool = False) -> None:
        """Send a reply with so many new descriptors."""
        lent = [os.memfd_create(f"file{number}") for number in range(fds)]
        self.lends(parameters or {}, lent, continues=continues)
        for fd in lent:
            os.close(fd)

    def lends(self, parameters: dict, fds: list[int], *, continues: bool = False) -> None:
        """Send a reply with these descriptors."""
        send_blocking(self.sock, Reply(parameters, continues).encode(), fds)

    def refuses(self, error: errors.WireError) -> None:
        send_blocking(self.sock, Reply(error.parameters(), error=error.wire_name()).encode())

    def sees_the_client_go(self) -> None:
        assert receive_blocking(self.sock)[0] == b""


@dataclass
class Stage:
    """Where luod would listen. What `plays` is given serves one connection each, in turn."""

    path: str
    scripts: SimpleQueue[Callable[[Peer], None] | None] = field(default_factory=SimpleQueue)
    failures: list[BaseException] = field(default_factory=list)

    def plays(self, *scripts: Callable[[Peer], None]) -> None:
        for script in scripts:
            self.scripts.put(script)

    def serve(self, listener: socket.socket) -> None:
        connections = []
        while (script := self.scripts.get()) is not None:
            sock, _ = listener.accept()
            connections.append(threading.Thread(target=self.play, args=[script, sock]))
            connections[-1].start()
        for connection in connections:
            connection.join()

    def play(self, script: Callable[[Peer], None], sock: socket.socket) -> None:
        with sock:
            peer = Peer(sock)
            try:
                script(peer)
            except BaseException as failure:
                self.failures.append(failure)
            finally:
                peer.fds.close()


class InTrio:
    """A client in trio, whose loop runs in another thread, to be called as one that blocks."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._ready: SimpleQueue[tuple] = SimpleQueue()

    def __enter__(self) -> "InTrio":
        self._thread = threading.Thread(target=trio.run, args=[self._live])
        self._thread.start()
        self._client, self._token, self._end = self._ready.get()
        return self

    def __exit__(self, *_: object) -> None:
        self._token.run_sync_soon(self._end.set)
        self._thread.join()

    async def _live(self) -> None:
        async with connect_trio(patience=self._patience) as client:
            end = trio.Event()
            self._ready.put((client, trio.lowlevel.current_trio_token(), end))
            await end.wait()

    def __getattr__(self, name: str) -> Callable:
        async def call(args: tuple, keywords: dict) -> object:
            return await getattr(self._client, name)(*args, **keywords)

        return lambda *args, **keywords: trio.from_thread.run(call, args, keywords, trio_token=self._token)


def page(*tokens: int, following: list[int] | None = None) -> dict:
    files = [{"fileDescriptorIndex": index, "token": token} for index, token in enumerate(tokens)]
    return {"files": files} | ({"next": following} if following else {})


def served(method: str, parameters: dict, answer: dict | None = None) -> Callable[[Peer], None]:
    """A connection on which luod is asked for this, and answers."""

    def script(peer: Peer) -> None:
        peer.asked(method, parameters)
        peer.answers(answer)

    return script


def unanswered(method: str, parameters: dict, *, more: bool = False) -> Callable[[Peer], None]:
    """A connection on which luod is asked for this, and ends."""
    return lambda peer: peer.asked(method, parameters, more=more)


def refused(method: str, parameters: dict, error: errors.WireError) -> Callable[[Peer], None]:
    """A connection on which luod is asked for this, and refuses it."""

    def script(peer: Peer) -> None:
        peer.asked(method, parameters)
        peer.refuses(error)

    return script
