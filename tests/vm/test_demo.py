"""`make demo-vm`, as somebody runs it: what it says is so, and nothing is left of it."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from vm.rootfs import CHECKOUT


@pytest.fixture
def place(tmp_path):
    """Where the demo makes what it doesn't keep."""
    directory = tmp_path / "t"
    directory.mkdir()
    return directory


@contextmanager
def demo(place, **environment):
    """Run the demo. Whatever happens, nothing of it is left."""
    environment = {"TMPDIR": str(place), "PYTHONPATH": str(CHECKOUT / "tests"), "LUOD_VM_COVERAGE": "0"} | environment
    with subprocess.Popen(
        [sys.executable, "-m", "vm.demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env=os.environ | environment,
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise
    assert list(place.iterdir()) == []
    assert list(players(place)) == []


def players(place):
    """The processes that work in this place: numbers and names."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal() and os.fsencode(place) in (process / "environ").read_bytes():
                yield int(process.name), (process / "comm").read_text().strip()


def lines_until(process, text):
    """What the demo says, up to the line with this text."""
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return said
    raise AssertionError(f"it never said {text!r}, but: {said}")


def test_everything_comes_back_through_a_real_kexec(disks, place):
    with demo(place) as process:
        said, complaints = process.communicate()
    assert said.splitlines()[-1] == "105 fds preserved, 105 retrieved, 0 lost"
    assert (process.returncode, complaints) == (0, "")
    for text in ("generation 0, 0 sessions", "killed with SIGKILL", "generation 1, 3 sessions", "holds 0 sessions"):
        assert said.count(text) == 1
    assert said.count("are the same") == 4  # the one that was killed, then all three
    assert len(set(re.findall(r"boot ([0-9a-f]{8}), is up", said))) == 2
    assert re.search(r"^all +kexec +█+ +\d+\.\d\d s$", said, re.MULTILINE)
    assert re.search(r"^all +blackout +█+ +\d+\.\d\d s$", said, re.MULTILINE)
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("moment", ["QEMU starts", "is up"])
def test_a_signal_ends_it_cleanly(disks, place, moment):
    with demo(place) as process:
        lines_until(process, moment)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate()
    assert (process.returncode, complaints) == (130, "")


def test_a_machine_that_is_lost_is_told_in_a_line(disks, place):
    with demo(place) as process:
        lines_until(process, "is up")
        (qemu,) = [number for number, name in players(place) if name.startswith("qemu")]
        os.kill(qemu, signal.SIGKILL)
        _, complaints = process.communicate()
    assert process.returncode == 1
    assert re.fullmatch(r"demo-vm: the virtual machine ended, .*; what it said is in .*\n", complaints)


def test_what_is_not_installed_is_named(place, tmp_path):
    with demo(place, PATH=str(tmp_path)) as process:
        said, complaints = process.communicate()
    assert (process.returncode, said) == (1, "")
    assert re.fullmatch(r"demo-vm: not installed: .*qemu-system-x86.* \(make vm-deps\)\n", complaints)
