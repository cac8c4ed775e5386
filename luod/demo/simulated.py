"""The demo on a simulated kernel: all its processes are here, in a temporary directory of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import trio

from luod.client import ClientError, OwnedFd, Session, connect_trio
from luod.ctl.output import size
from luod.demo.reports import Event, Report
from luod.demo.screen import Screen
from luod.demo.stage import Boot, Failed, ending, understood
from luod.errors import WireError
from luod.interface.update import StatusReply
from luod.sim.client import Control, State

INTRODUCTION: Final = (
    "A live update with luod, on a simulated kernel: real processes, real memory,",
    "all figures measured. When (in seconds), who, and what luod did for them:",
)

PATIENCE: Final = 60.0
"""How long nobody may keep the demo waiting, in seconds."""

_OURS: Final = ("LUOD_", "JOURNAL_")
_LOG_LINES: Final = 15
_SILENT: Final = f"nothing came from it for {PATIENCE:.0f} s"
_MOMENT: Final = 0.005

T = TypeVar("T")


class LocalProcess:
    """A process of this machine. Its standard error is its log; the end of its standard input ends a client."""

    def __init__(self, who: str, started: float, process: trio.Process) -> None:
        self.who = who
        self.started = started
        self._process = process
        self._unread = bytearray()

    def __str__(self) -> str:
        return f"process {self._process.pid}"

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
        raise Failed(self.who, _SILENT)

    async def report(self, expected: Event) -> Report:
        return understood(self.who, await self.line(), expected)

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()
        await self._close_pipes()

    async def power_off(self) -> None:
        """End it, as the end of its kernel does."""
        await self.kill()

    async def leave(self) -> None:
        """Let it end by itself: a client at the end of its input. Raises Failed."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.move_on_after(PATIENCE):
            await self._process.wait()
        if self._process.returncode != 0:
            raise Failed(self.who, await self.ending())
        await self._close_pipes()

    def is_over(self) -> bool:
        return self._process.poll() is not None

    async def ending(self) -> str:
        with trio.move_on_after(1):
            await self._process.wait()
        return ending(self._process.returncode)

    async def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                await pipe.aclose()


class LocalLuod(LocalProcess):
    """luod under `luod supervise`, which is the process that was started here."""

    def __str__(self) -> str:
        return f"process {self._luod()}"

    async def kill(self) -> None:
        """End luod alone: its supervisor starts the next one."""
        if (pid := self._luod()) is not None:
            with OwnedFd(os.pidfd_open(pid)) as luod:
                signal.pidfd_send_signal(luod.fileno(), signal.SIGKILL)
                await trio.lowlevel.wait_readable(luod.fileno())

    async def power_off(self) -> None:
        if not self.is_over():
            _freeze(self._process.pid)  # so that it starts no next one
            await self.kill()
        await super().kill()

    async def leave(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        await super().leave()

    def _luod(self) -> int | None:
        """The one that is there now. None: one has ended, and the next one isn't there yet."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                _, _, fields = (process / "stat").read_bytes().rpartition(b")")
                if int(fields.split()[1]) == self._process.pid:
                    return int(process.name)
        return None


class SimulatedStage:
    """A stage with a simulated kernel. Everything on it is gone when its block ends."""

    end_of_all: Final = "killed"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._device = str(directory / "kernel")
        self._socket = str(directory / "io.luod")
        self._control = Control(self._device)
        self._kernel: LocalProcess
        self._running: list[LocalProcess] = []
        self._defaults = directory / "luod.toml"
        self._defaults.touch()  # the host's configuration is not the demo's

    @classmethod
    @asynccontextmanager
    async def set_up(cls, screen: Screen) -> "AsyncIterator[SimulatedStage]":
        """Say what there is to see, and make room for it. Raises OSError where there is none."""
        for line in INTRODUCTION:
            screen.say(line)
        directory = Path(tempfile.mkdtemp(prefix="luod-demo-"))
        try:
            stage = cls(directory)
            try:
                yield stage
            finally:
                await stage._power_off(stage._running)
        finally:
            shutil.rmtree(directory)

    async def start_kernel(self) -> Boot:
        self._kernel = await self._start("kernel", "luod.sim", "--socket", self._device)
        await self._kernel.line()  # it says where it listens
        up = time.monotonic()
        boot_id = (await self._ask_kernel(self._control.state)).boot_id
        text = f"a simulated Linux, boot {boot_id[:8]}, is up in {self._kernel}"
        return Boot(boot_id, text, self._kernel.started, up)

    async def start_luod(self) -> LocalProcess:
        where = ["--device", self._device, "--socket", self._socket, "--runtime-directory", str(self.directory)]
        luod = await self._start("luod", "luod", "supervise", "--config", str(self._defaults), *where)
        with trio.move_on_after(PATIENCE):
            while not luod.is_over():
                try:
                    async with connect_trio(self._socket) as asked:
                        await asked.status()
                        return luod
                except ClientError:
                    await trio.sleep(_MOMENT)
            raise Failed("luod", await luod.ending())
        raise Failed("luod", _SILENT)

    async def start_client(self, role: str, *arguments: str) -> LocalProcess:
        return await self._start(role, "luod.demo.clients", role, *arguments)

    async def ask_luod(self) -> tuple[StatusReply, list[Session]]:
        try:
            with trio.fail_after(PATIENCE):
                async with connect_trio(self._socket) as luod:
                    return await luod.status(), await luod.list()
        except trio.TooSlowError:
            raise Failed("luod", _SILENT) from None
        except (ClientError, WireError, OSError) as error:
            raise Failed("luod", str(error)) from None

    async def make_ready_for_kexec(self) -> tuple[str, str]:
        state = await self._ask_kernel(self._control.state)
        return f"is to carry over {_counted(state, 'outgoing')}", "(one session is luod's own, for its manifest)"

    async def kexec(self) -> Boot:
        await self._ask_kernel(self._control.kexec)
        await self._power_off(process for process in self._running if process is not self._kernel)
        up = time.monotonic()
        boot_id = (await self._ask_kernel(self._control.state)).boot_id
        return Boot(boot_id, f"the next one, boot {boot_id[:8]}, is up", self._kernel.started, up)

    async def what_came_over(self) -> str:
        return _counted(await self._ask_kernel(self._control.state), "incoming")

    def log(self, who: str) -> list[str]:
        path = self._log(who)
        return path.read_text(errors="replace").splitlines()[-_LOG_LINES:] if path.exists() else []

    def _log(self, who: str) -> Path:
        return self.directory / f"{who}.log"

    async def _start(self, who: str, *module_and_arguments: str) -> LocalProcess:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment["LUOD_SOCKET"] = self._socket
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
        player = LocalLuod if who == "luod" else LocalProcess
        self._running.append(player(who, started, process))
        return self._running[-1]

    async def _power_off(self, processes: Iterable[LocalProcess]) -> None:
        """End them, to the last one."""
        with trio.CancelScope(shield=True):
            for process in processes:
                await process.power_off()

    async def _ask_kernel(self, call: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(call)
        except OSError as error:
            raise Failed("kernel", str(error)) from None


def _freeze(pid: int) -> None:
    """Stop a child of this process where it is. When this returns, it does nothing any more."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def _counted(state: State, direction: str) -> str:
    """What there is in the kernel."""
    sessions = [session for session in state.sessions if session.direction == direction]
    files = [file for session in sessions for file in session.files]
    return f"{len(sessions)} sessions with {len(files)} files, {size(sum(file.size for file in files))}"
