"""`luod demo`, as somebody runs it: what it says is so, and nothing is left of it."""

import errno
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

import playing
from luod.client import connect
from luod.demo.ledger import Ledger
from luod.demo.reports import Event, Measured, Report
from luod.demo.screen import Bar, Doing, Screen
from luod.kernel.api import Call
from luod.sim.client import Control
from playing import lines_until
from running import luod_running

FILES = 105
"""One of the archive, a hundred of the cache, four of the virtual machine."""


@pytest.fixture
def place(tmp_path):
    """Where the demo makes its directory."""
    directory = tmp_path / "t"
    directory.mkdir()
    return directory


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"worth keeping" * 1000)
    return path


def demo(place, *arguments, **options):
    """Run the demo."""
    return playing.demo(place, "luod", "demo", *arguments, **options)


def test_everything_comes_back_and_nothing_is_left_behind(place, file):
    with demo(place, "--file", file, LUOD_SOCKET="/nowhere", NOTIFY_SOCKET="/nowhere") as process:
        said, complaints = process.communicate()
    assert said.splitlines()[-1] == f"{FILES} fds preserved, {FILES} retrieved, 0 lost"
    assert (process.returncode, complaints) == (0, "")
    for text in (
        "killed with SIGKILL; it had given luod supervise 10 fds to keep",
        "killed with SIGKILL, but luod has duplicates of its 100 fds",
        "kexec",
        "generation 1, 3 sessions",
        "holds 0 sessions",
        "Timeline",
        "Blackout",
    ):
        assert text in said
    assert said.count("are the same") == 5  # luod's and a client's who were killed, then those of all three
    assert f"the content of {file.name}" in said


def test_piped_it_is_plain_and_fits_80_columns(place, file):
    with demo(place, "--file", file, FORCE_COLOR="1", COLUMNS="200") as process:
        said, _ = process.communicate()
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert all(line == line.rstrip() for line in said.splitlines())


