"""`python -m luod.sim`: where it listens, how it ends, and its commands."""

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from luod.kernel.api import Call, KernelError
from luod.kernel.find import kernel_at
from luod.sim.__main__ import main
from luod.sim.client import Control, SimKernel
from luod.sim.process import simulator


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "sim")


@pytest.fixture
def running(path):
    with simulator(path) as control:
        yield control


def start(path, **environment):
    arguments = ["--socket", path] if path else []
    return subprocess.Popen(
        [sys.executable, "-m", "luod.sim", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_leaves_nothing_behind(path, number):
    with start(path) as process:
        assert process.stdout.readline() == f"listening on {path}\n"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        device = SimKernel(path).open()
        session = device.create_session("held")
        process.send_signal(number)
        assert process.communicate() == ("", "")
        assert process.returncode == 0
    session.give_up()
    device.close()
    assert not os.path.exists(path)


def test_it_listens_in_the_runtime_directory_by_default(tmp_path):
    with start(None, XDG_RUNTIME_DIR=str(tmp_path)) as process:
        assert process.stdout.readline() == f"listening on {tmp_path}/luod/sim.sock\n"
        process.terminate()


def test_a_stale_socket_is_replaced(path):
    with simulator(path), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.connect(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(path)
    with simulator(path):
        kernel_at(path).open().close()


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_a_socket_that_somebody_listens_at_is_left_alone(path, kind):
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(path)
        other.listen()
        with start(path) as process:
            assert process.communicate() == ("", f"another process listens at {path}\n")
            assert process.returncode == 1
    assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_left_alone(path):
    with open(path, "w", encoding="ascii") as file:
        file.write("precious")
    with start(path) as process:
        assert process.communicate()[1] == f"python -m luod.sim: {path}: Address already in use\n"
        assert process.returncode == 1
    with open(path, encoding="ascii") as file:
        assert file.read() == "precious"


def test_a_socket_that_is_not_its_own_any_more_is_left_alone(path):
    with simulator(path):
        os.unlink(path)
        with simulator(path) as second:
            pass
        with open(path, "xb"):
            pass
    assert os.path.exists(second.path)


def test_a_simulator_that_does_not_start_is_reported(tmp_path, capfd):
    with pytest.raises(RuntimeError, match="no simulated kernel at"), simulator(tmp_path):
        pass
    assert "Address already in use" in capfd.readouterr().err


def test_state_is_printed_as_json(running, capsys):
    with SimKernel(running.path).open() as device:
        session = device.create_session("a")
        assert main(["state", "--socket", running.path]) == 0
        session.give_up()
    state = json.loads(capsys.readouterr().out)
    assert state["opened"] is True
    assert state["sessions"] == [{"name": "a", "direction": "outgoing", "retrieved": False, "files": []}]


def test_the_socket_is_named_before_or_after_the_command(running):
    assert main(["--socket", running.path, "clear"]) == 0
    assert main(["clear", "--socket", running.path]) == 0


def test_kexec_starts_the_next_kernel(running):
    old = SimKernel(running.path).boot_id()
    assert main(["kexec", "--socket", running.path]) == 0
    assert SimKernel(running.path).boot_id() != old


def test_kexec_tells_how_the_next_device_fails(running):
    assert main(["kexec", "--no-carry", "--open-error", "EIO", "--socket", running.path]) == 0
    with pytest.raises(KernelError) as caught:
        SimKernel(running.path).open()
    assert (caught.value.call, caught.value.errno) == (Call.OPEN, errno.EIO)


def test_a_fault_is_planned_and_cleared(running):
    assert main(["fault", "CREATE_SESSION", "ENOMEM", "--nth", "2", "--socket", running.path]) == 0
    with SimKernel(running.path).open() as device:
        device.create_session("a").give_up()
        with pytest.raises(KernelError) as caught:
            device.create_session("a")
        assert caught.value.errno == errno.ENOMEM
        main(["fault", "CREATE_SESSION", "ENOMEM", "--socket", running.path])
        main(["delay", "CREATE_SESSION", "3600", "--socket", running.path])
        main(["clear", "--socket", running.path])
        device.create_session("a").give_up()


def test_a_call_that_there_is_not_is_refused(running, capsys):
    assert main(["fault", "REBOOT", "ENOMEM", "--socket", running.path]) == 1
    assert capsys.readouterr().err == f"python -m luod.sim: {running.path}: Invalid argument\n"


def test_an_errno_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["fault", "FINISH", "ENOSUCH"])
    assert "ENOSUCH is no errno's name" in capsys.readouterr().err


def test_a_command_without_a_simulator_says_so(path, capsys):
    assert main(["state", "--socket", path]) == 1
    assert capsys.readouterr().err == f"python -m luod.sim: {path}: No such file or directory\n"


def test_there_is_no_device_where_no_simulator_listens(path):
    with pytest.raises(KernelError) as caught:
        SimKernel(path).open()
    assert (caught.value.call, caught.value.errno) == (Call.OPEN, errno.ENOENT)
    with pytest.raises(FileNotFoundError):
        Control(path).state()
