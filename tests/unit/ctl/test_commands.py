"""What each command prints, for people and for programs, of a luod that runs."""

import json
import os
from pathlib import Path

import pytest

from luod.interface.custody import Session
from luod.interface.update import StatusReply
from luod.manifest import Document


def lines_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_status_says_what_luod_holds(luoctl, luod):
    ran = luoctl("status")
    assert ran.status == 0
    assert ["Holds", "3", "sessions,", "2", "files,", "5.9", "KiB"] in lines_of(ran.out)
    assert ["Phase", "idle"] in lines_of(ran.out)


def test_status_as_json_is_the_reply_of_the_interface(luoctl, luod):
    assert StatusReply.model_validate(luoctl("status", "--json").json).sessions == 3


WHOLE = {
    "phase": "idle",
    "generation": 3,
    "kernel": {"release": "7.3.4", "bootId": "6ba7b810"},
    "image": {
        "kind": "bzImage",
        "architecture": "x86_64",
        "packing": "xz",
        "release": "7.3.5",
        "commandLine": f"root=/dev/sda {'console=ttyS0 ' * 20}luod.from=6ba7b810/3",
        "loadedUSec": 1,
    },
    "sessions": 1,
    "files": 2,
    "bytes": 4096,
    "device": {"path": "/dev/liveupdate", "available": True},
    "fdStore": {"entries": 7, "limit": 512, "unclear": []},
    "participants": [{"name": "qemu", "uid": 107, "stage": 2, "sessions": ["vm", "ram"]}, {"uid": 999}],
    "lastUpdate": {"generation": 3, "usec": 1, "blackoutUSec": 1_240_000, "via": "direct"},
    "problems": ["cache is lost", "\x1b[2J"],
}


def test_status_is_the_whole_story_on_one_screen(luoctl, scripted):
    scripted(Status=WHOLE)
    ran = luoctl("status")
    told = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert told[:4] == ["Phase idle", "Kernel 7.3.4, boot: 6ba7b810", "Generation 3", told[3]]
    assert told[3].startswith("Updated ")
    assert told[3].endswith(" d ago via direct, blackout 1.24 s")
    assert told[4].startswith("Loaded 7.3.5, bzImage for x86_64, packed with xz, ")
    assert told[5].startswith("root=/dev/sda console=ttyS0 ")
    assert told[5].endswith(" luod.from=6ba7b810/3")
    assert len(told[5]) < 140
    assert told[6:] == [
        "Holds 1 session, 2 files, 4.0 KiB",
        "Takes part qemu, stage: 2, sessions: vm ram",
        "somebody, uid: 999",
        "Device /dev/liveupdate, available",
        "Fd store 7 of 512 entries",
        "Problems cache is lost",
        r"\x1b[2J",
    ]


def test_of_the_last_update_status_says_what_there_is(luoctl, scripted):
    luod = scripted(Status=WHOLE | {"lastUpdate": {"generation": 3}, "image": {"commandLine": "quiet"}})
    assert "Updated" not in luoctl("status").out
    luod.script["Status"] = WHOLE | {"lastUpdate": {"blackoutUSec": 125_000_000}}
    assert ["Updated", "blackout", "2", "min", "5", "s"] in lines_of(luoctl("status").out)


def test_list_has_a_line_for_each_session(luoctl, luod):
    heading, *lines = lines_of(luoctl("list").out)
    assert heading == ["NAME", "STATE", "MODE", "FILES", "SIZE", "UPDATES", "CREATED"]
    assert lines[0][:7] == ["ram", "outgoing", "custodial", "2", "5.9", "KiB", "0"]
    assert [line[0] for line in lines] == ["ram", "cache", "vm"]


def test_what_luod_can_not_know_of_a_delegated_session_is_left_blank(luoctl, luod):
    [line] = [line for line in lines_of(luoctl("list").out) if line[0] == "vm"]
    assert line[:4] == ["vm", "outgoing", "delegated", "0"]


def test_list_as_json_is_an_array_of_sessions(luoctl, luod):
    sessions = luoctl("list", "--json").json
    assert [Session.model_validate(session).name for session in sessions] == ["ram", "cache", "vm"]
    assert sessions[0]["createdUSec"] > 0


def test_list_all_names_the_owners(luoctl, luod):
    ran = luoctl("list", "--all", "--json")
    assert {session["uid"] for session in ran.json} == {os.getuid()}
    assert "OWNER" in luoctl("list", "--all").out


def test_an_owner_is_a_uid_or_a_name(luoctl, luod):
    by_uid = luoctl("list", "--owner", "0")
    assert by_uid.out == luoctl("list", "--owner", "root").out


def test_an_owner_without_sessions_has_none(luoctl, luod):
    ran = luoctl("list", "--owner", "65533")
    assert (ran.status, ran.out) == (0, "no sessions of 65533\n")
    assert luoctl("list", "--owner", "65533", "--json").json == []


def test_show_tells_all_of_a_session(luoctl, luod):
    ran = luoctl("show", "ram")
    lines = lines_of(ran.out)
    assert ["Labels", "guest=web"] in lines
    assert ["7", "[red]memory[/red]", "5.9", "KiB", "no"] in lines
    assert [str(2**63 - 1), "0", "B", "no"] in lines


