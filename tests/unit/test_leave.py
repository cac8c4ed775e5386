"""The last steps as far as they can be taken where nothing may be frozen and no machine may go anywhere."""

import os
import subprocess
import sys
import time

import pytest

from luod import going, leave, systemd
from luod.going import CameBack, came_back, depart
from luod.kernel.api import Call, KernelError
from luod.lifecycle import Via

REFUSES = """#!/bin/sh
echo 'Operation denied due to active block inhibitor' >&2
exit 1
"""

COMES_BACK = """#!/bin/sh
cd "$(dirname "$0")/runtime"
echo "$3" >>../asked
[ "$3" = start ] || exit 0
[ -e leaving ] && echo 'it was not to be' >came-back
echo 'Job for luod-kexec.service failed.' >&2
exit 1
"""

GOES = """#!/bin/sh
cd "$(dirname "$0")"
echo "$3" >>asked
[ "$3" = kexec ] && exit 0
[ "$(grep -c is-system-running asked)" -lt 3 ] && echo running || echo stopping
"""


class Machine:
    """A machine whose kexec answers this errno; without one it goes, as far as it says."""

    def __init__(self, *, simulated=False, errno=0):
        self.is_simulated = simulated
        self._errno = errno

    def kexec(self):
        if self._errno:
            raise KernelError(Call.KEXEC, self._errno)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "runtime").mkdir()
    return tmp_path / "runtime"


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """Makes systemd consist of a script, and a kernel be loaded."""

    def script(text):
        (tmp_path / "systemctl").write_text(text)
        (tmp_path / "systemctl").chmod(0o755)

    monkeypatch.setattr(systemd, "_SYSTEMD_RUNS", tmp_path)
    monkeypatch.setattr("luod.kernel.running.RunningKernel.an_image_is_loaded", lambda self: True)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return script


def reason(via, machine, directory):
    with pytest.raises(CameBack) as caught:
        depart(via, machine, directory)
    assert list(directory.iterdir()) == []
    return str(caught.value)


def luod_kexec(*words):
    return subprocess.run([sys.executable, "-m", "luod", "kexec", *words], capture_output=True, text=True)


def test_the_last_steps_do_nothing_where_luod_is_not_leaving(directory):
    ran = luod_kexec("--runtime-directory", str(directory))
    assert (ran.returncode, ran.stderr) == (2, f"luod kexec: luod isn't leaving: there is no {directory}/leaving\n")
    assert list(directory.iterdir()) == []


def test_the_last_steps_explain_themselves_and_take_no_other_words():
    ran = luod_kexec("--help")
    assert (ran.returncode, ran.stdout) == (0, leave.USAGE)
    assert luod_kexec("--runtime-directory").returncode == luod_kexec("now").returncode == 2


def test_nothing_is_held_still_where_luods_own_files_are_on_a_disk(tmp_path, capsys, monkeypatch):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
    there = leave.filesystems.mounts(mountinfo)
    monkeypatch.setattr(leave.filesystems, "mounts", lambda: there)
    monkeypatch.setattr(os, "sync", lambda: pytest.fail("nothing was to be done"))
    (tmp_path / leave.LEAVING).touch()
    assert leave.main(["--runtime-directory", str(tmp_path)]) == 1
    said = f"{tmp_path} is on no tmpfs: where disks are held still, luod could write nothing there"
    assert capsys.readouterr().err == f"luod kexec: {said}\n"
    assert came_back(tmp_path) == said


def test_the_machine_does_not_go_once_luod_is_not_leaving_any_more(directory, tmp_path, monkeypatch):
    gone = []
    monkeypatch.setattr(leave, "reboot_into_the_next_kernel", lambda: gone.append(1))
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("1 0 0:1 / / rw - tmpfs tmpfs rw\n")
    there = leave.filesystems.mounts(mountinfo)
    monkeypatch.setattr(leave.filesystems, "mounts", lambda: there)
    (directory / leave.LEAVING).touch()
    assert came_back(directory) is None  # as the next luod does, when this one has died
    assert leave.leave(directory) == "luod isn't leaving any more"
    assert gone == []


def test_after_one_that_was_killed_it_is_said_by_what(directory):
    (directory / leave.LEAVING).touch()
    (directory / leave.HELD_STILL).write_text("+1048575:1\n+1048575:2\n-1048575:2\n")
    environment = os.environ | {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}
    command = [sys.executable, "-m", "luod", "kexec", "--undo", "--runtime-directory", str(directory)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert came_back(directory) == "the last steps were ended half-way (signal, killed, KILL)"
    assert ran.stderr == "luod kexec: the last steps were ended half-way (signal, killed, KILL)\n"
    assert list(directory.iterdir()) == []


def test_after_one_that_came_back_by_itself_there_is_nothing_to_undo(directory):
    (directory / leave.LEAVING).touch()
    (directory / leave.CAME_BACK).write_text("it was not to be\n")
    ran = luod_kexec("--undo", "--runtime-directory", str(directory))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert came_back(directory) == "it was not to be"
    assert came_back(directory) is None


def test_at_once_by_systemd_the_reason_is_that_of_the_last_steps(systemctl, directory):
    systemctl(COMES_BACK)
    assert reason(Via.DIRECT, Machine(), directory) == "it was not to be"
    assert (directory.parent / "asked").read_text().split() == ["start", "stop"]


def test_at_once_by_systemd_the_reason_is_its_own_where_the_last_steps_have_none(systemctl, directory):
    systemctl(REFUSES)
    assert reason(Via.DIRECT, Machine(), directory) == "Operation denied due to active block inhibitor"
    systemctl("#!/bin/sh\n")
    assert "has done nothing: luod has another runtime directory" in reason(Via.DIRECT, Machine(), directory)


def test_by_way_of_systemd_its_refusal_is_the_reason(systemctl, directory):
    systemctl(REFUSES)
    assert reason(Via.SYSTEMD, Machine(), directory).endswith("Operation denied due to active block inhibitor")


def test_by_way_of_systemd_it_is_over_once_systemd_goes(systemctl, directory, monkeypatch):
    monkeypatch.setattr(going, "_PAUSE", 0.0)
    systemctl(GOES)
    depart(Via.SYSTEMD, Machine(), directory)
    assert (directory.parent / "asked").read_text().split() == ["kexec", *["is-system-running"] * 3]


def test_by_way_of_systemd_it_comes_back_where_logind_agrees_and_nothing_follows(systemctl, directory, monkeypatch):
    monkeypatch.setattr(going, "DELAY", 0.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    systemctl("#!/bin/sh\necho running\n")
    assert "hasn't begun for 0 s" in reason(Via.SYSTEMD, Machine(), directory)


def test_by_way_of_systemd_nobody_goes_without_a_kernel_or_without_systemd(systemctl, directory, monkeypatch, tmp_path):
    monkeypatch.setattr("luod.kernel.running.RunningKernel.an_image_is_loaded", lambda self: False)
    assert reason(Via.SYSTEMD, Machine(), directory) == "no kernel is loaded"
    monkeypatch.setattr(systemd, "_SYSTEMD_RUNS", tmp_path / "not there")
    assert reason(Via.SYSTEMD, Machine(), directory) == "there is no systemd here; use direct"


def test_a_simulated_kernel_goes_by_itself_and_never_by_way_of_systemd(systemctl, directory):
    systemctl("#!/bin/sh\nexit 1\n")
    assert "no kernel is loaded" in reason(Via.DIRECT, Machine(simulated=True, errno=22), directory)
    assert reason(Via.SYSTEMD, Machine(simulated=True), directory) == "a simulated kernel has no systemd; use direct"
