"""luoctl, run in this process, and a luod that holds something."""

import json
from dataclasses import dataclass

import pytest

from luod.client import ToPreserve, connect
from luod.ctl import main
from luod.sim.process import simulator
from memory import memfds
from running import luod_running


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
