"""luod reads its configuration again at SIGHUP, and goes on with the old one where the new one is bad."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from eventually import within
from luod.client import connect
from luod.errors import QuotaExceeded
from memory import memfd
from running import luod_running


class Configured:
    """A luod with a configuration that a test changes, and the service manager that hears what it says."""

    def __init__(self, process, manager, file, path):
        self.path = path
        self._process = process
        self._manager = manager
        self._file = file

    def told(self):
        """What it tells the service manager next."""
        return dict(line.split("=", 1) for line in self._manager.recv(4096).decode().splitlines())

    def reloads(self, text):
        """Have it read another configuration. What it tells the service manager at the end of that."""
        self._file.write_text(text)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._process.send_signal(signal.SIGHUP)
        begun = self.told()
        assert begun.pop("RELOADING") == "1"
        assert int(begun.pop("MONOTONIC_USEC")) >= before
        assert begun == {}
        ended = self.told()
        assert ended.pop("READY") == "1"
        return ended.pop("STATUS")

    def says(self):
        return self._process.stderr.readline()


@contextmanager
def configured(file, text, *arguments):
    """A luod with this configuration, and with these arguments."""
    file.write_text(text)
    directory = file.parent
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        manager.settimeout(20)
        with subprocess.Popen(
            [sys.executable, "-m", "luod", "--config", str(file), *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"NOTIFY_SOCKET": str(directory / "notify")},
        ) as process:
            luod = Configured(process, manager, file, str(directory / "io.luod"))
            try:
                assert luod.told()["READY"] == "1"
                assert "listening on" in luod.says()
                yield luod
            finally:
                process.terminate()
                process.stderr.read()


@pytest.fixture
def luod(sim, tmp_path):
    where = ["--device", sim.path, "--runtime-directory", tmp_path, "--socket", tmp_path / "io.luod"]
    with configured(tmp_path / "luod.toml", "[limits]\nsessions_per_owner = 1\n", *where) as luod:
        yield luod


def test_a_new_limit_is_in_force_at_once(luod):
    with connect(luod.path) as client:
        client.create("one")
        with pytest.raises(QuotaExceeded):
            client.create("two")
        assert luod.reloads("[limits]\nsessions_per_owner = 2\n") == "the configuration was read again"
        client.create("two")
        with pytest.raises(QuotaExceeded):
            client.create("three")
        assert luod.reloads("[limits]\nsessions_per_owner = 1\n") == "the configuration was read again"
        assert len(client.list()) == 2


def test_those_who_wait_for_a_place_get_it_when_there_is_one(luod):
    luod.reloads("[limits]\nconnections = 1\nthreads_per_owner = 1\n")
    with connect(luod.path) as first, connect(luod.path) as second:
        assert first.list() == []
        luod.reloads("[limits]\nconnections = 2\nthreads_per_owner = 2\n")
        assert second.list() == []


def test_a_shorter_time_of_grace_is_in_force_at_once(sim, tmp_path):
    where = ["--device", sim.path, "--runtime-directory", tmp_path, "--socket", tmp_path / "io.luod"]
    with luod_running(sim.path, tmp_path / "before") as path, connect(path) as client, memfd() as fd:
        client.create("ram")
        client.preserve("ram", fd)
        sim.kexec()
    slowly = configured(tmp_path / "luod.toml", "carry_over_seconds = 3600\n", *where)
    with slowly as luod, connect(luod.path) as client:
        assert client.find("ram").carried_over is None
        luod.reloads("carry_over_seconds = 0.01\n")
        within(20, lambda: client.find("ram").carried_over)


def test_what_of_the_network_is_to_go_over_is_in_force_at_once(luod):
    with connect(luod.path) as client:

        def said():
            return {check.name: check.detail for check in client.preflight()}["network"]

        assert said() == "nothing of the network is to go over"
        luod.reloads("[network]\nhandover = ['br0']\n")
        assert said().startswith("luod has luoctl write down br0;")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[limits]\nsessions_per_owner = 0\n", ":2: limits.sessions_per_owner: must be greater than 0, not 0"),
        ("[limits]\ndescriptors_in_flight_per_owner = 1000000000\n", "is too low for these limits"),
        ("limits", ":1: expected '=' after a key"),
    ],
)
def test_a_bad_one_changes_nothing_and_is_told(luod, text, reason):
    said = luod.reloads(text)
    assert said.startswith("the configuration stays as it was: ")
    assert reason in said
    assert luod.says() == f"luod: {said}\n"
    with connect(luod.path) as client:
        client.create("one")
        with pytest.raises(QuotaExceeded) as refused:
            client.create("two")
    assert refused.value.limit == 1


def test_what_only_a_start_can_change_stays_and_is_told(sim, tmp_path):
    file = tmp_path / "luod.toml"
    ours = f"device = '{sim.path}'\nsocket = '{tmp_path}/io.luod'\nruntime_directory = '{tmp_path}'\n"
    with configured(file, ours) as luod:
        luod.reloads(ours.replace("io.luod", "elsewhere"))
        assert luod.says() == f"luod: socket is still {luod.path}: it can't change before luod starts anew\n"
        assert connect(luod.path).close() is None
