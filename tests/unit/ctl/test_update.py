"""luoctl update, luoctl abort: what is seen of a live update, and every way that it ends."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from luod import errors
from luod.client import connect
from memory import memfd

from .conftest import LUOCTL
from .terminal import Screen, on_a_terminal

TWO = ("qemu of alice: no answer", "redis of bob: waits for those before it")
FAILED = {
    "name": "abi",
    "outcome": "fail",
    "detail": "the next kernel is a stranger",
    "remedy": "load another one",
    "loses": ["ram of alice: 2 files"],
}
PASSED = {"name": "device", "outcome": "pass", "detail": "it is there", "remedy": "not needed"}
WARNED = {"name": "owners", "outcome": "warn", "detail": "nobody asks redis", "remedy": "let it take part"}
STATUS = {
    "phase": "idle",
    "generation": 3,
    "kernel": {"release": "7.3.4"},
    "image": {"release": "7.3.5"},
    "sessions": 0,
    "files": 0,
    "bytes": 0,
    "device": {},
    "participants": [{"name": "qemu of alice", "stage": 2}],
}


def progress(phase, ready=0, *waiting, **more):
    until = time.time_ns() // 1000 + 30_000_000
    return {"phase": phase, "ready": ready, "waiting": list(waiting), "update": 4, "deadlineUSec": until} | more


def update(*steps, end=None):
    """What luod says of a live update, and the error that ends it: without one, the machine goes."""

    def start(conversation, parameters):
        for step in steps:
            conversation.says(step)
        if end is None:
            conversation.sock.shutdown(socket.SHUT_RDWR)
        else:
            conversation.refuses(end)

    return start


GOOD = [
    progress("preparing", 0, *TWO),
    progress("preparing", 1, "redis of bob: no answer", detail="stage 2"),
    progress("preparing", 2, detail="stage 2"),
    progress("ready", 2),
    progress("sealed", 2, detail="loading the kernel again"),
    progress("executing", 2),
]


class Interrupted:
    """A live update that goes on until it is aborted; `with_reason` is why."""

    def __init__(self, phase="preparing", refuses=None):
        self.has_begun = threading.Event()
        self.with_reason = None
        self._phase = phase
        self._refuses = refuses
        self._is_off = threading.Event()

    @property
    def script(self):
        return {"Start": self._start, "Abort": self._abort}

    def _start(self, conversation, parameters):
        if self._phase:
            conversation.says(progress(self._phase, 0, *TWO))
        self.has_begun.set()
        if self._refuses is not None:
            assert conversation.hear() is None
        elif self._is_off.wait(30):
            conversation.refuses(errors.UpdateAborted(self.with_reason))

    def _abort(self, conversation, parameters):
        self.with_reason = parameters["reason"]
        if self._refuses is not None:
            conversation.refuses(self._refuses)
        else:
            self._is_off.set()
            conversation.answers()


def the_rest(luoctl):
    """What it prints behind the lines that were read: communicate() knows nothing of what was read ahead of them."""
    return luoctl.stdout.read(), luoctl.stderr.read()


def lines_of(out):
    """The lines, without the time."""
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in out.splitlines())
    return [line[10:] for line in out.splitlines()]


def test_without_a_terminal_each_change_is_a_line(luoctl, scripted):
    scripted(Start=update(*GOOD))
    ran = luoctl("update")
    assert (ran.status, ran.err) == (0, "")
    first, *lines = lines_of(ran.out)
    assert re.fullmatch(r"preparing  live update 4, \d+ s left to get ready", first)
    assert lines == [
        "preparing  qemu of alice: no answer",
        "preparing  redis of bob: waits for those before it",
        "preparing  stage 2",
        "preparing  qemu of alice: ready",
        "preparing  redis of bob: no answer",
        "preparing  redis of bob: ready",
        "ready      all 2 who take part",
        "sealed     nothing that luod holds can change any more",
        "sealed     loading the kernel again",
        "executing  the machine is on its way",
        "gone       the machine goes into its next kernel",
    ]


def test_namesakes_are_told_apart(luoctl, scripted):
    one = "uid 0 (process 7): no answer"
    scripted(Start=update(progress("preparing", 0, one, one), progress("preparing", 1, one), progress("executing", 2)))
    assert lines_of(luoctl("update").out)[1:5] == [
        "preparing  uid 0 (process 7): no answer",
        "preparing  uid 0 (process 7): no answer",
        "preparing  uid 0 (process 7): ready",
        "executing  the machine is on its way",
    ]


def test_as_json_each_progress_is_a_line(luoctl, scripted):
    scripted(Start=update(*GOOD))
    ran = luoctl("update", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == GOOD


def test_what_is_asked_for_is_what_was_said(luoctl, scripted):
    luod = scripted(Start=update(*GOOD))
    luoctl("update")
    luoctl("update", "--via", "direct", "--deadline", "7", "--unready", "proceed")
    assert [call for call in luod.asked if call[0] == "Start"] == [
        ("Start", {"deadlineSec": 30, "unready": "abort"}),
        ("Start", {"via": "direct", "deadlineSec": 7, "unready": "proceed"}),
    ]


def in_boots(*boots):
    """What luod says of itself, in one boot after the other."""
    left = list(boots)

    def status(conversation, parameters):
        conversation.answers(STATUS | {"kernel": {"release": "7.3.4", "bootId": left.pop(0)}})

    return status


def test_a_luod_that_dies_on_its_way_out_does_not_go_and_that_is_said(luoctl, scripted):
    scripted(Start=update(*GOOD), Status=in_boots("one", "one"))
    ran = luoctl("update", "--via", "direct")
    assert (ran.status, ran.err) == (
        1,
        "luoctl: luod ended on the way out, so the machine didn't go: this is still the same kernel\n",
    )


def test_a_luod_in_the_next_kernel_is_a_good_end(luoctl, scripted):
    scripted(Start=update(*GOOD), Status=in_boots("one", "two"))
    assert luoctl("update", "--via", "direct").status == 0


def test_nobody_takes_part(luoctl, scripted):
    scripted(Start=update(progress("preparing"), progress("ready"), progress("executing")))
    assert lines_of(luoctl("update").out)[1] == "ready      nobody takes part"


def test_who_is_left_behind_is_named(luoctl, scripted):
    scripted(Start=update(progress("ready", 1, TWO[0]), progress("executing", 1, TWO[0])))
    ran = luoctl("update", "--unready", "proceed")
    assert lines_of(ran.out)[0] == "ready      1 of 2, going on without qemu of alice: no answer"


def test_an_update_that_is_off_is_1_and_says_why(luoctl, scripted):
    scripted(Start=update(GOOD[0], progress("idle"), end=errors.UpdateAborted("redis of bob: refused, a snapshot")))
    ran = luoctl("update")
    assert ran.status == 1
    assert ran.err == (
        "luoctl: the live update was aborted: redis of bob: refused, a snapshot; everything is as before\n"
    )
    assert "idle" not in ran.out


def test_a_luod_that_ends_before_the_machine_is_on_its_way_takes_the_update_off(luoctl, scripted):
    scripted(Start=update(*GOOD[:5]))
    ran = luoctl("update")
    assert (ran.status, ran.err) == (1, "luoctl: luod ended: the live update is off\n")


def test_a_reboot_that_comes_back_is_a_failure(luoctl, scripted):
    scripted(Start=update(*GOOD, end=errors.UpdateAborted("the kernel says EBUSY")))
    assert luoctl("update").status == 1


# What doesn't pass


def test_a_check_that_fails_is_shown_with_what_to_do(luoctl, scripted):
    scripted(Start=errors.PreflightFailed(["abi"]), Preflight={"checks": [PASSED, FAILED, WARNED]})
    ran = luoctl("update")
    assert ran.status == 1
    assert ran.err == ("luoctl: preflight failed: abi; do what the checks say, or lose what they name with --force\n")
    assert [line.split()[:2] for line in ran.out.splitlines() if line] == [
        ["CHECK", "FOUND"],
        ["abi", "fail"],
        ["->", "load"],
        ["owners", "warn"],
        ["->", "let"],
        ["A", "live"],
        ["ram", "of"],
    ]
    [line] = luoctl("update", "--json").out.splitlines()
    assert [check["name"] for check in json.loads(line)["checks"]] == ["abi", "owners"]


def test_force_asks_and_says_what_will_be_lost(scripted):
    luod = scripted(Start=update(*GOOD), Preflight={"checks": [PASSED, FAILED]})
    refused = on_a_terminal(80, "update", "--force", typed="n\n")
    assert refused.status == 1
    assert "ram of alice: 2 files" in refused.text
    assert "abi failed: what that loses will be gone.\nGo all the same? [y/N] " in refused.text
    assert luod.methods() == ["Preflight"]
    assert on_a_terminal(80, "update", "--force", typed="y\n").status == 0
    assert ("Start", {"deadlineSec": 30, "unready": "abort", "force": True}) in luod.asked


@pytest.mark.parametrize("words", [["--force", "--yes"], ["--force"]])
def test_force_doesn_t_ask_who_has_agreed_or_nobody(luoctl, scripted, words):
    luod = scripted(Start=update(*GOOD), Preflight={"checks": [FAILED]})
    assert luoctl("update", *words).status == 0
    assert [method for method in luod.methods() if method != "Status"] == ["Preflight", "Start"]


def test_force_asks_nothing_where_nothing_fails(scripted):
    scripted(Start=update(*GOOD), Preflight={"checks": [PASSED, WARNED]})
    assert on_a_terminal(80, "update", "--force").status == 0


def test_a_dry_run_says_what_would_happen_and_does_nothing(luoctl, scripted):
    luod = scripted(Preflight={"checks": [PASSED, WARNED]}, Status=STATUS)
    ran = luoctl("update", "--dry-run", "--via", "direct", "--deadline", "9")
    assert ran.status == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["Takes", "part", "qemu", "of", "alice,", "stage:", "2"] in lines
    assert ["First", "they", "have", "9", "s", "to", "get", "ready"] in lines
    assert ["Into", "7.3.5"] in lines
    assert luod.asked == [("Preflight", {"via": "direct"}), ("Status", {})]
    assert luoctl("update", "--dry-run", "--json").json == {
        "checks": [PASSED, WARNED],
        "participants": STATUS["participants"],
    }


def test_a_dry_run_of_what_would_lose_something_is_1(luoctl, scripted):
    scripted(Preflight={"checks": [FAILED]}, Status=STATUS | {"participants": None, "image": None})
    ran = luoctl("update", "--dry-run")
    assert (ran.status, ran.err) == (1, "luoctl: preflight failed: abi\n")
    assert ["Takes", "part", "nobody"] in [line.split() for line in ran.out.splitlines()]


def test_preflight_shows_each_check(luoctl, scripted):
    luod = scripted(Preflight={"checks": [PASSED, WARNED]})
    ran = luoctl("preflight", "--via", "systemd")
    assert (ran.status, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines() if line] == [
        ["CHECK", "FOUND"],
        ["device", "pass", "it", "is", "there"],
        ["owners", "warn", "nobody", "asks", "redis"],
        ["->", "let", "it", "take", "part"],
        ["2", "checks:", "1", "passed,", "1", "to", "look", "at,", "0", "failed"],
    ]
    assert luod.asked == [("Preflight", {"via": "systemd"})]


def test_preflight_that_fails_is_1_and_says_what_would_be_lost(luoctl, scripted):
    scripted(Preflight={"checks": [PASSED, FAILED]})
    ran = luoctl("preflight")
    assert (ran.status, ran.err) == (1, "luoctl: preflight failed: abi\n")
    assert "A live update would lose now:\n  ram of alice: 2 files\n" in ran.out
    ran = luoctl("preflight", "--json")
    assert (ran.status, ran.json) == (1, {"checks": [PASSED, FAILED]})


# Ctrl-C, and luoctl abort


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "luoctl was ended (SIGTERM)")]
)
def test_ctrl_c_brings_everything_back(scripted, number, reason):
    update = Interrupted()
    scripted(**update.script)
    with subprocess.Popen([*LUOCTL, "update"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as luoctl:
        assert "preparing" in luoctl.stdout.readline()
        luoctl.send_signal(number)
        out, err = the_rest(luoctl)
    assert (luoctl.returncode, err, update.with_reason) == (130, "", reason)
    assert lines_of(out)[-2:] == [f"aborting   {reason}", f"aborted    {reason}: everything is as before"]


def test_ctrl_c_before_it_has_begun_hangs_up(scripted):
    update = Interrupted(phase=None, refuses=errors.NoUpdate())
    scripted(**update.script)
    with subprocess.Popen([*LUOCTL, "update"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as luoctl:
        update.has_begun.wait()
        luoctl.send_signal(signal.SIGINT)
        out, err = luoctl.communicate()
    assert (luoctl.returncode, err) == (130, "")
    assert lines_of(out)[-1] == "aborted    everything is as before"


def test_where_there_is_no_way_back_ctrl_c_says_so(scripted):
    update = Interrupted(phase="executing", refuses=errors.UpdateInProgress(4))
    luod = scripted(**update.script)
    with subprocess.Popen([*LUOCTL, "update"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as luoctl:
        assert "executing" in luoctl.stdout.readline()
        luoctl.send_signal(signal.SIGINT)
        while "no way back" not in luoctl.stdout.readline():
            pass
        threading.Thread(target=luod.close).start()
        out, err = the_rest(luoctl)
    assert (luoctl.returncode, err) == (0, "")
    assert lines_of(out) == ["gone       the machine goes into its next kernel"]


def test_a_system_that_ends_luoctl_on_its_way_is_a_good_end(scripted):
    update = Interrupted(phase="executing", refuses=errors.UpdateInProgress(4))
    scripted(**update.script)
    with subprocess.Popen([*LUOCTL, "update"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as luoctl:
        assert "executing" in luoctl.stdout.readline()
        luoctl.send_signal(signal.SIGTERM)
        luoctl.communicate()
    assert (luoctl.returncode, update.with_reason) == (0, None)


def test_ctrl_c_once_more_doesn_t_wait(scripted):
    update = Interrupted(refuses=errors.NoUpdate())
    scripted(**update.script)
    with subprocess.Popen([*LUOCTL, "update"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as luoctl:
        assert "preparing" in luoctl.stdout.readline()
        luoctl.send_signal(signal.SIGINT)
        while "aborting" not in luoctl.stdout.readline():
            pass
        luoctl.send_signal(signal.SIGINT)
        luoctl.communicate()
    assert luoctl.returncode == 130


def test_abort_tells_luod_why(luoctl, scripted):
    luod = scripted(Abort={}, Follow=progress("idle"))
    assert luoctl("abort", "a guest is migrating").out == "aborted: everything is as before\n"
    assert luoctl("abort", "--json").json == {}
    asked = [what for what in luod.asked if what[0] == "Abort"]
    assert asked == [("Abort", {"reason": "a guest is migrating"}), ("Abort", {})]


def test_abort_says_so_only_when_everything_is_as_before(scripted):
    is_off, followed = threading.Event(), threading.Event()

    def follow(conversation, parameters):
        conversation.says(progress("ready"))
        followed.set()
        is_off.wait(30)
        conversation.says(progress("restoring"))

    scripted(Abort={}, Follow=follow)
    with subprocess.Popen([*LUOCTL, "abort"], stdout=subprocess.PIPE, text=True) as luoctl:
        assert followed.wait(30)
        assert luoctl.poll() is None
        is_off.set()
        assert luoctl.communicate()[0] == "aborted: everything is as before\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.NoUpdate(), "there is no such live update in progress; see luoctl status"),
        (errors.UpdateInProgress(4), "there is no way back any more: the machine goes into its next kernel"),
    ],
)
def test_an_abort_that_comes_to_nothing_says_why(luoctl, scripted, error, line):
    scripted(Abort=error)
    ran = luoctl("abort")
    assert (ran.status, ran.err) == (1, f"luoctl: {line}\n")


# On a terminal


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_on_a_terminal_a_block_changes_in_place_and_nothing_of_it_is_left(scripted, columns):
    going = threading.Event()
    many = [f"client-{number} of alice, with a name that goes on and on: no answer" for number in range(40)]

    def start(conversation, parameters):
        conversation.says(progress("preparing", 1, *many, detail="stage 1"))
        assert going.wait(30)
        for step in GOOD[3:]:
            conversation.says(step)
        conversation.sock.shutdown(socket.SHUT_RDWR)

    scripted(Start=start)
    seen = []

    def sees(printed, luoctl):
        if "Ctrl-C brings everything back" in printed and not going.is_set():
            seen.append(printed.replace("\r\n", "\n"))
            going.set()

    shown = on_a_terminal(columns, "update", sees=sees)
    screen = Screen(columns)
    screen.print(seen[0])
    block = screen.text[screen.text.index("  1 of 41 ready, ") :].splitlines()
    assert len(block) < 24
    assert "    and 21 more" in block
    assert block[-1] == "  Ctrl-C brings everything back"
    screen.print(shown.text[len(seen[0]) :])
    assert shown.status == 0
    assert screen.widest < columns
    assert (
        re.sub(r"\n +", " ", screen.text).splitlines()[-1].endswith("gone       the machine goes into its next kernel")
    )
    assert "Ctrl-C" not in screen.text
    assert "client-0" not in screen.text


def test_ctrl_c_leaves_a_clean_screen(scripted):
    update = Interrupted()
    scripted(**update.script)

    pressed = []

    def sees(printed, luoctl):
        if "Ctrl-C brings" in printed and not pressed:
            pressed.append(luoctl.send_signal(signal.SIGINT))

    shown = on_a_terminal(80, "update", sees=sees)
    screen = Screen(80)
    screen.print(shown.text)
    assert shown.status == 130
    lines = [line[10:19].strip() for line in screen.text.splitlines()]
    assert lines == ["preparing", "aborting", "aborted"]


def test_names_of_others_can_not_command_the_terminal(scripted):
    scripted(Start=update(progress("preparing", 0, "\x1b]0;owned\x07: no answer"), progress("executing")))
    assert "\x1b]0" not in on_a_terminal(80, "update").text


@pytest.mark.parametrize(("variable", "escapes"), [("NO_COLOR", "\x1b[3"), ("TERM", "\x1b")])
def test_who_wants_no_colours_or_has_no_cursor_gets_none(scripted, variable, escapes):
    scripted(Start=update(*GOOD))
    assert escapes in on_a_terminal(80, "update").text
    assert escapes not in on_a_terminal(80, "update", **{variable: "dumb"}).text


# With a luod that runs, and a simulated kernel


@pytest.fixture
def image(tmp_path):
    """The path of a kernel that a simulated one can go into."""
    path = str(tmp_path / "image")
    subprocess.run([sys.executable, "-m", "luod.sim", "image", path], check=True)
    return path


def test_two_commands_are_a_live_update(luoctl, machine, image):
    with connect() as luod, memfd(b"content") as file:
        luod.create("ram")
        luod.preserve("ram", file)
    assert luoctl("load", image, "--cmdline", "liveupdate=on kho=on").status == 0
    assert luoctl("preflight").status == 0
    updated = luoctl("update")
    assert (updated.status, updated.err) == (0, "")
    assert lines_of(updated.out)[-1] == "gone       the machine goes into its next kernel"
    with subprocess.Popen([*LUOCTL, "wait-restored"], stdout=subprocess.PIPE, text=True) as waits:
        assert "waiting    for ram of " in waits.stdout.readline()
        assert luoctl("finish", "ram").status == 0
        assert lines_of(waits.stdout.read()) == ["restored   nothing waits for its owner"]
    assert luoctl("status", "--json").json["generation"] == 1


def test_an_update_without_a_kernel_is_refused_and_changes_nothing(luoctl, machine):
    with connect() as luod:
        luod.create("ram")
    ran = luoctl("update")
    assert ran.status == 1
    assert ran.err.startswith("luoctl: preflight failed: image")
    assert luoctl("status", "--json").json["phase"] == "idle"
    assert luoctl("abort").err == "luoctl: there is no such live update in progress; see luoctl status\n"


@contextmanager
def taking_part(heard, answer):
    """Somebody takes part in live updates while the `with` block lasts, until one is off; `answer` is how."""
    is_watching = threading.Event()

    def take_part():
        with connect() as luod, luod.watch(participate=True) as events:
            for event in events:
                heard.append((event.event, event.reason))
                is_watching.set()
                if event.event == "prepare":
                    answer(luod, event)
                elif event.event == "aborted":
                    return

    watcher = threading.Thread(target=take_part)
    watcher.start()
    is_watching.wait()
    yield
    watcher.join()


@pytest.fixture
def loaded(luoctl, machine, image):
    """A machine on which the next kernel is loaded."""
    assert luoctl("load", image, "--cmdline", "liveupdate=on kho=on").status == 0
    return machine


@pytest.mark.usefixtures("loaded")
def test_who_takes_part_and_refuses_takes_the_update_off(luoctl):
    heard = []
    with taking_part(heard, lambda luod, event: luod.veto(event, "a guest is migrating")):
        ran = luoctl("update")
    assert ran.status == 1
    assert ran.err.endswith("refused, a guest is migrating; everything is as before\n")
    assert [event for event, _ in heard] == ["watching", "prepare", "aborted"]


@pytest.mark.usefixtures("loaded")
def test_whoever_was_asked_is_told_of_ctrl_c():
    heard = []
    with (
        taking_part(heard, lambda luod, event: luoctl.send_signal(signal.SIGINT)),
        subprocess.Popen([*LUOCTL, "update"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as luoctl,
    ):
        out, err = luoctl.communicate()
    assert (luoctl.returncode, err) == (130, "")
    assert lines_of(out)[-1] == "aborted    Ctrl-C: everything is as before"
    assert heard[-1] == ("aborted", "Ctrl-C")
