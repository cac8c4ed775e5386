"""How luoctl ends: its exit status, and the one line that says why."""

import errno
import os
import signal
import subprocess

import pytest

from running import luod_running

from .conftest import LUOCTL


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["lst"], "luoctl: there is no command 'lst', did you mean 'list'? (see luoctl -h)\n"),
        (["frobnicate"], "luoctl: there is no command 'frobnicate' (see luoctl -h)\n"),
        (["manifest", "shw"], "luoctl: there is no command 'shw', did you mean 'show'? (see luoctl manifest -h)\n"),
        (["list", "--jsn"], "luoctl: there is no option --jsn, did you mean '--json'? (see luoctl list -h)\n"),
        (["show"], "luoctl: missing argument 'SESSION' (see luoctl show -h)\n"),
        (["list", "--all", "--owner", "0"], "luoctl: --all and --owner exclude each other (see luoctl list -h)\n"),
        (
            ["list", "--owner", "no one"],
            "luoctl: invalid value for '--owner': there is no user 'no one' (see luoctl list -h)\n",
        ),
        (
            ["call", "a.B", "nul"],
            "luoctl: invalid value for JSON: Expecting value at character 0 (see luoctl call -h)\n",
        ),
        (["call", "a.B", "[]"], "luoctl: invalid value for JSON: must be a JSON object (see luoctl call -h)\n"),
        (
            ["call", "a.B", "--fd", "999"],
            "luoctl: invalid value for '--fd': descriptor 999 is not open (see luoctl call -h)\n",
        ),
        (
            ["show", "a b"],
            "luoctl: invalid value for 'SESSION': 'a b' must be 1 to 48 of A-Z a-z 0-9 . _ : @ -, with no leading dot "
            "(see luoctl show -h)\n",
        ),
        (
            ["network", "snapshot", "a/b"],
            "luoctl: invalid value for '[PATTERN]...': 'a/b' must be a link's name or a pattern of names: 1 to 127 "
            "letters, no space, / or : (see luoctl network snapshot -h)\n",
        ),
        (
            ["create", "x", "--label", "a"],
            "luoctl: invalid value for '--label': 'a' is not KEY=VALUE (see luoctl create -h)\n",
        ),
        (
            ["create", "x", "--label", "a=1", "--label", "a=2"],
            "luoctl: invalid value for '--label': 'a' has two values (see luoctl create -h)\n",
        ),
        (
            ["create", "x", "--label", "ä=1"],
            "luoctl: invalid value for '--label': a label's key must be 1 to 48 of A-Z a-z 0-9 . _ -, starting with a "
            "letter or digit (see luoctl create -h)\n",
        ),
        (
            ["preserve", "x", "--token", "-1"],
            f"luoctl: invalid value for '--token': '-1' is not a number from 0 to {2**63 - 1} "
            "(see luoctl preserve -h)\n",
        ),
        (
            ["preserve", "x", "--pid", "9" * 5000],
            f"luoctl: invalid value for '--pid': '{'9' * 5000}' is not a number from 1 to {2**31 - 1} "
            "(see luoctl preserve -h)\n",
        ),
        (
            ["preserve", "x", "--name", "\x1b"],
            "luoctl: invalid value for '--name': it must be 1 to 64 bytes of printable text (see luoctl preserve -h)\n",
        ),
        (
            ["preserve", "x", "y", "--fd", "0"],
            "luoctl: FILE, --fd and --pid exclude each other (see luoctl preserve -h)\n",
        ),
        (["preserve", "x", "--pid", "1"], "luoctl: --pid and --remote-fd go together (see luoctl preserve -h)\n"),
        (
            ["retrieve", "x", "1", "2"],
            "luoctl: one token at a time, or -- COMMAND for all of them (see luoctl retrieve -h)\n",
        ),
        (["retrieve", "x", "--"], "luoctl: there is no COMMAND behind -- (see luoctl retrieve -h)\n"),
        (
            ["retrieve", "x", "-o", "y", "--", "cat"],
            "luoctl: --output and -- COMMAND exclude each other (see luoctl retrieve -h)\n",
        ),
        (
            ["retrieve", "x", "--json"],
            "luoctl: with --json, --output says where what is in the file goes (see luoctl retrieve -h)\n",
        ),
        (
            ["claim", "vm"],
            "luoctl: a descriptor ends with whoever has it, so say for which command: -- COMMAND "
            "(see luoctl claim -h)\n",
        ),
        (
            ["load", "x"],
            "luoctl: its command line is missing: --cmdline TEXT, or --reuse-cmdline for that of this one "
            "(see luoctl load -h)\n",
        ),
        (
            ["load", "x", "--cmdline", "y", "--reuse-cmdline"],
            "luoctl: --cmdline and --reuse-cmdline exclude each other (see luoctl load -h)\n",
        ),
        (
            ["update", "--via", "magic"],
            "luoctl: invalid value for '--via': 'magic' is not one of 'systemd', 'direct' (see luoctl update -h)\n",
        ),
        (
            ["update", "--deadline", "0"],
            "luoctl: invalid value for '--deadline': '0' is not a number from 1 to 86400 (see luoctl update -h)\n",
        ),
        (
            ["completion", "csh"],
            "luoctl: invalid value for 'SHELL': 'csh' is not one of 'bash', 'zsh', 'fish' (see luoctl completion -h)\n",
        ),
    ],
)
def test_a_wrong_usage_says_what_would_be_right(luoctl, arguments, line):
    ran = luoctl(*arguments)
    assert (ran.status, ran.out, ran.err) == (2, "", line)