@pytest.mark.parametrize(("environment", "coloured"), [({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_if_it_wants_them(place, file, environment, coloured):
    ours, theirs = pty.openpty()
    with open(ours, "rb") as terminal, demo(place, "--file", file, stdout=theirs, TERM="xterm", **environment):
        os.close(theirs)
        said = b"".join(until_hangup(terminal))
    assert b"0 lost" in said
    assert (b"\x1b[" in said) == coloured


def until_hangup(terminal):
    with suppress(OSError):  # EIO: nobody has it open any more
        while data := os.read(terminal.fileno(), 4096):
            yield data


def test_without_utf8_it_is_ascii(place, file):
    with demo(place, "--file", file, PYTHONIOENCODING="ascii", PYTHONUTF8="0") as process:
        said, _ = process.communicate()
    assert said.isascii()
    assert process.returncode == 0


def test_without_a_file_it_carries_the_library_over(place):
    with demo(place) as process:
        said, _ = process.communicate()
    assert process.returncode == 0
    assert re.search(r"luod preserved 1 fd for it in .*: \d+\.\d MiB\n", said)


def test_a_descriptor_that_the_kernel_cannot_give_back_is_counted_as_lost(place, file):
    with demo(place, "--file", file) as process:
        lines_until(process, "a simulated Linux")
        (device,) = place.glob("luod-demo-*/kernel")
        Control(str(device)).fault(Call.RETRIEVE_FD, errno.ENOMEM, nth=9)  # the first one is luod's own manifest
        said = process.stdout.read()
    assert process.returncode == 1
    assert said.splitlines()[-1] == f"{FILES} fds preserved, {FILES - 1} retrieved, 1 lost"
    assert "ENOMEM" in said
    assert "The log of luod:" in said


def test_a_luod_that_comes_again_without_what_it_held_is_no_success(place, file):
    with demo(place, "--file", file) as process:
        lines_until(process, "a simulated Linux")
        (device,) = place.glob("luod-demo-*/kernel")
        Control(str(device)).fault(Call.GET_NAME, errno.EIO, nth=2)
        said = process.stdout.read()
    assert process.returncode == 1
    assert said.splitlines()[-1] == f"{FILES} fds preserved, 0 retrieved, {FILES} lost"
    assert "GET_NAME: EIO" in said
    assert "The log of luod:" in said


def test_a_client_that_fails_is_shown_with_its_log(place, file):
    with demo(place, "--file", file) as process:
        lines_until(process, "a simulated Linux")
        (device,) = place.glob("luod-demo-*/kernel")
        Control(str(device)).fault(Call.PRESERVE_FD, errno.ENOMEM, nth=50)
        said = process.stdout.read()
    assert process.returncode == 1
    assert re.search(r"\n +\d\.\d\d +\w+ +it ended with status 1\n", said)
    by_luod = r"(?P<who>\w+):\n  (?P=who): the kernel answered PRESERVE_FD with ENOMEM"
    by_the_kernel = r"vm:\n  vm: PRESERVE_FD: ENOMEM \(there is not enough memory to preserve it\)"
    assert re.search(rf"The log of ({by_luod}|{by_the_kernel})\n", said)
    assert re.search(r", 0 retrieved, \d+ lost$", said.rstrip())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["a simulated Linux", "killed with SIGKILL", "kexec"])
def test_a_signal_ends_it_cleanly_whenever_it_comes(place, file, number, status, moment):
    with demo(place, "--file", file) as process:
        lines_until(process, f" {moment}")
        process.send_signal(number)
        _, complaints = process.communicate()
    assert (process.returncode, complaints) == (status, "")


def test_a_reader_that_goes_away_ends_it(place, file):
    with demo(place, "--file", file) as process:
        lines_until(process, "a simulated Linux")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("path", "reason"), [("missing", "No such file"), ("", "not a regular file"), ("pipe", "not a regular file")]
)
def test_a_file_that_cannot_be_carried_over_is_refused(place, tmp_path, path, reason):
    os.mkfifo(tmp_path / "pipe")
    with demo(place, "--file", tmp_path / path) as process:
        said, complaints = process.communicate()
    assert (process.returncode, said) == (2, "")
    assert complaints.startswith(f"luod demo: {tmp_path / path}: {reason}")


def events(role, socket):
    """What a client reports that starts, and ends at once."""
    done = subprocess.run(
        [sys.executable, "-m", "luod.demo.clients", role],
        input="",
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LUOD_SOCKET": socket},
    )
    return [Report.model_validate_json(line).event for line in done.stdout.splitlines()]


STARTED_AFRESH = [Event.CONNECTED, Event.PREPARED, Event.PRESERVED]


def test_a_vm_that_crashed_before_a_live_update_starts_afresh(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "luod") as socket:
        assert events("vm", socket) == STARTED_AFRESH
        assert events("vm", socket) == STARTED_AFRESH


def test_a_cache_that_had_a_session_but_nothing_in_it_starts_afresh(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "luod") as socket, connect(socket) as luod:
        luod.create("cache")
        sim.kexec()
    with luod_running(sim.path, tmp_path / "luod") as socket:
        assert events("cache", socket) == STARTED_AFRESH
        assert events("cache", socket) == [Event.CONNECTED, Event.RETRIEVED, Event.MEASURED]


WAS = Measured(token=7, sha256="ab", size=10, position=5, seals=2)


def measured(*files, failed=None):
    return Report(event=Event.MEASURED, at=0.0, files=list(files), failed=failed or {})


@pytest.fixture
def ledger():
    ledger = Ledger()
    ledger.preserve("vm", [WAS])
    return ledger


def test_what_came_back_as_it_was_is_retrieved(ledger):
    assert ledger.check("vm", measured(WAS), after_kexec=True) == []
    assert ledger.nothing_lost
    assert ledger.total() == "1 fds preserved, 1 retrieved, 0 lost"


@pytest.mark.parametrize("change", [{"sha256": "cd"}, {"size": 11}, {"position": 0}, {"seals": 0}])
def test_what_came_back_changed_is_lost(ledger, change):
    (problem,) = ledger.check("vm", measured(WAS.model_copy(update=change)), after_kexec=True)
    assert problem.startswith(f"token 7 is lost: {next(iter(change))} is ")
    assert not ledger.nothing_lost
    assert ledger.total() == "1 fds preserved, 0 retrieved, 1 lost"


def test_what_did_not_come_back_is_lost(ledger):
    assert ledger.check("vm", measured(), after_kexec=True) == ["token 7 is lost: it didn't come back"]
    assert ledger.check("vm", measured(failed={7: "ENOMEM"}), after_kexec=True) == ["token 7 is lost: ENOMEM"]
    assert not ledger.nothing_lost


def test_what_was_changed_by_a_crash_stays_lost(ledger):
    ledger.check("vm", measured(), after_kexec=False)
    ledger.check("vm", measured(WAS), after_kexec=True)
    assert ledger.total() == "1 fds preserved, 0 retrieved, 1 lost"


def test_what_came_back_and_was_never_given_is_told(ledger):
    stranger = WAS.model_copy(update={"token": 8})
    assert ledger.check("vm", measured(WAS, stranger), after_kexec=True) == [
        "token 8 came back, but nobody preserved it"
    ]


def test_nothing_preserved_is_no_success():
    assert not Ledger().nothing_lost


def test_of_two_things_in_one_place_of_the_timeline_the_more_telling_is_seen(capsys):
    screen = Screen()
    begun = screen.begun
    parts = [(Doing.LUOD, begun + 0.5, begun + 0.501), (Doing.WORK, begun + 0.501, begun + 1)]
    screen.timeline([Bar("vm", "back", parts)], kexec=begun + 0.25)
    (bar,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("vm")]
    assert re.fullmatch(r"vm +back +│ +━─+ +0\.50 s", bar)
