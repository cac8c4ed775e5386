"""luod as a process: how it starts, stops and is killed, and what it says of it."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from eventually import within
from luod.client import connect
from luod.errors import SessionNotFound
from luod.manifest import Document
from memory import content, memfd
from running import luod_running


def luod(*arguments, **environment):
    """Run luod to its end."""
    return subprocess.run(
        [sys.executable, "-m", "luod", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | environment,
    )


@contextmanager
def client_that(does, socket):
    """A client process that has done something and lives on; killed at the end, if not before."""
    code = f"import os, sys\nfrom luod.client import connect\nluod = connect().__enter__()\n{does}\n"
    code += "print('done', flush=True)\nsys.stdin.read()\n"
    environment = os.environ | {"LUOD_SOCKET": socket}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        try:
            assert process.stdout.readline() == b"done\n"
            yield process
        finally:
            process.kill()


PRESERVES = """
fd = os.memfd_create("guest")
os.write(fd, b"guest memory")
luod.create("vm")
luod.preserve("vm", fd, token=3)
"""


def test_a_client_that_is_killed_gets_its_descriptors_back(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "run") as path:
        with client_that(PRESERVES, path) as client:
            client.kill()
            client.wait()
        with connect(path) as luod, luod.retrieve("vm")[3] as back:
            assert content(back) == b"guest memory"


def test_what_was_acknowledged_outlives_everything_but_the_kernel(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "run") as path, client_that(PRESERVES, path):
        sim.kexec()
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as luod:
        assert luod.find("vm").direction == "incoming"
        with luod.retrieve("vm")[3] as back:
            assert content(back) == b"guest memory"
        luod.finish("vm")


def test_a_delegated_session_outlives_a_luod_that_is_stopped_while_its_client_has_it(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as luod:
        _, session = luod.create_delegated("vm")
        name = session.get_name()
    assert [found.name for found in sim.state().sessions] == [name]
    session.give_up()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_it_is_told_to_and_leaves_no_socket(sim, tmp_path, how):
    command = ["--socket", tmp_path / "io.luod", "--device", sim.path, "--runtime-directory", tmp_path]
    with subprocess.Popen(
        [sys.executable, "-m", "luod", *map(str, command)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert "listening on" in process.stderr.readline()
        process.send_signal(how)
        process.stderr.read()
    assert process.returncode == 0
    assert not (tmp_path / "io.luod").exists()


def test_the_readable_copy_tells_what_was_held_when_luod_is_killed(sim, tmp_path):
    copy = tmp_path / "run" / "manifest.json"
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as luod, memfd(b"12345") as fd:
        luod.create("ram", labels={"stage": "1"})
        luod.preserve("ram", fd, token=9, name="state")
        within(60, lambda: copy.exists() and "state" in copy.read_text())
    document = Document.read(copy.read_bytes())
    (session,) = document.sessions
    assert (session.name, session.labels) == ("ram", {"stage": "1"})
    assert [(file.token, file.name, file.size) for file in session.files.values()] == [(9, "state", 5)]
    assert copy.stat().st_mode & 0o007 == 0


def test_a_second_luod_on_the_same_kernel_is_refused_and_harms_nothing(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as client, memfd() as fd:
        client.create("ram")
        client.preserve("ram", fd)
        ran = luod("--device", sim.path, "--socket", tmp_path / "other", "--runtime-directory", tmp_path)
        assert ran.returncode == 1
        assert (
            ran.stderr
            == "luod: another luod holds the manifest in this kernel: stop it first, or use another --device\n"
        )
        client.retrieve("ram")[0].close()


def test_a_device_that_is_not_there_is_named(tmp_path):
    device = tmp_path / "sim"
    ran = luod("--device", device, "--socket", tmp_path / "luod", "--runtime-directory", tmp_path)
    assert ran.returncode == 1
    assert ran.stderr == f"luod: {device}: there is no such device, nor a simulated kernel\n"


def test_a_socket_that_somebody_listens_on_is_left_alone(sim, tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "io.luod"))
        other.listen()
        ran = luod("--device", sim.path, "--socket", tmp_path / "io.luod", "--runtime-directory", tmp_path)
    assert ran.returncode == 1
    assert ran.stderr == f"luod: {tmp_path / 'io.luod'}: another luod listens there\n"


def test_a_socket_that_nobody_listens_on_is_replaced(sim, tmp_path):
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "run" / "io.luod"))
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as client:
        assert client.list() == []


def test_what_is_no_socket_is_never_removed(sim, tmp_path):
    precious = tmp_path / "io.luod"
    precious.write_text("precious")
    ran = luod("--device", sim.path, "--socket", precious, "--runtime-directory", tmp_path)
    assert (ran.returncode, precious.read_text()) == (1, "precious")
    assert ran.stderr == f"luod: {precious}: something else than a socket is there\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour = 'red'", "1: colour: there is no such setting"),
        ("[limits]\nconections = 7", "2: limits.conections: there is no such setting, did you mean 'connections'?"),
        ("socket = ", "1: invalid value, at the end"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_the_reason(tmp_path, text, complaint):
    config = tmp_path / "luod.toml"
    config.write_text(text)
    for arguments in ([], ["--check-config"]):
        ran = luod("--config", config, *arguments)
        assert (ran.returncode, ran.stderr) == (1, f"luod: {config}:{complaint}\n")


def test_a_configuration_that_is_right_can_be_checked_without_a_luod(tmp_path):
    config = tmp_path / "luod.toml"
    config.write_text("device = '/no/such/device'")
    ran = luod("--config", config, "--check-config")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_configuration_that_is_not_there_is_refused(tmp_path):
    ran = luod("--config", tmp_path / "none.toml")
    assert (ran.returncode, ran.stderr) == (1, f"luod: {tmp_path / 'none.toml'}: No such file or directory\n")


def test_a_service_manager_is_told_when_luod_is_ready_and_when_it_stops(sim, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        command = ["--socket", tmp_path / "io.luod", "--device", sim.path, "--runtime-directory", tmp_path]
        with subprocess.Popen(
            [sys.executable, "-m", "luod", *map(str, command)],
            stderr=subprocess.DEVNULL,
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
        ) as process:
            assert manager.recv(4096).splitlines() == [b"READY=1", b"STATUS=generation 0, 0 sessions, 0 files"]
            process.terminate()
            assert manager.recv(4096) == b"STOPPING=1"


ACTIVATED = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "varlink"}
os.execv(sys.executable, [sys.executable, "-m", "luod", *sys.argv[2:]])
"""


