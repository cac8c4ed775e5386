"""The demo's processes: a simulated kernel, luod and its clients, all in a temporary directory of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from luod.demo.reports import Event, Report

PATIENCE: Final = 60.0
"""How long nobody may keep the demo waiting, in seconds."""

_OURS: Final = ("LUOD_", "LISTEN_", "NOTIFY_", "JOURNAL_", "WATCHDOG_", "FDSTORE")
_LOG_LINES: Final = 15


class Failed(Exception):
    """Somebody didn't do what was expected. The text says what happened instead."""

    def __init__(self, who: str, reason: str) -> None:
        super().__init__(reason)
        self.who = who


class Process:
    """A process that somebody plays in. Its standard error is its log; the end of its standard input ends a client."""

    def __init__(self, who: str, started: float, process: trio.Process) -> None:
        self.who = who
        self.started = started
        self._process = process
        self._unread = bytearray()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self) -> bytes:
        """The next line that it writes to standard output. Raises Failed where it ends or says nothing."""
        assert self._process.stdout is not None
        with trio.move_on_after(PATIENCE):
            while b"\n" not in self._unread:
                data = await self._process.stdout.receive_some()
                if not data:
                    raise Failed(self.who, await self.ending())
                self._unread += data
            line, _, self._unread = self._unread.partition(b"\n")
            return bytes(line)
        raise Failed(self.who, f"nothing came from it for {PATIENCE:.0f} s")

    async def report(self, expected: Event) -> Report:
        """The next report of a client, which must be this one. Raises Failed."""
        line = await self.line()
        try:
            report = Report.model_validate_json(line)
        except ValueError:
            raise Failed(self.who, f"it said {line.decode(errors='replace')!r}") from None
        if report.event is not expected:
            raise Failed(self.who, f"it has {report.event}, where it should have {expected}")
        return report

    async def kill(self) -> None:
        """End it with SIGKILL, wherever it is."""
        self._process.kill()
        await self._process.wait()
        await self._close_pipes()

    async def leave(self) -> None:
        """Let it end by itself: a client at the end of its input, the others at SIGTERM. Raises Failed."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        if self.who in ("kernel", "luod"):
            self._process.terminate()
        with trio.move_on_after(PATIENCE):
            await self._process.wait()
        if self._process.returncode != 0:
            raise Failed(self.who, await self.ending())
        await self._close_pipes()

    async def ended(self) -> None:
        await self._process.wait()

    async def ending(self) -> str:
        """How it ended, or that it didn't, though it should have."""
        with trio.move_on_after(1):
            await self._process.wait()
        match self._process.returncode:
            case None:
                return "it doesn't end"
            case status if status < 0:
                return f"it was ended by {signal.Signals(-status).name}"
            case status:
                return f"it ended with status {status}"

    async def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                await pipe.aclose()


class Stage:
    """Where the demo plays. Everything on it is gone when its block ends."""

    def __init__(self, directory: Path, notified: trio.socket.SocketType) -> None:
        self.directory = directory
        self.device = str(directory / "kernel")
        self.socket = str(directory / "io.luod")
        self._notified = notified
        self._ready = trio.Event()
        self._running: list[Process] = []
        self._defaults = directory / "luod.toml"
        self._defaults.touch()  # the host's configuration is not the demo's

    @classmethod
    @asynccontextmanager
    async def set_up(cls) -> "AsyncIterator[Stage]":
        """Raises OSError where there is no place for it."""
        directory = Path(tempfile.mkdtemp(prefix="luod-demo-"))
        try:
            with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as notified:
                await notified.bind(str(directory / "notify"))
                stage = cls(directory, notified)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stage._be_notified)
                    try:
                        yield stage
                    finally:
                        with trio.CancelScope(shield=True):
                            for process in stage._running:
                                await process.kill()
                    nursery.cancel_scope.cancel()
        finally:
            shutil.rmtree(directory)

    async def start_kernel(self) -> Process:
        """A simulated kernel that listens at `device`."""
        kernel = await self._start("kernel", "luod.sim", "--socket", self.device)
        await kernel.line()  # it says where it listens
        return kernel

    async def start_luod(self) -> Process:
        """A luod that is ready, as it tells its service manager."""
        self._ready = trio.Event()
        where = ["--device", self.device, "--socket", self.socket, "--runtime-directory", str(self.directory)]
        luod = await self._start("luod", "luod", "--config", str(self._defaults), *where)
        with trio.move_on_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_at_end_of, luod, nursery.cancel_scope)
                await self._ready.wait()
                nursery.cancel_scope.cancel()
        if not self._ready.is_set():
            raise Failed("luod", await luod.ending())
        return luod

    async def start_client(self, role: str, *arguments: str) -> Process:
        return await self._start(role, "luod.demo.clients", role, *arguments)

    def log(self, who: str) -> list[str]:
        """The last lines of somebody's log, over all incarnations."""
        path = self._log(who)
        return path.read_text(errors="replace").splitlines()[-_LOG_LINES:] if path.exists() else []

    def _log(self, who: str) -> Path:
        return self.directory / f"{who}.log"

    async def _start(self, who: str, *module_and_arguments: str) -> Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment["LUOD_SOCKET"] = self.socket
        if who == "luod":
            environment["NOTIFY_SOCKET"] = str(self.directory / "notify")
        started = time.monotonic()
        try:
            with self._log(who).open("ab") as log:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", *module_and_arguments],
                    stdin=subprocess.PIPE,
                    stdout=log if who == "luod" else subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    process_group=0,  # a Ctrl-C is the driver's alone
                )
        except OSError as error:
            raise Failed(who, f"it can't be started: {error}") from None
        self._running.append(Process(who, started, process))
        return self._running[-1]

    async def _be_notified(self) -> None:
        """Hear luod's sd_notify(3). What else it may send beside READY is passed over, descriptors are closed."""
        while True:
            message = await self._notified.recv(1 << 16)
            if b"READY=1" in message.splitlines():
                self._ready.set()


async def _cancel_at_end_of(process: Process, scope: trio.CancelScope) -> None:
    await process.ended()
    scope.cancel()
