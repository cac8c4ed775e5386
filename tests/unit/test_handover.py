"""The network on its way over: who writes it down for luod, and what luod tells of how it was set up again."""

import json
import os
import socket

import pytest

from luod import handover
from luod.handover import BadReport, NotWrittenDown, last_report, write_down_by_child, write_down_by_unit
from luod.names import NETWORK_REPORT
from luod.network.report import Report, Trouble


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A systemd, as far as its systemctl goes."""

    def says(script):
        program = tmp_path / "systemctl"
        program.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n{script}\n')
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return says


def test_by_systemd_the_unit_is_reloaded(systemctl, tmp_path):
    systemctl("exit 0")
    write_down_by_unit()
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.endswith("reload luod-network-snapshot.service")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("printf 'Job failed.\\nSee the journal.\\n' >&2; exit 1", "Job failed. See the journal."),
        ("exit 3", "systemctl reload ended with status 3"),
    ],
)
def test_a_unit_that_fails_says_why(systemctl, script, reason):
    systemctl(script)
    with pytest.raises(NotWrittenDown) as caught:
        write_down_by_unit()
    assert str(caught.value) == f"luod-network-snapshot.service: {reason}"


def test_a_unit_that_does_not_end_is_not_waited_for(systemctl, monkeypatch):
    monkeypatch.setattr(handover, "PATIENCE", 0.05)
    systemctl("exec sleep 60")
    with pytest.raises(NotWrittenDown, match=r"systemctl reload: no answer for 0\.05 s"):
        write_down_by_unit()


def test_a_child_that_fails_says_why(tmp_path):
    with pytest.raises(NotWrittenDown, match=r"^luod is not running at "):
        write_down_by_child(["lo"], tmp_path / "nowhere", tmp_path)


def test_a_child_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(handover, "PATIENCE", 2.0)
    path = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(NotWrittenDown, match="luoctl network snapshot: no end for 2 s"):
            write_down_by_child(["lo"], path, tmp_path)


def report(directory, text):
    (directory / NETWORK_REPORT).write_text(text)
    return last_report(directory)


def test_the_last_report_is_told_in_short(tmp_path):
    assert last_report(tmp_path) is None
    failed = tuple(Trouble(what=f"link v{number}", reason="no") for number in range(30))
    one = Report(taken=1.5, applied=2, seconds=1, done=3, equal=4, failed=failed, left=failed[:1])
    assert report(tmp_path, one.model_dump_json()) == {
        "takenUSec": 1_500_000,
        "appliedUSec": 2_000_000,
        "done": 3,
        "equal": 4,
        "failed": 30,
        "left": 1,
        "reasons": [f"link v{number}: no" for number in range(20)],
    }
    none = Report(applied=2, seconds=0, done=0, equal=0)
    assert report(tmp_path, none.model_dump_json()) == {
        "appliedUSec": 2_000_000,
        "done": 0,
        "equal": 0,
        "failed": 0,
        "left": 0,
    }


GOOD = json.loads(Report(taken=1, applied=2, seconds=1, done=3, equal=4).model_dump_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "\xff",
        *(json.dumps(GOOD | {key: "x"}) for key in ("taken", "applied", "done", "equal")),
        *(json.dumps(GOOD | {"failed": failed}) for failed in (5, [5], ["x"], [{}])),
        json.dumps(GOOD | {"applied": 1e400}),
        json.dumps(GOOD | {"applied": -1e30}),
        json.dumps(GOOD | {"done": 1 << 64}),
        "[" * 200_000,
        " " * (handover.REPORT_MAX + 1),
    ],
    ids=lambda text: text[:40],
)
def test_a_broken_report_is_told_and_raises_nothing_else(tmp_path, text):
    (tmp_path / NETWORK_REPORT).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadReport, match=r"^network\.json is no (JSON|report)$"):
        last_report(tmp_path)


def test_a_report_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / NETWORK_REPORT).mkdir()
    with pytest.raises(BadReport, match=r"network\.json: Is a directory"):
        last_report(tmp_path)


def test_a_report_that_is_no_file_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / NETWORK_REPORT)
    with pytest.raises(BadReport):
        last_report(tmp_path)
    (tmp_path / NETWORK_REPORT).unlink()
    (tmp_path / NETWORK_REPORT).symlink_to("/dev/zero")
    with pytest.raises(BadReport, match=r"network\.json: Too many levels of symbolic links"):
        last_report(tmp_path)


def test_a_reason_is_told_as_far_as_it_can_be_sent(tmp_path):
    failed = [{"what": "link \ud800", "reason": "x" * 5000}]
    (reason,) = report(tmp_path, json.dumps(GOOD | {"failed": failed}))["reasons"]
    assert reason.startswith("link ?: xxx")
    assert len(reason) == 500
