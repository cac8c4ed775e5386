"""luod under its supervisor, made to die where a test says: each luod is forked from a process that has imported all.

As a script it is that process: `survivor.py DEVICE DIRECTORY PLAN`.
"""

import mmap
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from eventually import within

PLAN_BYTES = 64


class Plan:
    """Where the next luod to come there dies, in memory that all of them share.

    `here > there` is the first `there` behind `here`.
    """

    def __init__(self, path):
        if not path.exists():
            path.write_bytes(bytes(PLAN_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), PLAN_BYTES)

    def die_at(self, point):
        self._memory[:] = point.encode().ljust(PLAN_BYTES, b"\0")

    def forget(self):
        self.die_at("")

    @property
    def point(self):
        return self._memory[:].rstrip(b"\0").decode()

    def passed(self, point):
        first, _, then = self.point.partition(" > ")
        if point == first:
            self.die_at(then)
            if not then:
                os.kill(os.getpid(), signal.SIGKILL)

    def close(self):
        self._memory.close()


class Survivor:
    """A luod that comes again, on a kernel's device, for as long as the `with` block goes on.

    With `command`, a `luod supervise` that somebody has installed, it is that one, and dies at no point of its own.
    """

    def __init__(self, device, directory, command=None):
        directory.mkdir(exist_ok=True)
        self.socket = str(directory / "io.luod")
        self.directory = directory
        where = ["--device", device, "--socket", self.socket, "--runtime-directory", str(directory)]
        here = [sys.executable, __file__, device, str(directory), str(directory / "plan")]
        self._command = here if command is None else [*command, "--", *where]
        self.plan = Plan(directory / "plan")
        self.deaths = 0

    def start(self):
        begun = self._beginnings()
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=log)
        within(20, lambda: self._beginnings() > begun)

    def _beginnings(self):
        return self.log().count("luod: listening on ")

    def pid(self):
        """The process that is luod now; None while there is none."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def kill(self):
        """SIGKILL luod, wherever it is."""
        if (pid := self.pid()) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.deaths += 1

    def upgrade(self):
        """Stop luod, as it likes to be stopped, and start it again."""
        os.kill(self._process.pid, signal.SIGHUP)

    def power_off(self):
        """End luod and what keeps its descriptors, as a kexec does: at once, for who stands still starts no other."""
        os.kill(self._process.pid, signal.SIGSTOP)
        within(20, lambda: _state(self._process.pid) in "TZ")
        pid = self.pid()
        for each in (self._process.pid, pid):
            if each is not None:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        self._process.wait()
        self._gone(pid)

    def let_go(self):
        """End luod and what keeps its descriptors, as somebody does who needs neither any more."""
        pid = self.pid()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        self._gone(pid)

    def _gone(self, pid):
        if pid is not None:
            within(20, lambda: _state(pid) in "ZX")
        Path(self.socket).unlink(missing_ok=True)

    def log(self):
        """What luod and its supervisor have said."""
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""


def _state(pid):
    """Of a process, as proc_pid_stat(5) has it: T, it is stopped; Z, it is dead; X, it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"


@contextmanager
def survivor(device, directory, command=None):
    with unborn(device, directory, command) as luod:
        luod.start()
        yield luod


@contextmanager
def unborn(device, directory, command=None):
    """One that somebody is to start in the `with` block."""
    luod = Survivor(device, directory, command)
    try:
        yield luod
    finally:
        luod.let_go()
        luod.plan.close()


def main(device, directory, plan):
    import luod.sim.client as sim
    from luod import bag, daemon, flight, holdings, store, systemd, transport, update
    from luod.config import Config
    from luod.supervisor import Supervisor

    passed = Plan(Path(plan)).passed
    supervisor = os.getpid()

    def power_off():
        """All that runs in a kernel ends with it: nobody is left to start another luod in the next one."""
        for pid in (supervisor, os.getpid()):
            os.kill(pid, signal.SIGKILL)

    sim.power_off = power_off

    def after(owner, name, point):
        """Let `point`, or what it says of the call's arguments, be passed after every call of a method."""
        method = getattr(owner, name)

        def call(*args, **kwargs):
            result = method(*args, **kwargs)
            passed(point(*args, **kwargs) if callable(point) else point)
            return result

        setattr(owner, name, call)

    after(sim.SimDevice, "create_session", "CREATE_SESSION")
    after(sim.SimDevice, "retrieve_session", "RETRIEVE_SESSION")
    after(sim.SimSession, "preserve_fd", "PRESERVE_FD")
    after(sim.SimSession, "retrieve_fd", "RETRIEVE_FD")
    after(sim.SimSession, "finish", "FINISH")
    after(sim.SimSession, "give_up", "close")
    after(sim.SimMachine, "load", "KEXEC_LOAD")
    after(update.Updates, "step", lambda updates, step: f"step: {step}")
    after(holdings.Holdings, "seal", "seal")
    after(flight, "process_began", "flight: begun")
    after(flight, "_retrieve", "flight: retrieved")
    after(flight, "_history_so_far", "flight: read")
    after(flight, "_make", "flight: made")
    after(flight.Recorder, "note", lambda recorder, what, *_, **__: f"note: {what}")
    after(bag.Bag, "put", "bag")
    after(store.Journal, "append", lambda journal, record: f"journal: {record.kind}")
    after(systemd.FdStore, "_send", lambda store, call, message, fds: call)
    send = transport.Connection.send

    async def reply(*args):
        passed("reply")
        await send(*args)

    transport.Connection.send = reply
    systemd._SYSTEMD_RUNS = Path(directory, "no systemd")  # who would know whether the machine goes down
    config = Config(device=device, socket=Path(directory, "io.luod"), runtime_directory=directory)

    def be_luod(environment):
        os.environ.clear()
        os.environ.update(environment)
        os._exit(daemon.main(lambda: config))

    return Supervisor(be_luod, pauses=[0.0]).serve()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
