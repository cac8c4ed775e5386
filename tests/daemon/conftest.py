"""A host for luod: a simulated kernel, and a luod in this process, so that a test sees every descriptor it has."""

import ctypes
import os
import socket
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio

from luod import daemon
from luod.client import connect_trio
from luod.config import Config
from luod.fds import FdBundle
from luod.policy import Limits
from luod.transport import Connection
from luod.varlink.framing import Framer
from luod.varlink.messages import Call, Reply


class Wire:
    """A client that says exactly what a test wants said, and shows exactly what comes back."""

    def __init__(self, connection):
        self._connection = connection
        self._framer = Framer()

    async def send(self, data, fds=()):
        await self._connection.send(data, fds)

    async def call(self, method, parameters, fds=(), **flags):
        """Call and return the reply; its descriptors are closed, and counted in `self.arrived`."""
        await self.send(Call(method, parameters, **flags).encode(), fds)
        return await self.reply()

    async def reply(self):
        """The next reply, or None at the end of the connection."""
        while (message := self._framer.next_message()) is None:
            try:
                data, fds = await self._connection.receive()
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._framer.feed(data, fds)
        self.arrived = len(message.fds)
        message.fds.close()
        return Reply.read(message.body)

    async def is_ended(self):
        """Whether luod has ended this connection, with nothing more to say."""
        return await self.reply() is None

    def close(self):
        self._framer.take_fds().close()
        self._connection.close()


class Host:
    """luod on a simulated kernel, booted and rebooted at will."""

    def __init__(self, control, directory, nursery):
        self.control = control
        self.directory = directory
        self.socket = str(directory / "io.luod")
        self.limits = {}
        self.settings = {}
        self.manager = None
        self._nursery = nursery
        self._stop = None

    async def boot(self):
        config = Config(
            device=self.control.path,
            socket=self.socket,
            runtime_directory=self.directory,
            limits=Limits(**self.limits),
            **self.settings,
        )
        self._stop = trio.Event()
        self._ended = trio.Event()
        store, handed = self.manager.store() if self.manager else (None, [])
        await self._nursery.start(self._run, config, self._stop, self._ended, handed, store)

    async def _run(self, config, stop, ended, handed, store, *, task_status):
        try:
            await daemon.run(config, stop, handed, store, task_status=task_status)
        finally:
            if store is not None:  # what the end of a process closes
                store.close()
                FdBundle(entry.fd for entry in handed).close()
            ended.set()

    async def shut_down(self):
        self._stop.set()
        await self._ended.wait()

    async def reboot(self, **limits):
        """luod starts anew, in the same kernel."""
        await self.shut_down()
        self.limits |= limits
        await self.boot()

    async def kexec(self, **how):
        """A live update that nobody announced; the next service manager has nothing."""
        await trio.to_thread.run_sync(lambda: self.control.kexec(**how))
        await self.shut_down()
        if self.manager:
            self.manager.forget(*self.manager.names)
        await self.boot()

    def client(self):
        return connect_trio(self.socket)

    @asynccontextmanager
    async def wire(self):
        wire = Wire(await Connection.to(self.socket))
        try:
            yield wire
        finally:
            wire.close()

    @asynccontextmanager
    async def wire_as(self, uid):
        """A client of another user's. Nothing runs as that user but its connect()."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, acting_as(uid, self.directory):
            sock.connect("io.luod")
            connected = sock.dup()
        connected.setblocking(False)
        wire = Wire(Connection(trio.socket.from_stdlib_socket(connected)))
        try:
            yield wire
        finally:
            wire.close()


SETRESUID, SETRESGID = {"x86_64": (117, 119), "aarch64": (147, 149)}[os.uname().machine]


def become(uid):
    """Give this thread, and no other as os.seteuid() would, another effective user and group."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    order = (SETRESGID, SETRESUID) if uid else (SETRESUID, SETRESGID)
    for number in order:
        if syscall(number, -1, uid, -1):
            raise OSError(ctypes.get_errno(), f"can't become uid {uid}")


@contextmanager
def acting_as(uid, directory):
    """Be another user, in `directory`, for a moment in which this thread does nothing else."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    directory.chmod(0o755)
    before = os.getcwd()
    os.chdir(directory)
    become(uid)
    try:
        yield
    finally:
        become(0)
        os.chdir(before)


@pytest.fixture
async def host(sim, tmp_path, nursery):
    host = Host(sim, tmp_path, nursery)
    await host.boot()
    yield host
    await host.shut_down()
