"""How luoctl ends: its exit status, and the one line that says why."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from running import luod_running

LUOCTL = [sys.executable, "-m", "luod.ctl"]


def test_no_command_is_a_wrong_usage_that_gets_the_help(luoctl):
    ran = luoctl()
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("Usage: luoctl")


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


def test_version_and_help_succeed(luoctl):
    assert luoctl("--version").out.startswith("luoctl ")
    assert luoctl("-h").status == 0
    assert luoctl("manifest", "verify", "-h").status == 0


def test_a_reader_that_goes_away_is_141_without_a_word(luod):
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run([*LUOCTL, "list"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_ctrl_c_is_130_without_a_word(luod):
    command = [*LUOCTL, "call", "--more", "io.luod.Custody.Watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as luoctl:
        assert b"watching" in luoctl.stdout.readline()
        luoctl.send_signal(signal.SIGINT)
        assert luoctl.stderr.read() == b""
    assert luoctl.returncode == 130


def test_help_imports_neither_rich_nor_pydantic():
    code = """if True:
        import sys
        from luod.ctl import main
        main(["--help"])
        print([name for name in ("rich", "pydantic", "trio", "luod.client") if name in sys.modules])
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
