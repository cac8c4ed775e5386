"""What the machine tells of its own times, and how far its clock is from the one that runs through a kexec."""

import os
import threading
import time
from contextlib import contextmanager

import pytest

from luod.moments import monotonic_offset, now, process_began, rtc_offset, since_boot, systemd_moments

HZ = os.sysconf("SC_CLK_TCK")


@contextmanager
def an_rtc(root, ahead):
    """One that is so many microseconds behind CLOCK_REALTIME, at work while the block lasts."""
    file = root / "sys/class/rtc/rtc0/since_epoch"
    file.parent.mkdir(parents=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT)
    ended = threading.Event()

    def run():
        while not ended.wait(0.0005):
            os.pwrite(fd, b"%d\n" % ((now() - ahead) // 1_000_000), 0)

    os.pwrite(fd, b"%d\n" % ((now() - ahead) // 1_000_000), 0)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.close(fd)


@pytest.mark.parametrize("ahead", [0, 250_000, -700_000, 3_600_000_000])
def test_the_offset_between_the_clock_and_the_rtc_is_measured_at_the_edge_of_a_second(tmp_path, ahead):
    with an_rtc(tmp_path, ahead):
        offset = rtc_offset(tmp_path, patience=5.0)
    assert offset.offset_usec == pytest.approx(ahead, abs=200_000)  # on however slow a machine
    assert offset.within_usec >= 0


def test_without_an_rtc_there_is_no_offset(tmp_path):
    assert rtc_offset(tmp_path) is None


@pytest.mark.parametrize("text", ["17", "nothing\n"])
def test_an_rtc_that_stands_still_or_tells_nothing_has_no_offset(tmp_path, text):
    file = tmp_path / "sys/class/rtc/rtc0/since_epoch"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert rtc_offset(tmp_path, patience=0.01) is None


def test_this_process_began_after_the_kernel_and_before_now():
    assert since_boot() <= process_began("self") <= now()


@pytest.mark.parametrize("text", [None, "", "1 (init) S 0", "1 (init) S" + 18 * " 0" + " soon"])
def test_a_process_that_cannot_be_seen_began_nobody_knows_when(tmp_path, text):
    if text is not None:
        (tmp_path / "proc/1").mkdir(parents=True)
        (tmp_path / "proc/1/stat").write_text(text)
    assert process_began("1", tmp_path) is None


def test_a_name_with_spaces_and_parentheses_is_no_field(tmp_path):
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/stat").write_text("1 (a) b) c) S" + 18 * " 7" + f" {3 * HZ} 5\n")
    assert process_began("1", tmp_path) - since_boot() == pytest.approx(3_000_000, abs=100_000)


def test_the_offset_to_the_monotonic_clock():
    assert monotonic_offset() + time.monotonic_ns() // 1000 == pytest.approx(now(), abs=100_000)


# systemd


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """A machine whose systemctl prints what a test wants."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    script = tmp_path / "systemctl"

    def prints(text, status=0):
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
        script.chmod(0o755)
        return tmp_path

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return prints


SAID = """\
UserspaceTimestampMonotonic=2000000
InitRDTimestampMonotonic=0
PreviousShutdownStartTimestampMonotonic=70000000
PreviousShutdownFinishTimestampMonotonic=[not set]
PreviousShutdownLateFinishTimestampMonotonic=73000000"""


def test_systemd_tells_when_it_did_what_each_by_the_clock_of_its_kernel(systemd):
    told = dict(systemd_moments(5, systemd(SAID)))
    assert told.keys() == {"userspace", "stopping", "kexec"}
    assert told["userspace"] == pytest.approx(monotonic_offset() + 2_000_000, abs=1000)
    assert (told["stopping"], told["kexec"]) == (70_000_005, 73_000_005)


def test_without_the_last_kernels_clock_what_it_did_there_is_not_known(systemd):
    assert dict(systemd_moments(None, systemd(SAID))).keys() == {"userspace"}


def test_what_a_systemd_cannot_tell_is_not_told(systemd):
    assert list(systemd_moments(5, systemd("Failed to connect to bus: Host is down", 1))) == []


def test_without_systemd_nobody_is_asked(systemd):
    root = systemd(SAID)
    (root / "run/systemd/system").rmdir()
    assert list(systemd_moments(5, root)) == []


def test_where_systemctl_is_missing_nothing_is_told(systemd, tmp_path, monkeypatch):
    root = systemd(SAID)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert list(systemd_moments(5, root)) == []
