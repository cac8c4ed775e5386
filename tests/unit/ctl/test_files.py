"""luoctl preserve, retrieve, unpreserve: what was in a file comes back, and nothing else is touched."""

import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from luod.client import connect
from luod.ctl.command import Failed
from luod.ctl.processes import descriptor_of
from memory import content, memfd, memfds

from .conftest import LUOCTL
from .terminal import on_a_terminal

LARGE = os.urandom((3 << 20) + 17)


@pytest.fixture
def box(luoctl, luod):
    """The name of an empty session of this test's own."""
    luoctl("create", "box")
    yield "box"
    luoctl("discard", "box")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "checkpoint.img"
    path.write_bytes(LARGE)
    return str(path)


def files_of(name):
    with connect() as luod:
        return [(file.token, file.name, file.size) for file in luod.find(name).files]


def content_of(name, token):
    with connect() as luod, luod.retrieve(name, [token])[token] as memory:
        return content(memory)


def test_a_file_is_preserved_under_its_own_name(luoctl, box, file):
    ran = luoctl("preserve", box, file)
    assert (ran.status, ran.out) == (0, f"preserved {file} in box as token 0: 3.0 MiB\n")
    assert files_of(box) == [(0, "checkpoint.img", len(LARGE))]
    assert content_of(box, 0) == LARGE


def test_its_owner_chooses_token_and_name(luoctl, box, file):
    luoctl("preserve", box, file, "--token", "12", "--name", "my checkpoint")
    assert files_of(box) == [(12, "my checkpoint", len(LARGE))]
    ran = luoctl("preserve", box, file, "--token", "12")
    why = "session 'box' has a file with token 12 already; leave --token out, and a free one is chosen"
    assert (ran.status, ran.err) == (1, f"luoctl: {why}\n")


def test_a_name_that_luod_would_not_take_is_left_out(luoctl, box, tmp_path):
    path = tmp_path / ("x" * 65)
    path.write_text("content")
    luoctl("preserve", box, str(path))
    assert files_of(box) == [(0, None, 7)]


@pytest.mark.parametrize("words", [["-"], []])
def test_standard_input_is_preserved(luoctl_process, box, words):
    ran = luoctl_process("preserve", box, *words, stdin="from a pipe")
    assert ran.out == "preserved standard input in box as token 0: 11 B\n"
    assert content_of(box, 0) == b"from a pipe"


def test_standard_input_is_preserved_from_where_it_stands(box, file):
    with open(file, "rb") as source:
        os.lseek(source.fileno(), 1 << 20, os.SEEK_SET)
        subprocess.run([*LUOCTL, "preserve", box], stdin=source, stdout=subprocess.DEVNULL, check=True)
    assert content_of(box, 0) == LARGE[1 << 20 :]


def test_on_a_terminal_it_says_what_can_be_named(box):
    shown = on_a_terminal(200, "preserve", box)
    assert shown.status == 2
    assert shown.text == ("luoctl: there is nothing to preserve: name a FILE, --fd or --pid (see luoctl preserve -h)\n")


def test_inherited_memory_is_preserved_itself(luoctl, box):
    with memfd(b"before") as memory:
        ran = luoctl("preserve", box, "--fd", str(memory.fileno()))
        assert ran.out == f"preserved descriptor {memory.fileno()} in box as token 0: 6 B\n"
        os.pwrite(memory.fileno(), b"after ", 0)
        assert files_of(box) == [(0, "test", 6)]
        assert content_of(box, 0) == b"after "
        again = luoctl("preserve", box, "--fd", str(memory.fileno()))
        assert again.err.startswith(f"luoctl: descriptor {memory.fileno()} is preserved already; ")


def test_memory_of_another_process_is_preserved_itself(luoctl, box):
    script = (
        "import os, sys; fd = os.memfd_create('guest', 0x10); os.write(fd, b'theirs'); print(fd, flush=True); input()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        number = process.stdout.readline().strip()
        ran = luoctl("preserve", box, "--pid", str(process.pid), "--remote-fd", number)
        missing = luoctl("preserve", box, "--pid", str(process.pid), "--remote-fd", "999")
        process.communicate("\n")
    assert ran.out == f"preserved descriptor {number} of process {process.pid} in box as token 0: 6 B\n"
    assert files_of(box) == [(0, "guest", 6)]
    why = f"process {process.pid} has no descriptor 999; see ls -l /proc/{process.pid}/fd"
    assert missing.err == f"luoctl: {why}\n"
    gone = luoctl("preserve", box, "--pid", str(process.pid), "--remote-fd", number)
    assert gone.err == f"luoctl: there is no process {process.pid}\n"


def test_a_thread_is_no_process(luoctl, box):
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    ran = luoctl("preserve", box, "--pid", str(thread.native_id), "--remote-fd", "0")
    ended.set()
    thread.join()
    assert ran.err == f"luoctl: {thread.native_id} is a thread: name its process\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without rights")