def test_show_as_json_is_the_session(luoctl, luod):
    session = luoctl("show", "ram", "--json").json
    assert Session.model_validate(session).labels == {"guest": "web"}


def test_common_options_stand_before_a_command_or_after_it(luoctl, luod, monkeypatch):
    monkeypatch.delenv("LUOD_SOCKET")
    before = luoctl("--socket", luod, "--json", "list")
    after = luoctl("list", "--json", "--socket", luod)
    assert before.json == after.json


def test_manifest_show_lists_sessions_and_files(luoctl, luod):
    lines = lines_of(luoctl("manifest", "show").out)
    assert any(line[:1] == ["ram"] and line[-1] == "luod-0-0" for line in lines)
    assert any(
        line[0] == "ram" and line[2:] == ["7", "0", "[red]memory[/red]", "5.9", "KiB", "held"] for line in lines if line
    )


def test_manifest_show_as_json_is_a_manifest_that_verifies(luoctl, luod, tmp_path):
    copy = tmp_path / "copy.json"
    copy.write_text(luoctl("manifest", "show", "--json").out)
    assert Document.read(copy.read_bytes()).sessions[0].name == "ram"
    ran = luoctl("manifest", "verify", str(copy))
    assert (ran.status, ran.out) == (0, f"{copy} is whole: version 1, generation 0, 3 sessions, 2 files\n")


def test_manifest_verify_asks_luod_where_there_is_no_file(luoctl, luod):
    assert luoctl("manifest", "verify").out.startswith("the manifest is whole: ")
    assert luoctl("manifest", "verify", "--json").json == {"ok": True, "reason": None}


@pytest.fixture
def changed(luoctl, luod, tmp_path) -> Path:
    """A manifest that somebody changed."""
    document = luoctl("manifest", "show", "--json").json
    document["sessions"][0]["uid"] = 4242
    copy = tmp_path / "changed.json"
    copy.write_text(json.dumps(document))
    return copy


def test_a_changed_manifest_fails_to_verify(luoctl, changed):
    ran = luoctl("manifest", "verify", str(changed))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"luoctl: {changed} can't be trusted: its checksum is wrong")
    assert luoctl("manifest", "verify", "--json", str(changed)).json["ok"] is False


def test_a_changed_manifest_is_shown_with_a_warning(luoctl, changed):
    ran = luoctl("manifest", "show", str(changed))
    assert ran.status == 0
    assert "4242" in ran.out
    assert "can't be trusted" in ran.err


def test_a_manifest_of_tomorrow_is_shown_as_it_is(luoctl, tmp_path):
    later = tmp_path / "later.json"
    later.write_text('{"version": 99, "sessions": {"new": "shape"}}')
    ran = luoctl("manifest", "show", str(later))
    assert ran.json == {"version": 99, "sessions": {"new": "shape"}}
    assert "a newer luod wrote it" in ran.err


def test_what_is_no_manifest_at_all_is_refused(luoctl, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF")
    assert luoctl("manifest", "show", str(other)).status == 1
    ran = luoctl("manifest", "show", str(tmp_path / "missing"))
    assert (ran.status, ran.err) == (1, f"luoctl: can't read {tmp_path / 'missing'}: No such file or directory\n")


def test_call_prints_the_reply(luoctl, luod):
    ran = luoctl("call", "io.luod.Custody.List", '{"session": "cache"}')
    assert ran.json["session"]["name"] == "cache"


def test_call_more_prints_each_reply_on_a_line(luoctl, luod):
    ran = luoctl("call", "--more", "io.luod.Custody.List")
    assert [json.loads(line)["session"]["name"] for line in ran.out.splitlines()] == ["ram", "cache", "vm"]


def test_call_describes_and_closes_the_descriptors_of_a_reply(luoctl, luod):
    ran = luoctl("call", "io.luod.Custody.Retrieve", '{"session": "ram", "tokens": [7]}')
    assert ran.json["files"][0]["token"] == 7
    assert ran.err == "luoctl: descriptor 0 was /memfd:test (deleted), 5.9 KiB; closed\n"


def test_call_sends_descriptors(luoctl, luod, tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        named = json.dumps({"session": "cache", "files": [{"fileDescriptorIndex": 0}]})
        ran = luoctl("call", "io.luod.Custody.Preserve", named, "--fd", str(file.fileno()))
    assert ran.status == 1
    assert ran.err.startswith("luoctl: io.luod.Custody.NotPreservable: descriptor 0 can't be preserved")


def test_introspect_names_the_interfaces(luoctl, luod):
    assert ["io.luod.Update"] in lines_of(luoctl("introspect").out)
    assert "io.luod.Custody" in luoctl("introspect", "--json").json["interfaces"]


def test_introspect_prints_a_description_as_it_is(luoctl, luod):
    ran = luoctl("introspect", "io.luod.Custody")
    assert ran.out == luoctl("introspect", "io.luod.Custody", "--json").json["description"]
