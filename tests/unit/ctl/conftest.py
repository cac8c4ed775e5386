"""luoctl, run in this process or as one of its own, and a luod that holds something."""

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from luod.client import ToPreserve, connect
from luod.ctl import main
from luod.sim.process import simulator
from memory import memfds
from running import luod_running

from .scripted import Scripted

LUOCTL = [sys.executable, "-m", "luod.ctl"]


@dataclass
class Ran:
    """What a luoctl came to."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def luoctl(capsys):
    """Run luoctl with these arguments."""

    def run(*arguments):
        capsys.readouterr()
        status = main(arguments)
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture
def luoctl_process():
    """Run luoctl as a process of its own, with these words on its standard input."""

    def run(*arguments, stdin="", **options):
        command = [*LUOCTL, *map(str, arguments)]
        ran = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, **options)
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return run


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The socket of a luod that holds `ram` with two files, `cache` without any, and the delegated `vm`."""
    directory = tmp_path_factory.mktemp("luod")
    with simulator(directory / "sim") as sim, luod_running(sim.path, directory) as socket:
        with connect(socket) as luod, memfds(b"x" * 6000, b"") as (large, empty):
            luod.create("ram", labels={"guest": "web"})
            luod.preserve_all("ram", [ToPreserve(large, 7, "[red]memory[/red]"), ToPreserve(empty, 2**63 - 1)])
            luod.create("cache")
            _, kernel_session = luod.create_delegated("vm")
            kernel_session.give_up()
        yield socket


@pytest.fixture
def luod(running, monkeypatch):
    """The same luod, where luoctl finds it."""
    monkeypatch.setenv("LUOD_SOCKET", running)
    return running


class Machine:
    """A machine of a test's own, with luod on it, where luoctl finds it."""

    def __init__(self, sim, directory, monkeypatch):
        self._sim = sim
        self._directory = directory
        self._environment = monkeypatch
        self._running = ExitStack()
        self.boot()

    def boot(self):
        self.socket = self._running.enter_context(luod_running(self._sim.path, self._directory))
        self._environment.setenv("LUOD_SOCKET", self.socket)

    def live_update(self):
        self._sim.kexec()
        self.stop()
        self.boot()

    def stop(self):
        self._running.close()


@pytest.fixture
def machine(sim, tmp_path, monkeypatch):
    machine = Machine(sim, tmp_path / "luod", monkeypatch)
    yield machine
    machine.stop()


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """Begin a luod that says what a test has written, where luoctl finds it."""
    with ExitStack() as running:

        def begin(**script):
            luod = Scripted(str(tmp_path / "scripted"), script)
            running.callback(luod.close)
            monkeypatch.setenv("LUOD_SOCKET", luod.path)
            return luod

        yield begin