def test_a_session_that_is_nearly_there_is_suggested(luoctl, luod):
    ran = luoctl("show", "rma")
    assert ran.status == 1
    assert ran.err.endswith("has no session 'rma', did you mean 'ram'?\n")


def test_an_interface_that_is_nearly_there_is_suggested(luoctl, luod):
    ran = luoctl("introspect", "Custody")
    assert ran.err == "luoctl: luod has no interface 'Custody', did you mean 'io.luod.Custody'?\n"


def test_a_refusal_is_1_and_a_raw_one_has_its_name(luoctl, luod):
    ran = luoctl("call", "io.luod.Custody.Finish", '{"session": "no-such"}')
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("luoctl: io.luod.Custody.SessionNotFound: ")
    assert ran.err.endswith(" has no session 'no-such'; see luoctl list\n")


def test_luod_not_running_is_3_and_says_what_can_be_done(luoctl, tmp_path):
    nothing = str(tmp_path / "nothing")
    ran = luoctl("list", "--socket", nothing)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith(f"luoctl: luod is not running at {nothing}: there is no such socket; start it")
    assert "/run/luod/manifest.json" in luoctl("manifest", "show", "--socket", nothing).err


@pytest.mark.parametrize("why", [errno.ENOENT, errno.EIO])
def test_a_boot_that_can_not_restore_is_4_but_its_status_can_be_had(luoctl, sim, tmp_path, why):
    sim.kexec(open_error=why)
    with luod_running(sim.path, tmp_path) as socket:
        ran = luoctl("list", "--socket", socket)
        status = luoctl("status", "--socket", socket)
    assert (ran.status, ran.out) == (4, "")
    assert "do not start afresh" in ran.err
    assert status.status == 0
    assert "unavailable" in status.out


def test_a_reader_that_goes_away_is_141_without_a_word(luod):
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run([*LUOCTL, "list"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("redirected", "why"),
    [
        ("list > /dev/full", "standard output: No space left on device"),
        ("list >&-", "standard output: Bad file descriptor"),
        ("retrieve ram 7 > /dev/full", "can't write standard output: No space left on device"),
        ("retrieve ram 7 >&-", "can't write standard output: Bad file descriptor"),
        ("preserve cache <&-", "can't copy standard input into memory: Bad file descriptor"),
    ],
)
def test_a_standard_stream_that_is_full_or_closed_is_a_failure(luod, redirected, why):
    ran = subprocess.run(["sh", "-c", f"{' '.join(LUOCTL)} {redirected}"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, f"luoctl: {why}\n")


def test_without_standard_error_the_exit_status_says_all(luod):
    for words, status in (("list", 0), ("lst", 2), ("show no-such", 1)):
        ran = subprocess.run(["sh", "-c", f"{' '.join(LUOCTL)} {words} 2>&-"], stdout=subprocess.DEVNULL, check=False)
        assert ran.returncode == status


def test_what_is_wrong_with_a_call_is_said_whatever_it_is(luoctl, luod):
    ran = luoctl("call", "io.luod.Custody.Finish", '{"session": "ram", "owner": "x"}')
    assert ran.err.startswith("luoctl: org.varlink.service.InvalidParameter: owner: ")


def test_ctrl_c_is_130_without_a_word(luod):
    command = [*LUOCTL, "call", "--more", "io.luod.Custody.Watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as luoctl:
        assert b"watching" in luoctl.stdout.readline()
        luoctl.send_signal(signal.SIGINT)
        assert luoctl.stderr.read() == b""
    assert luoctl.returncode == 130
