"""`make demo-vm`: the story of `luod demo` on a real kernel, in a virtual machine, with a real kexec in its middle.

The host is the only one with a clock: what happens in the guest happened when the host heard of it.
"""

import os
import signal
import sys
import time
from contextlib import ExitStack, asynccontextmanager

import trio

from luod.client import Session
from luod.demo import FAILED, innermost, perform, stop_printing
from luod.demo.screen import Screen
from luod.demo.stage import Boot, Failed, ending, understood
from luod.interface.update import StatusReply
from vm.cache import cache
from vm.commands import CannotMake, impossible
from vm.guest.demo import ask
from vm.kernels import kernels
from vm.machine import PATIENCE, GuestError, Machine, VmLost
from vm.rootfs import luod_disk, root
from vm.steps import KILL_LUOD, LUOD

NAME = "demo-vm"
INTRODUCTION = (
    "A live update with luod, on a real kernel: Linux, luod and its clients run in a",
    "virtual machine ({accel}). All times are the host's: when it",
    "heard of something. When (in seconds), who, and what luod did for them:",
)
LOG_LINES = 15


class GuestProcess:
    """A process in the guest that somebody plays in."""

    farewell = signal.SIGTERM

    def __init__(self, stage, who, running):
        self.who = who
        self.started = time.monotonic()
        self.running = running
        self._stage = stage
        self._arrivals = []
        self._reports = 0

    def __str__(self):
        return "in the guest"

    def note_arrivals(self, now):
        """Take down when the lines came that weren't there before."""
        self._arrivals += [now] * (len(self.running.lines["stdout"]) - len(self._arrivals))

    async def report(self, expected):
        number = self._reports
        self._reports += 1
        await self._stage.until(self.who, lambda: len(self._arrivals) > number or self.running.over)
        if len(self._arrivals) <= number:
            raise Failed(self.who, self.ending())
        report = understood(self.who, self.running.lines["stdout"][number], expected)
        return report.model_copy(update={"at": self._arrivals[number]})

    async def kill(self):
        await self._end(signal.SIGKILL)

    async def leave(self):
        await self._end(self.farewell)
        if self.running.status != 0:
            raise Failed(self.who, self.ending())

    async def _end(self, number):
        self.running.signal(number)
        await self._stage.until(f"the end of {self.who}", lambda: self.running.over)

    def ending(self):
        if self.running.over and self.running.status is None:
            return "its kernel has ended"
        return ending(self.running.status)


class GuestLuod(GuestProcess):
    """luod under `luod supervise`, which is the process that was started here."""

    farewell = signal.SIGQUIT

    async def kill(self):
        """End luod alone: its supervisor starts the next one."""
        await self._stage.kill_luod()