def test_whoever_may_not_trace_a_process_gets_nothing_of_it():
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no thread of this process has a lock
        child = os.fork()
    if not child:
        os.setresuid(65534, 65534, 65534)
        try:
            descriptor_of(os.getppid(), 0)
        except Failed as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1000).decode()
    os.close(reading)
    os.waitpid(child, 0)
    assert said == (
        f"process {os.getpid()} can't be asked: that takes the right to trace it (CAP_SYS_PTRACE); try it as root"
    )


def test_memory_that_is_not_for_luod_is_refused_with_a_reason(luoctl, box, file):
    with open(file, "rb") as source:
        ran = luoctl("preserve", box, "--fd", str(source.fileno()))
        what = f"descriptor {source.fileno()}"
    assert ran.status == 1
    assert ran.err.startswith(f"luoctl: {what} can't be preserved: it is not a memfd; ")
    with memfd(b"") as sparse:
        os.ftruncate(sparse.fileno(), 5000)
        ran = luoctl("preserve", box, "--fd", str(sparse.fileno()))
    assert ran.err.endswith(": it is sparse, fallocate it first: 5000 of its bytes have no memory\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has memory of others")
def test_memory_of_somebody_else_is_for_its_owner(luoctl, box):
    with memfd() as memory:
        os.fchown(memory.fileno(), 65533, 65533)
        ran = luoctl("preserve", box, "--fd", str(memory.fileno()))
    assert ran.err.endswith(": it belongs to uid 65533, not to uid 0; for that, add --owner 65533\n")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/nowhere/at/all", "can't read /nowhere/at/all: No such file or directory"),
        ("/", "can't copy / into memory: Is a directory"),
    ],
)
def test_what_can_not_be_read_is_not_preserved(luoctl, box, path, why):
    ran = luoctl("preserve", box, path)
    assert (ran.status, ran.err, files_of(box)) == (1, f"luoctl: {why}\n", [])


def test_nothing_is_copied_for_a_session_that_is_not_there(luoctl, luod, file):
    ran = luoctl("preserve", "no-such", "--token", "1", file)
    assert ran.status == 1
    assert ran.err.endswith(" has no session 'no-such'; see luoctl list\n")


def test_the_only_file_needs_no_token(luoctl_process, luoctl, box, file):
    luoctl("preserve", box, file, "--token", "5")
    ran = subprocess.run([*LUOCTL, "retrieve", box], capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, LARGE, b"")


def test_which_files_there_are_is_said_where_there_are_several(luoctl, luod):
    ran = luoctl("retrieve", "ram", "-o", "-")
    why = f"session 'ram' has 2 files, name one: 7 ([red]memory[/red]), {2**63 - 1}"
    assert (ran.status, ran.err) == (1, f"luoctl: {why}\n")
    ran = luoctl("retrieve", "ram", "9", "-o", "-")
    assert ran.err == f"luoctl: session 'ram' has no token 9; it has 7 ([red]memory[/red]), {2**63 - 1}\n"


def test_a_session_without_files_has_nothing_to_retrieve(luoctl, luod):
    assert luoctl("retrieve", "cache", "-o", "-").err == "luoctl: session 'cache' has no files\n"
    assert luoctl("retrieve", "cache", "--", "true").err == "luoctl: session 'cache' has no files\n"
    why = "session 'vm' is delegated; only its owner knows what is in it, luoctl claim vm -- COMMAND lends it"
    assert luoctl("retrieve", "vm", "-o", "-").err == f"luoctl: {why}\n"


def test_what_is_in_a_file_goes_into_one_that_is_the_callers_alone(luoctl, box, file, tmp_path):
    luoctl("preserve", box, file)
    there = tmp_path / "there"
    there.write_text("old")
    there.chmod(0o644)
    ran = luoctl("retrieve", box, "0", "--output", str(there))
    assert (ran.status, ran.out) == (0, f"retrieved token 0 of box into {there}: 3.0 MiB\n")
    assert there.read_bytes() == LARGE
    assert there.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(luoctl, box, file, tmp_path):
    luoctl("preserve", box, file)
    (tmp_path / "link").symlink_to("elsewhere")
    luoctl("retrieve", box, "--output", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == LARGE


def test_a_file_that_has_no_room_is_as_it_was(luoctl, box, file, tmp_path):
    luoctl("preserve", box, file)
    there = tmp_path / "place" / "there"
    there.parent.mkdir()
    there.write_text("old")
    limited = f"ulimit -f 4000; exec {' '.join(LUOCTL)} retrieve box -o {there}"  # no file may be larger than 2 MiB
    ran = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, f"luoctl: can't write {there}: File too large\n")
    assert [(path.name, path.read_text()) for path in there.parent.iterdir()] == [("there", "old")]


