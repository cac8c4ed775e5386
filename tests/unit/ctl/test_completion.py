"""luoctl completes what is typed, and never says a word of its own into it."""

import os
import pwd
import signal
import subprocess

import pytest

from luod.client import connect

from .conftest import LUOCTL


@pytest.fixture
def complete():
    """What could stand in the place of the last word of a line."""

    def run(line, **environment):
        words = line.split(" ")
        asked = {"_LUOCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        ran = subprocess.run(LUOCTL, env=os.environ | asked | environment, capture_output=True, text=True, check=False)
        assert ran.stderr == ""
        return [offer.removeprefix("plain,") for offer in ran.stdout.split()]

    return run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(luoctl, shell):
    ran = luoctl("completion", shell)
    assert ran.status == 0
    assert f"_LUOCTL_COMPLETE={shell}_complete" in ran.out


def test_bash_understands_its_script(luoctl):
    subprocess.run(["bash", "-n"], input=luoctl("completion", "bash").out, text=True, check=True)


def test_commands_and_their_options_are_offered(complete):
    assert complete("luoctl fi") == ["finish"]
    assert complete("luoctl manifest ") == ["show", "verify"]
    assert complete("luoctl finish --re") == ["--rearm"]
    assert {"list", "install-units", "call"} <= set(complete("luoctl "))


def test_what_an_option_can_be_is_offered(complete):
    assert complete("luoctl update --via ") == ["systemd", "direct"]
    assert complete("luoctl preflight --via d") == ["direct"]
    assert complete("luoctl update --unready ") == ["abort", "proceed"]
    assert complete("luoctl load --re") == ["--reuse-cmdline"]


def test_sessions_are_offered(complete, luod):
    assert complete("luoctl show ") == ["ram", "cache", "vm"]
    assert complete("luoctl finish v") == ["vm"]
    assert complete("luoctl watch ram ") == ["cache", "vm"]
    assert complete("luoctl create ") == []


def test_sessions_of_whoever_was_named_are_offered(complete, luod):
    with connect() as client:
        client.create("theirs", owner=65533)
        client.create("mine-too")
    assert complete("luoctl show --owner 65533 ") == ["theirs"]
    assert "theirs" not in complete("luoctl show ")


def test_tokens_of_the_session_that_was_named_are_offered(complete, luod):
    assert complete("luoctl retrieve ram ") == ["7", str(2**63 - 1)]
    assert complete("luoctl unpreserve ram 7 ") == [str(2**63 - 1)]
    assert complete("luoctl retrieve cache ") == []
    assert complete("luoctl retrieve ram -- ") == []


def test_links_are_offered_to_hand_over(complete):
    assert "lo" in complete("luoctl network snapshot l")
    assert complete("luoctl network snapshot lo lo") == []
    assert complete("luoctl network apply --differing ") == ["set", "leave"]


def test_users_are_offered_as_owners(complete):
    name = pwd.getpwuid(0).pw_name
    assert name in complete(f"luoctl list --owner {name[:-1]}")


@pytest.mark.parametrize(
    "line",
    ["luoctl show ", "luoctl frobnicate ", "luoctl retrieve a/b ", 'luoctl show "', "luoctl list --owner nobody-x "],
)
def test_where_there_is_nothing_to_offer_nothing_is_said(complete, line):
    assert complete(line, LUOD_SOCKET="/nowhere") == []


def test_a_line_that_makes_no_sense_is_not_commented(complete):
    assert complete("luoctl show ", COMP_CWORD="x") == []


def test_a_luod_that_does_not_answer_is_not_waited_for(complete, tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        assert complete("luoctl show ", LUOD_SOCKET=str(tmp_path / "silent")) == []
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
