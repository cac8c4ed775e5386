"""`make demo-vm`, as somebody runs it: what it says is so, and nothing is left of it."""

import os
import re
import signal

import pytest

import playing
from eventually import within
from playing import lines_until, players
from vm.rootfs import CHECKOUT


@pytest.fixture
def place(tmp_path):
    """Where the demo makes what it doesn't keep."""
    directory = tmp_path / "t"
    directory.mkdir()
    return directory


def demo(place, **environment):
    """Run the demo."""
    paths = f"{CHECKOUT}:{CHECKOUT / 'tests'}"
    return playing.demo(place, "vm.demo", PYTHONPATH=paths, LUOD_VM_COVERAGE="0", **environment)


def test_everything_comes_back_through_a_real_kexec(disks, place):
    with demo(place) as process:
        said, complaints = process.communicate()
    assert said.splitlines()[-1] == "105 fds preserved, 105 retrieved, 0 lost"
    assert (process.returncode, complaints) == (0, "")
    for text in (
        "generation 0, 0 sessions",
        "killed with SIGKILL; it had given luod supervise 10 fds to keep",
        "killed with SIGKILL, but luod has duplicates of its 100 fds",
        "generation 1, 3 sessions",
        "holds 0 sessions",
    ):
        assert said.count(text) == 1
    assert said.count("are the same") == 5  # luod's and a client's who were killed, then those of all three
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


def test_no_machine_outlives_a_demo_that_is_killed(disks, place):
    with demo(place) as process:
        lines_until(process, "is up")
        assert list(players(place))
        process.kill()
        process.wait()
        within(20, lambda: not list(players(place)))


def test_what_is_not_installed_is_named(place, tmp_path):
    with demo(place, PATH=str(tmp_path)) as process:
        said, complaints = process.communicate()
    assert (process.returncode, said) == (1, "")
    assert re.fullmatch(r"demo-vm: not installed: .*qemu-system-x86.* \(make vm-deps\)\n", complaints)