def test_what_is_no_regular_file_is_written_to_as_it_is(luoctl, box, file, tmp_path):
    luoctl("preserve", box, file)
    ran = luoctl("retrieve", box, "--output", "/dev/full")
    assert (ran.status, ran.err) == (1, "luoctl: can't write /dev/full: No space left on device\n")
    assert luoctl("retrieve", box, "--output", os.devnull).status == 0
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([*LUOCTL, "retrieve", box, "-o", fifo], stdout=subprocess.DEVNULL):
        assert fifo.read_bytes() == LARGE


def test_a_terminal_is_spared_unless_it_is_named(luod, luoctl, box, tmp_path):
    (tmp_path / "words").write_text("words\n")
    luoctl("preserve", box, str(tmp_path / "words"))
    shown = on_a_terminal(200, "retrieve", box)
    assert shown.status == 2
    assert shown.text == (
        "luoctl: this is a terminal: name --output FILE, or --output - to see it here (see luoctl retrieve -h)\n"
    )
    assert on_a_terminal(80, "retrieve", box, "-o", "-").text == "words\n"


def test_retrieving_leaves_the_position_that_others_share(luoctl, box):
    with memfd(b"content") as memory:
        os.lseek(memory.fileno(), 3, os.SEEK_SET)
        luoctl("preserve", box, "--fd", str(memory.fileno()))
        luoctl("retrieve", box, "-o", os.devnull)
        assert os.lseek(memory.fileno(), 0, os.SEEK_CUR) == 3


def test_a_command_gets_the_files_in_the_order_of_their_tokens(luoctl_process, box):
    with connect() as luod, memfds(b"seven", b"three", b"five") as (seven, three, five):
        luod.preserve(box, seven, 7, "a:b")  # systemd wouldn't take that for a name
        luod.preserve(box, three, 3, "two words")
        luod.preserve(box, five, 5)
        for memory in (seven, three, five):
            os.lseek(memory.fileno(), 0, os.SEEK_SET)
    script = "echo $LISTEN_FDS:$LISTEN_FDNAMES; test $LISTEN_PID = $$ && cat /dev/fd/3 /dev/fd/4 /dev/fd/5"
    ran = luoctl_process("retrieve", box, "--", "sh", "-c", script)
    assert (ran.status, ran.out, ran.err) == (0, "3:two words:5:7\nthreefiveseven", "")
    ran = luoctl_process("retrieve", box, "7", "5", "--", "sh", "-c", "echo $LISTEN_FDNAMES")
    assert ran.out == "5:7\n"


def test_a_command_ignores_no_signal_that_only_python_ignores(luoctl_process, box, file):
    luoctl_process("preserve", box, file)
    ran = luoctl_process("retrieve", box, "--", "grep", "SigIgn", "/proc/self/status")
    ignored = int(ran.out.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


def test_a_command_without_room_for_all_files_is_not_run(box):
    with connect() as luod, memfds(*[b"x"] * 20) as files:
        for file in files:
            luod.preserve(box, file)
    limited = f"ulimit -n 30; exec {' '.join(LUOCTL)} retrieve box -- true"
    ran = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == "luoctl: there is no room for 20 descriptors: raise the limit (ulimit -n)\n"


def test_unpreserve_says_what_will_be_gone_and_asks(luoctl, box, file):
    luoctl("preserve", box, file, "--token", "4")
    luoctl("preserve", box, file, "--token", "8")
    shown = on_a_terminal(80, "unpreserve", box, "8", "4", typed="n\n")
    assert shown.text == (
        "n\n2 files, 6.0 MiB, will be gone. Nobody has retrieved them.\n"
        "Unpreserve tokens 4, 8 of box? [y/N] luoctl: nothing was done\n"
    )
    ran = luoctl("unpreserve", box, "4")
    assert (
        ran.out
        == "unpreserved token 4 of box: 1 file, 3.0 MiB; the kernel may keep the memory until the session ends\n"
    )
    assert luoctl("unpreserve", box, "8").out == "unpreserved token 8 of box: 1 file, 3.0 MiB\n"
    assert luoctl("unpreserve", box, "8").err == "luoctl: session 'box' has no token 8; see luoctl show box\n"
