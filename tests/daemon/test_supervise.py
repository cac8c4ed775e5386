"""`luod supervise` as its user meets it: a luod that comes again with all that it held."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventually import within
from luod.client import connect
from memory import content, memfds

LUOD = [sys.executable, "-m", "luod"]


class Supervised:
    def __init__(self, process, log, socket):
        self.process = process
        self.socket = socket
        self._log = log

    def says(self, text, times=1, seconds=20):
        within(seconds, lambda: self._log.read_text().count(text) >= times)

    def luod(self):
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None

    def tell(self, number):
        self.process.send_signal(number)

    def memory(self):
        """In KiB, of the supervisor alone."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@contextmanager
def supervised(sim, directory, *options, environment=None):
    directory.mkdir(exist_ok=True)
    socket = str(directory / "io.luod")
    where = ["--device", sim.path, "--socket", socket, "--runtime-directory", str(directory)]
    log = directory / "log"
    with log.open("wb") as file:
        command = [*LUOD, "supervise", *options, "--", *where]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=file)
    there = Supervised(process, log, socket)
    try:
        there.says("luod: listening on ")
        yield there
    finally:
        there.tell(signal.SIGCONT)
        there.tell(signal.SIGQUIT)
        process.wait(30)


@pytest.fixture
def there(sim, tmp_path):
    with supervised(sim, tmp_path / "luod") as there:
        with connect(there.socket) as luod, memfds(b"kept") as (fd,):
            luod.create("ram")
            luod.preserve("ram", fd, 7)
        yield there


def is_whole(there):
    with connect(there.socket) as luod:
        (file,) = luod.retrieve("ram").values()
        with file:
            return content(file) == b"kept"


def test_a_luod_that_is_killed_comes_again_with_what_it_held(there):
    os.kill(there.luod(), signal.SIGKILL)
    there.says("luod: listening on ", times=2)
    assert is_whole(there)


def test_clients_wait_in_the_socket_while_there_is_no_luod(there):
    with connect(there.socket):
        os.kill(there.luod(), signal.SIGKILL)
        assert is_whole(there)  # whoever connects now is served by the next one


def test_a_shutdown_ends_luod_but_not_what_it_held(there):
    there.tell(signal.SIGTERM)
    there.says("SIGHUP starts it again")
    assert there.luod() is None
    there.tell(signal.SIGTERM)
    there.tell(signal.SIGHUP)
    there.says("luod: listening on ", times=2)
    assert is_whole(there)


def test_an_upgrade_is_one_signal(there):
    before = there.luod()
    there.tell(signal.SIGHUP)
    there.says("luod: listening on ", times=2)
    assert there.luod() != before
    assert is_whole(there)


def test_ctrl_c_stops_luod_and_keeps_what_it_held_until_told_otherwise(there, sim):
    there.tell(signal.SIGINT)
    there.says("lets go of them")
    assert any(session.files for session in sim.state().sessions if session.name == "luod-0-0")
    there.tell(signal.SIGQUIT)
    assert there.process.wait(20) == 0
    assert sim.state().sessions == []


def test_luod_lives_on_without_its_supervisor(there):
    pid = there.luod()
    there.tell(signal.SIGKILL)
    there.process.wait()
    assert is_whole(there)
    os.kill(pid, signal.SIGKILL)
    within(20, lambda: not Path(f"/proc/{pid}").exists())


def test_a_luod_that_hangs_is_ended_and_comes_again(sim, tmp_path):
    with supervised(sim, tmp_path / "luod", "--watchdog", "1") as there:
        os.kill(there.luod(), signal.SIGSTOP)
        there.says("luod: listening on ", times=2, seconds=60)


def test_it_is_small(sim, tmp_path):
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    with supervised(sim, tmp_path / "luod", environment=environment) as there:
        assert there.memory() < 15 * 1024


def test_its_mistakes_are_told(tmp_path):
    for arguments, said in {
        ("--help",): "usage: luod supervise",
        ("--watchdog", "soon"): "could not convert",
        ("--watchdog", "-1"): "not so many seconds",
    }.items():
        ran = subprocess.run([*LUOD, "supervise", *arguments], capture_output=True, text=True, timeout=20)
        assert said in ran.stdout + ran.stderr
        assert ran.returncode == (0 if arguments == ("--help",) else 2)


def test_a_luod_that_cannot_start_at_all_is_not_started_for_ever(tmp_path):
    command = [*LUOD, "supervise", "--", "--config", str(tmp_path / "missing")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ran.returncode == 1
    assert "missing: No such file or directory" in ran.stderr
