"""luoctl create, claim, finish, discard: what each does, says, and asks before."""

import os

import pytest

from luod.client import File, SessionNotFound, connect
from luod.ctl.consent import loss_of
from memory import memfds

from .terminal import on_a_terminal


@pytest.fixture
def came_over(machine):
    """A machine on which `ram` came over with three files, one of which was retrieved, as did `vm` and `empty`."""
    with connect() as luod, memfds(b"1" * 1000, b"2" * 2000, b"3" * 3000) as files:
        luod.create("ram")
        for file in files:
            luod.preserve("ram", file)
        luod.create("empty")
        luod.create_delegated("vm")[1].give_up()
    machine.live_update()
    with connect() as luod:
        luod.retrieve("ram", [1])[1].close()
        yield luod


def session(name, owner=None):
    with connect() as luod:
        return luod.find(name, owner)


def test_create_makes_a_session_with_its_labels(luoctl, luod):
    ran = luoctl("create", "labelled", "--label", "guest=web", "--label", "note=a = b")
    assert (ran.status, ran.out) == (0, "created labelled\n")
    assert session("labelled").labels == {"guest": "web", "note": "a = b"}


def test_create_makes_a_delegated_session_that_outlives_luoctl(luoctl, luod):
    ran = luoctl("create", "guest", "--delegated")
    assert ran.out == "created guest, a delegated session\n"
    assert session("guest").mode == "delegated"


def test_an_operator_creates_for_another_user(luoctl, luod):
    assert luoctl("create", "theirs", "--owner", "65533").out == "created theirs of 65533\n"
    assert session("theirs", 65533).uid == 65533
    assert session("theirs") is None


def test_what_is_there_is_not_created_again(luoctl, luod):
    ran = luoctl("create", "ram")
    assert (ran.status, ran.err) == (1, "luoctl: there is a session 'ram' already; see luoctl show ram\n")


def test_claim_hands_the_kernels_session_to_the_command_by_its_name(luoctl_process, luod):
    script = (
        "echo $LISTEN_FDS $LISTEN_FDNAMES; test $LISTEN_PID = $$ && readlink /proc/self/fd/3; test ! -e /proc/self/fd/4"
    )
    ran = luoctl_process("claim", "vm", "--", "sh", "-c", script)
    count_and_name, what = ran.out.splitlines()
    assert (ran.status, count_and_name, ran.err) == (0, "1 vm", "")
    assert what.startswith("socket:")  # that of the simulated kernel
    assert session("vm").direction == "outgoing"


def test_claim_ends_as_the_command_does(luoctl_process, luod):
    assert luoctl_process("claim", "vm", "--", "sh", "-c", "exit 42").status == 42


def test_a_session_that_luod_serves_is_not_lent(luoctl, luod):
    ran = luoctl("claim", "ram", "--", "true")
    why = "session 'ram' is custodial; luod itself has its files, luoctl retrieve ram gives them back"
    assert (ran.status, ran.err) == (1, f"luoctl: {why}\n")


@pytest.mark.parametrize(
    ("program", "why"), [("no-such-program", "there is no such program"), (os.devnull, "it can't be executed")]
)
def test_what_can_not_be_run_is_said_before_luod_is_asked(luoctl, program, why):
    ran = luoctl("claim", "vm", "--socket", "/nowhere", "--", program)
    assert (ran.status, ran.err) == (1, f"luoctl: can't run {program}: {why}\n")


def test_without_a_terminal_finish_does_as_it_is_told(luoctl, came_over):
    assert luoctl("finish", "ram").out == "finished ram: 3 files, 5.9 KiB\n"
    assert came_over.find("ram") is None


def test_finish_with_rearm_keeps_the_files_and_asks_nobody(came_over):
    shown = on_a_terminal(80, "finish", "ram", "--rearm")
    assert (shown.status, shown.text) == (0, "rearmed ram for the next live update: 3 files, 5.9 KiB\n")
    assert came_over.find("ram").direction == "outgoing"


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("ram", "3 files, 5.9 KiB, will be gone. Nobody has retrieved 2 of them."),
        ("vm", "Only its owner knows what will be gone."),
        ("empty", "It has no files."),
    ],
)
def test_on_a_terminal_finish_says_what_will_be_gone_and_asks(came_over, name, gone):
    refused = on_a_terminal(80, "finish", name, typed="n\n")
    assert refused.text == f"n\n{gone}\nFinish {name}? [y/N] luoctl: nothing was done\n"
    assert refused.status == 1
    assert came_over.find(name) is not None
    agreed = on_a_terminal(80, "finish", name, typed="y\n")
    assert agreed.status == 0
    assert came_over.find(name) is None


@pytest.mark.parametrize(
    ("retrieved", "who"),
    [
        ([False], "Nobody has retrieved it."),
        ([True], "It was retrieved."),
        ([False, False], "Nobody has retrieved them."),
        ([True, False, False], "Nobody has retrieved 2 of them."),
        ([True, True], "All were retrieved."),
    ],
)
def test_what_nobody_has_retrieved_is_said(retrieved, who):
    files = [File(token=token, size=1024, retrieved=was) for token, was in enumerate(retrieved)]
    assert loss_of(files).endswith(f"{len(files)}.0 KiB, will be gone. {who}")


def test_no_answer_is_a_no(came_over):
    for answer in ("\n", "\x04", "maybe\n"):
        shown = on_a_terminal(80, "finish", "ram", typed=answer)
        assert shown.status == 1
        assert shown.text.endswith("luoctl: nothing was done\n")
    assert came_over.find("ram") is not None


def test_whoever_says_yes_before_is_not_asked(came_over):
    for yes in ("--yes", "-y"):
        shown = on_a_terminal(80, "finish", "ram" if yes == "-y" else "vm", yes)
        assert shown.status == 0
        assert "[y/N]" not in shown.text


def test_nobody_is_asked_for_what_luod_will_refuse(came_over):
    shown = on_a_terminal(80, "discard", "ram")
    assert (
        shown.text == "luoctl: session 'ram' is incoming; luoctl finish ram ends it, with --rearm it becomes outgoing\n"
    )
    assert shown.status == 1


def test_discard_gives_up_what_is_outgoing(luoctl, luod):
    luoctl("create", "over")
    shown = on_a_terminal(80, "discard", "over", typed="yes\n")
    assert shown.text == "yes\nIt has no files.\nDiscard over? [y/N] discarded over\n"
    assert session("over") is None


def test_discard_forgets_what_is_lost(luoctl, came_over, machine):
    machine.live_update()  # nobody has finished anything
    ran = luoctl("retrieve", "ram", "0")
    assert ran.status == 1
    assert ran.err.startswith("luoctl: session 'ram' is lost: ")
    assert ran.err.endswith("; luoctl discard ram forgets it\n")
    shown = on_a_terminal(80, "discard", "ram", typed="y\n")
    assert shown.text == "y\nIt is lost, and will be forgotten.\nDiscard ram? [y/N] discarded ram, which was lost\n"
    assert session("ram") is None


def test_what_is_not_there_can_not_be_ended(luoctl, luod):
    for command in ("finish", "discard", "show"):
        ran = luoctl(command, "rma")
        assert ran.status == 1
        assert ran.err.endswith(" has no session 'rma', did you mean 'ram'?\n")
    with connect() as client, pytest.raises(SessionNotFound):
        client.finish("rma")
