"""luoctl wait-restored, luoctl start-afresh: after a live update, good or bad."""

import subprocess
import threading

from luod import errors
from luod.interface.custody import Session

from .conftest import LUOCTL
from .scripted import Scripted
from .terminal import on_a_terminal
from .test_update import STATUS, lines_of, progress

RAM = {
    "name": "ram",
    "kernelName": "l1-0",
    "mode": "custodial",
    "direction": "incoming",
    "uid": 0,
    "gid": 0,
    "labels": {},
    "files": [],
    "generation": 1,
    "createdUSec": 1_700_000_000_000_000,
}
CACHE = RAM | {"name": "cache"}
DONE = RAM | {"direction": "outgoing"}


def restores(*steps, ends=True):
    """What luod says of what came over: at each step, these sessions are there."""
    there = []

    def follow(conversation, parameters):
        for sessions in steps:
            there[:] = sessions
            conversation.listed.clear()
            conversation.says(progress("restoring"))
            assert conversation.listed.wait(30)
        if not ends:
            assert conversation.hear() is None
        else:
            conversation.answers(progress("idle"))

    listed = threading.Event()

    def begin(conversation, parameters):
        conversation.listed = listed
        follow(conversation, parameters)

    def list_sessions(conversation, parameters):
        assert parameters == {"all": True}
        for session in there:
            conversation.says({"session": session})
        conversation.answers({"session": None})
        listed.set()

    return {"Follow": begin, "List": list_sessions}


def test_wait_restored_names_who_is_waited_for_when_that_changes(luoctl, scripted):
    scripted(**restores([RAM, CACHE], [RAM, CACHE], [RAM], [DONE]))
    ran = luoctl("wait-restored")
    assert (ran.status, ran.err) == (0, "")
    assert lines_of(ran.out) == [
        "waiting    for ram of root, cache of root",
        "waiting    for ram of root",
        "restored   nothing waits for its owner",
    ]


def test_wait_restored_as_json_is_one_value(luoctl, scripted):
    scripted(**restores([RAM], [DONE]))
    assert luoctl("wait-restored", "--json").json == {"restored": True, "waiting": [], "lost": []}


def test_at_the_timeout_those_left_are_named(luoctl, scripted):
    luod = scripted(**restores([RAM, DONE], ends=False))
    ran = luoctl("wait-restored", "--timeout", "1")
    assert (ran.status, ran.err) == (1, "luoctl: not all is restored after 1 s: ram of root\n")
    said = luoctl("wait-restored", "--timeout", "1", "--json")
    assert said.status == 1
    assert [Session.model_validate(session).name for session in said.json["waiting"]] == ["ram"]
    luod.close()


def test_what_is_lost_is_not_restored(luoctl, scripted):
    scripted(**restores([RAM | {"lost": "the kernel dropped it"}]))
    ran = luoctl("wait-restored")
    assert ran.status == 1
    assert ran.err == "luoctl: lost: ram of root; see luoctl list --all, luoctl discard forgets them\n"


def test_wait_restored_waits_for_luod_itself(tmp_path):
    path = str(tmp_path / "late")
    with subprocess.Popen(
        [*LUOCTL, "wait-restored", "--socket", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as luoctl:
        luod = Scripted(path, restores([RAM], []))
        out, err = luoctl.communicate()
        luod.close()
    assert (luoctl.returncode, err) == (0, "")
    assert len(lines_of(out)) == 2


def test_a_luod_that_never_comes_is_3(luoctl):
    ran = luoctl("wait-restored", "--timeout", "1", "--socket", "/nowhere")
    assert (ran.status, ran.err) == (3, "luoctl: luod is not running, or doesn't answer, after 1 s\n")


def test_what_nobody_came_for_is_named_and_not_waited_for(luoctl, scripted):
    files = [{"token": 1, "retrieved": False}]
    scripted(**restores([CACHE | {"carriedOver": True, "files": files}, RAM | {"carriedOver": True}]))
    ran = luoctl("wait-restored")
    assert ran.status == 0
    assert lines_of(ran.out) == [
        "waited     cache of root: nobody came for it, the next live update carries it over",
        "restored   nothing waits for its owner",
    ]


def test_a_boot_that_can_not_restore_is_4(luoctl, scripted):
    scripted(Follow=progress("idle"), List=errors.RestoreUnavailable("EIO"))
    ran = luoctl("wait-restored")
    assert ran.status == 4
    assert str(errors.RestoreUnavailable("EIO")) in ran.err


GONE = STATUS | {"phase": "unavailable", "device": {"available": False, "reason": "nothing came over"}}


def test_start_afresh_asks_and_says_why(scripted):
    luod = scripted(Status=GONE, StartAfresh={})
    refused = on_a_terminal(80, "start-afresh", typed="n\n")
    assert refused.status == 1
    assert "All that came over will be gone: nothing came over.\nStart afresh? [y/N] " in refused.text
    assert luod.methods() == ["Status"]
    assert on_a_terminal(80, "start-afresh", typed="y\n").status == 0
    assert luod.methods()[-1] == "StartAfresh"


def test_start_afresh_doesn_t_ask_where_nobody_sits(luoctl, scripted):
    scripted(Status=GONE, StartAfresh={})
    assert luoctl("start-afresh").out == "luod starts afresh, with nothing\n"
    assert luoctl("start-afresh", "--json").json == {}


def test_where_nothing_is_missing_nothing_is_given_up(luoctl, scripted):
    luod = scripted(Status=STATUS)
    ran = luoctl("start-afresh", "--yes")
    assert ran.status == 1
    assert "nothing has to be given up" in ran.err
    assert luod.methods() == ["Status"]
