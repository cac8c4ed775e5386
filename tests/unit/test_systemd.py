"""luod and the service manager: sockets handed over, readiness, the log, units."""

import errno
import os
import socket
import subprocess
import sys
import textwrap
from contextlib import ExitStack

import pytest

from luod.errors import KernelFailed, QuotaExceeded
from luod.systemd import FdStore, Handed, listen_fds, logs_to_journal, notify, unit_of, watchdog_seconds
from manager import service_manager
from memory import content, memfd, memfds


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


# The fd store


@pytest.fixture
def keeper():
    with service_manager(most=4) as manager:
        yield manager


@pytest.fixture
def store(keeper):
    store = FdStore(keeper.address, keeper.most)
    yield store
    store.close()


def contents(handed):
    """What is in the files that were handed over, by name; they are closed."""
    found = {}
    for name, fd in handed:
        with fd:
            found.setdefault(name, []).append(content(fd))
    return list(found.values())


def test_what_is_put_in_is_handed_over(keeper, store):
    with memfds(b"one", b"two", b"three") as (one, two, three):
        store.put(one.fileno())
        store.put(two.fileno(), three.fileno())
    assert contents(keeper.handed()) == [[b"one"], [b"two", b"three"]]
    assert len(store) == 3


def test_names_are_short_and_are_known_as_ours(keeper, store):
    with memfd() as fd:
        store.put(fd.fileno())
        store.remove(fd.fileno())
        store.put(fd.fileno())
    (entry,) = keeper.handed()
    with entry.fd:
        assert len(entry.name) <= 4
        assert entry.is_kept
        assert not Handed("luod.socket", entry.fd).is_kept


def test_what_is_removed_is_closed_when_it_returns(keeper, store):
    ours, theirs = socket.socketpair()
    with theirs:
        store.put(ours.fileno())
        store.remove(ours.fileno())
        ours.close()
        assert theirs.recv(1, socket.MSG_DONTWAIT) == b""  # nobody else has it
    assert keeper.names == []
    assert len(store) == 0


def test_what_was_put_in_together_is_removed_together(keeper, store):
    with memfds(b"one", b"two", b"three") as (one, two, three):
        store.put(one.fileno(), two.fileno())
        store.put(three.fileno())
        store.remove(one.fileno())
    assert contents(keeper.handed()) == [[b"three"]]


def test_removing_what_was_never_put_in_does_nothing(store):
    with memfd() as fd:
        store.remove(fd.fileno())
        store.remove()


def test_more_than_there_is_room_for_is_refused_for_nobody_would_say_so(keeper, store):
    with memfd() as fd:
        for _ in range(2):
            with fd.duplicate() as one, fd.duplicate() as other:
                store.put(one.fileno(), other.fileno())
        with pytest.raises(QuotaExceeded) as caught:
            store.put(fd.fileno())
    assert (caught.value.quota, caught.value.limit) == ("fd store entries", 4)
    assert len(keeper.names) == 4


def test_what_was_there_before_counts_and_can_be_removed(keeper, store):
    with memfds(b"one", b"two") as (one, two):
        store.put(one.fileno())
        store.put(two.fileno())
    later, handed = keeper.store()
    assert len(later) == 2
    with memfds(b"three", b"four", b"five") as (three, four, five):
        later.put(three.fileno(), four.fileno())
        with pytest.raises(QuotaExceeded):
            later.put(five.fileno())
        later.remove(handed[0].fd.fileno())
        later.put(five.fileno())
    for entry in handed:
        entry.fd.close()
    later.close()
    assert contents(keeper.handed()) == [[b"two"], [b"three", b"four"], [b"five"]]


def test_a_number_that_was_closed_here_is_another_descriptors(keeper, store):
    with memfds(b"one", b"two") as (one, two):
        store.put(one.fileno(), two.fileno())
    next_store, ((_, one), (_, two)) = keeper.store()
    with one, two:
        next_store.closing(two.fileno())
        next_store.remove(two.fileno())
        assert len(keeper.names) == 2
        next_store.remove(one.fileno())
        assert keeper.names == []
    next_store.close()


def test_a_name_is_taken_once_among_thousands(monkeypatch):
    with service_manager(most=3000) as manager:
        store = FdStore(manager.address, manager.most)
        with memfd() as fd:
            fds = [fd.duplicate() for _ in range(900)]
            for each in fds:
                store.put(each.fileno())
            names = manager.names
            assert len(set(names)) == 900
            assert max(map(len, names)) <= 4
            store.remove(*(each.fileno() for each in fds))
            assert manager.names == []
            for each in fds:
                each.close()
        store.close()


def test_a_descriptor_that_cannot_be_sent_is_an_error_and_takes_no_room(store):
    with pytest.raises(KernelFailed) as caught:
        store.put(987654)
    assert (caught.value.call, caught.value.errno) == ("FDSTORE", errno.EBADF)
    assert len(store) == 0


@pytest.mark.warns("the service manager may keep what is over")
def test_a_manager_that_has_gone_is_an_error_for_what_must_be_kept(tmp_path):
    with service_manager() as manager:
        store = FdStore(manager.address, manager.most)
        fd = memfd()
        store.put(fd.fileno())
    for act in (store.barrier, lambda: store.put(0)):
        with pytest.raises(KernelFailed, match=r"ECONNREFUSED|ENOTCONN"):
            act()
    store.remove(fd.fileno())
    fd.close()
    store.close()


def fill(store, fd):
    with ExitStack() as stack:
        while True:
            store.put(stack.enter_context(fd.duplicate()).fileno())


def test_a_manager_that_does_not_listen_is_waited_for_only_so_long(monkeypatch, tmp_path):
    monkeypatch.setattr("luod.systemd.PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        store = FdStore(str(tmp_path / "notify"), 5000)
        with pytest.raises(KernelFailed, match="ETIMEDOUT"):
            store.barrier()
        with memfd() as fd, pytest.raises(KernelFailed, match="ETIMEDOUT"):
            fill(store, fd)
        store.close()


@pytest.mark.parametrize(
    "environment", [{}, {"NOTIFY_SOCKET": "@x"}, {"NOTIFY_SOCKET": "@x", "FDSTORE": "?"}, {"FDSTORE": "9"}]
)
def test_without_a_store_nothing_is_kept_and_nothing_fails(monkeypatch, environment):
    for name in ("NOTIFY_SOCKET", "FDSTORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = FdStore.of_environment()
    store.put(0)
    store.room_for(10**9)
    store.remove(0)
    store.barrier()
    assert (len(store), store.most) == (0, 0)


def test_the_store_of_the_environment_is_the_managers(monkeypatch, keeper):
    monkeypatch.setenv("NOTIFY_SOCKET", keeper.address)
    monkeypatch.setenv("FDSTORE", "17")
    store = FdStore.of_environment()
    with memfd(b"kept") as fd:
        store.put(fd.fileno())
    assert contents(keeper.handed()) == [[b"kept"]]
    assert store.most == 17
    store.close()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_heard_of_by_whom_it_is_for(monkeypatch, environment, seconds):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert watchdog_seconds() == seconds
