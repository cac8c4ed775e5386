"""luod and the service manager: sockets handed over, readiness, the log, units."""

import errno
import os
import socket
import subprocess
import sys
import textwrap

import pytest

from luod.systemd import listen_fds, logs_to_journal, notify, unit_of


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """A service manager's notification socket."""
    path = str(tmp_path / "notify") if request.param == "path" else f"\0luod-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path.replace("\0", "@"))
        yield sock


def test_the_manager_is_told_in_one_message(manager):
    assert notify("READY=1", "STATUS=all is well")
    assert manager.recv(1000) == b"READY=1\nSTATUS=all is well"


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_there_is_nobody_to_tell(monkeypatch, address):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.warns("can't be told READY=1: [Errno 2]")
def test_a_manager_that_is_gone_is_noted(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1", "STATUS=all is well")


def handed_over(count, names, *, pid=None, how_many=None):
    """What a process that was started with `count` descriptors finds, run twice."""
    code = f"""
        import os, sys
        for number in range({count}):
            os.dup2(0, 3 + number, inheritable=True)
        os.environ.update(LISTEN_PID=str({pid} or os.getpid()), LISTEN_FDS={str(how_many or count)!r})
        names = {names!r}
        if names is not None:
            os.environ["LISTEN_FDNAMES"] = names
        from luod.systemd import listen_fds
        try:
            found = listen_fds()
        except OSError as error:
            sys.exit(f"errno {{error.errno}}")
        print([(name, fd.fileno(), os.get_inheritable(fd.fileno())) for name, fd in found])
        print(listen_fds(), [key for key in os.environ if key.startswith("LISTEN_")])
        for _, fd in found:
            fd.close()
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.splitlines() or ran.stderr.strip()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("a:b", ["a", "b"]),
        ("a", ["a", "unknown"]),
        ("a:b:c", ["a", "b"]),
        ("a:", ["a", ""]),
        ("", ["unknown", "unknown"]),
        (None, ["unknown", "unknown"]),
    ],
)
def test_descriptors_are_taken_once_with_their_names_and_kept_from_children(names, expected):
    found = [(name, number, False) for number, name in enumerate(expected, 3)]
    assert handed_over(2, names) == [repr(found), "[] []"]


@pytest.mark.parametrize("how_many", ["0", "-1", "x", "1.5", "²", " 2"])
def test_a_count_that_is_none_brings_nothing(how_many):
    assert handed_over(2, "a:b", how_many=how_many) == ["[]", "[] []"]


def test_another_processs_descriptors_are_left_alone():
    assert handed_over(2, "a:b", pid=1) == ["[]", "[] []"]


def test_descriptors_that_are_not_there_are_an_error():
    assert handed_over(1, "a", how_many=10**9) == f"errno {errno.EBADF}"


def test_without_the_variables_nothing_was_handed_over(monkeypatch):
    for key in ("PID", "FDS", "FDNAMES"):
        monkeypatch.delenv(f"LISTEN_{key}", raising=False)
    assert listen_fds() == []


def test_the_log_goes_to_the_journal_where_the_journal_is_stderr(monkeypatch):
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert logs_to_journal()
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
    assert not logs_to_journal()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not logs_to_journal()


def test_without_stderr_there_is_no_journal():
    code = "import os; os.close(2); from luod.systemd import logs_to_journal; raise SystemExit(logs_to_journal())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


CGROUPS = {
    "0::/system.slice/luod.service\n": "luod.service",
    "0::/init.scope\n": "init.scope",
    "0::/\n": None,
    "": None,
    "0::/user.slice/user-1.slice/user@1.service/app.slice/vm@2.service\n": "vm@2.service",
    "0::/machine.slice/libvirt-qemu.scope/emulator\n": "libvirt-qemu.scope",
    "0::/system.slice\n": None,
    "0::/x.services/y.scopes\n": None,
    "12:pids:/system.slice/a.service\n1:name=systemd:/system.slice/a.service\n0::/a.service\n": "a.service",
    "0::/system.slice/dev-disk\\x2dx.service\n": "dev-disk\\x2dx.service",
    "0::/system.slice/\xff.service\n": None,
    "0::/system.slice/\x1b[31m.service\n": None,
    "0::/system.slice/good.service/b\x1bad.service\n": "good.service",
}


@pytest.mark.parametrize("cgroup", CGROUPS)
def test_the_unit_of_a_process_is_the_last_in_its_cgroups_path(tmp_path, cgroup):
    (tmp_path / "cgroup").write_bytes(cgroup.encode("latin-1"))
    assert unit_of(f"self/root{tmp_path}") == CGROUPS[cgroup]


def test_a_process_that_is_gone_has_no_unit():
    assert unit_of(2**22 + 1) is None