def test_a_socket_that_is_handed_over_is_served_and_left_in_place(sim, tmp_path):
    path = str(tmp_path / "activated")
    options = ["--socket", tmp_path / "unused", "--device", sim.path, "--runtime-directory", tmp_path]
    with subprocess.Popen(
        [sys.executable, "-c", ACTIVATED, path, *map(str, options)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert "listening" in process.stderr.readline()
        with connect(path) as client, pytest.raises(SessionNotFound):
            client.retrieve("nothing")
        process.terminate()
        process.stderr.read()
    assert os.path.exists(path)
    assert not (tmp_path / "unused").exists()


COMPLAINT = "the service manager announced descriptors that are not there"


def test_a_socket_that_is_announced_but_not_there_is_refused(sim, tmp_path):
    code = 'import os, sys; os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}; '
    code += 'os.execv(sys.executable, [sys.executable, "-m", "luod", "--device", sys.argv[1]])'
    ran = subprocess.run([sys.executable, "-c", code, sim.path], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (1, f"luod: {COMPLAINT}: [Errno 9] Bad file descriptor\n")


def test_without_live_update_it_serves_and_tells_why_it_can_do_nothing(sim, tmp_path):
    sim.kexec(open_error=errno.ENOENT)
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as client:
        status = client.status()
        assert status.phase == "unavailable"
        assert "liveupdate=on" in status.device["reason"]


def test_the_status_is_an_object_that_a_program_reads(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "run") as path, connect(path) as client, memfd(b"x" * 100) as fd:
        client.create("ram")
        client.preserve("ram", fd)
        status = json.loads(json.dumps(client.status().wire()))
        assert (status["phase"], status["sessions"], status["files"], status["bytes"]) == ("idle", 1, 1, 100)
        assert status["device"] == {"path": sim.path, "available": True}