class GuestStage:
    """A stage in a virtual machine that runs."""

    end_of_all = "gone with their kernel"

    def __init__(self, vm, screen, boot):
        self._vm = vm
        self._screen = screen
        self._first = boot
        self._news = trio.Event()
        self._processes = []

    @classmethod
    @asynccontextmanager
    async def set_up(cls, vm, screen, boot):
        stage = cls(vm, screen, boot)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage._listen)
            yield stage
            nursery.cancel_scope.cancel()

    async def until(self, whom, is_so):
        """Wait until something is so, by what the guest says. Shows who is waited for."""
        with self._screen.waiting(whom):
            while not is_so():
                await self._news.wait()

    async def done(self, running, who, problem):
        """Wait for the good end of a process that nobody plays in. If it fails, that is somebody's problem."""
        await self.until(who, lambda: running.over)
        if running.status != 0:
            raise Failed(who, f"{problem}: {running.stderr[-200:]}")

    async def _listen(self):
        while True:
            now = await trio.to_thread.run_sync(self._hear, abandon_on_cancel=True)
            for process in self._processes:
                process.note_arrivals(now)
            heard, self._news = self._news, trio.Event()
            heard.set()

    def _hear(self):
        """Wait for the next thing that the guest says; returns when it came."""
        self._vm.hear(time.monotonic() + PATIENCE, "the next step of the demo")
        return time.monotonic()

    async def start_kernel(self):
        return self._first

    async def start_luod(self):
        luod = self._start("luod", *LUOD, "supervise")

        def is_ready():
            return any(line.startswith("luod: listening") for line in luod.running.lines["stderr"])

        await self.until("luod", lambda: is_ready() or luod.running.over)
        if not is_ready():
            raise Failed("luod", luod.ending())
        return luod

    async def kill_luod(self):
        await self.done(self._vm.start(*KILL_LUOD), "luod", "it can't be killed")

    async def start_client(self, role, *arguments):
        return self._start(role, "python3", "-m", "vm.guest.demo", role, *arguments)

    async def ask_luod(self):
        asking = self._vm.begin(ask)
        await self.done(asking, "luod", "it doesn't answer")
        answer = asking.result()
        return (
            StatusReply.model_validate(answer["status"]),
            [Session.model_validate(session) for session in answer["sessions"]],
        )

    async def make_ready_for_kexec(self):
        await self.done(self._vm.begin_load(), "kernel", "it doesn't load the next one")
        return "has loaded the next one, the same Linux", "(nobody announces it to luod, and nobody needs to)"

    async def kexec(self):
        number = len(self._vm.boots)
        started = time.monotonic()
        cause = self._vm.start("kexec", "--exec")
        await self.until("the next kernel", lambda: len(self._vm.boots) > number or cause.status is not None)
        if len(self._vm.boots) == number:
            raise Failed("kernel", f"it doesn't go: {cause.stderr}")
        up = time.monotonic()
        boot = self._vm.boot
        return Boot(boot.id, f"Linux {boot.release} again, boot {boot.id[:8]}, is up", started, up)

    async def what_came_over(self):
        if self._vm.boot.number != 1:
            raise Failed("kernel", "it was given nothing of before")
        return "sessions: PID 1 has found one of its own"

    def log(self, who):
        if who == "kernel":
            return (_logs() / "console.log").read_text(errors="replace").splitlines()[-LOG_LINES:]
        incarnations = [process.running for process in self._processes if process.who == who]
        return [line for running in incarnations for line in running.lines["stderr"]][-LOG_LINES:]

    def _start(self, who, *argv):
        player = GuestLuod if who == "luod" else GuestProcess
        self._processes.append(player(self, who, self._vm.start(*argv)))
        return self._processes[-1]


def main():
    """Show it; the exit status is 0 only where nothing was lost."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if reason := impossible():
        return _fail(reason)
    try:
        return _show()
    except* (VmLost, GuestError) as group:
        _fail(f"{str(innermost(group)).splitlines()[0]}; what it said is in {_logs()}")
    except* BrokenPipeError:
        stop_printing()
    except* (CannotMake, OSError) as group:
        _fail(innermost(group))
    return FAILED


def _show():
    if not any(cache().glob("kernel-*/bzImage")):
        print(f"For the first time: a kernel and a Debian are made, and kept in {cache()}", flush=True)
    kernel = kernels()[-1]
    system = root("unstable")
    disks = [system / "disk", luod_disk(system, {"bzImage": kernel.image})]
    screen = Screen()
    accel = os.environ.get("LUOD_VM_ACCEL", "emulated, so all is slow")
    for line in INTRODUCTION:
        screen.say(line.format(accel=accel))
    screen.heading("A virtual machine starts")
    started = time.monotonic()
    screen.line("kernel", f"QEMU starts Linux {kernel.release}", at=started)
    with ExitStack() as stack:
        with screen.waiting("the kernel"):
            vm = stack.enter_context(Machine(kernel.image, disks, _logs()))
        text = f"Linux {vm.boot.release}, boot {vm.boot.id[:8]}, is up"
        boot = Boot(vm.boot.id, text, started, time.monotonic())
        return trio.run(perform, NAME, GuestStage.set_up(vm, screen, boot), screen, None)


def _logs():
    return cache() / "logs" / "demo"


def _fail(reason):
    print(f"{NAME}: {reason}", file=sys.stderr)
    return FAILED


def _end(number, _):
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
