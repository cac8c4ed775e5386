"""luoctl timeline, and what it draws."""

import json
import re
import socket
import threading
from contextlib import contextmanager
from xml.etree import ElementTree

import pytest

from luod.ctl.captions import heading, shown_clients, shown_from, summary
from luod.ctl.picture import drawn
from luod.errors import InvalidParameter
from luod.fds import FdBundle
from luod.timeline import timeline
from luod.varlink.framing import Framer
from luod.varlink.messages import Call, Reply
from told import BEGAN, told

from .terminal import on_a_terminal

SVG = "{http://www.w3.org/2000/svg}"
TWELVE = [f"alice/vm-{number:02}" for number in range(11)] + ["a client with a name as long as its work/\x1b[31m"]

CASES = [
    pytest.param(
        {"clients": clients, "scale": scale, "via": via, "prepare": prepare}, id=f"{via} {scale} s, {len(clients)}"
    )
    for clients in (["vm"], TWELVE)
    for scale, prepare in ((1.0, 0.4), (60.0, 28.0))
    for via in ("direct", "systemd")
]


@contextmanager
def a_luod(path, events, generation=3):
    """Whoever asks it for one timeline gets this one."""

    def serve():
        with listener.accept()[0] as connection:
            framer = Framer()
            while (message := framer.next_message()) is None:
                if not (data := connection.recv(65536)):
                    return
                framer.feed(data, FdBundle())
            call = Call.read(message.body)
            asked.append((call.method, call.parameters))
            wanted = call.parameters.get("generation", generation)
            if wanted == generation:
                reply = Reply({"generation": generation, "generations": [2, 3], "events": events})
            else:
                error = InvalidParameter("generation", "nothing is known of that one; there are 2, 3")
                reply = Reply(error.parameters(), error=error.wire_name())
            connection.sendall(reply.encode())
            connection.recv(1)

    asked = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A luod that knows these events."""
    monkeypatch.setenv("LUOD_SOCKET", str(tmp_path / "io.luod"))
    return lambda events: a_luod(tmp_path / "io.luod", events)


def unwrapped(text):
    return " ".join(text.split())


# The command


def test_it_shows_the_last_live_update(luoctl, at):
    with at(told(["vm"])) as asked:
        ran = luoctl("timeline")
    assert asked == [("io.luod.Update.Timeline", {})]
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("Live update to generation 3, direct, 2026-09-21 ")
    assert re.search(r"^kernel starts +[│ █]+ +0\.22 s +27\.5 %$", ran.out, re.MULTILINE)
    assert "Blackout 0.80 s: from when the first owner was paused until vm had its first descriptor." in unwrapped(
        ran.out
    )


def test_another_one_can_be_asked_for(luoctl, at):
    with at(told(["vm"])) as asked:
        assert luoctl("timeline", "--generation", "3").status == 0
    assert asked[0][1] == {"generation": 3}


def test_one_that_is_not_known_is_refused_with_those_that_are(luoctl, at):
    with at(told(["vm"])):
        ran = luoctl("timeline", "--generation", "9")
    assert ran.status == 1
    assert "there are 2, 3" in ran.err


def test_without_any_live_update_it_says_so(luoctl, at):
    with at([]):
        ran = luoctl("timeline")
    assert (ran.status, ran.err) == (1, "luoctl: nothing is known of any live update\n")


def test_as_json_it_is_the_reply_and_what_is_made_of_it(luoctl, at):
    events = told(["vm"])
    with at(events):
        said = luoctl("timeline", "--json").json
    assert (said["generation"], said["generations"], said["events"]) == (3, [2, 3], events)
    assert said["timeline"] == json.loads(json.dumps(timeline(3, events).wire()))


def test_as_json_nothing_is_a_reply_as_well(luoctl, at):
    with at([]):
        assert luoctl("timeline", "--json").json == {"generation": 3, "generations": [2, 3], "events": []}


def test_it_is_drawn_into_a_file(luoctl, at, tmp_path):
    with at(told(["vm"])):
        ran = luoctl("timeline", "--svg", str(tmp_path / "update.svg"))
    assert (ran.status, ran.out) == (0, "")
    assert ElementTree.parse(tmp_path / "update.svg").getroot().tag == f"{SVG}svg"


def test_a_file_that_cannot_be_written_is_named(luoctl, at):
    with at(told(["vm"])):
        ran = luoctl("timeline", "--svg", "/nowhere/update.svg")
    assert (ran.status, ran.err) == (1, "luoctl: can't write /nowhere/update.svg: No such file or directory\n")


# On a terminal


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("case", CASES)
def test_it_fits_the_terminal(at, columns, case):
    with at(told(**case)):
        printed = on_a_terminal(columns, "timeline", NO_COLOR="1").text
    lines = printed.splitlines()
    assert max(map(len, lines)) <= min(columns, max(columns, 120))
    bars = [line for line in lines if "█" in line and "blackout" not in line]
    assert len(bars) >= 7 + len(case["clients"])
    assert max(map(len, bars)) <= min(columns, 120)


def test_only_a_terminal_gets_colours(at, luoctl):
    with at(told(["vm"])):
        assert "\x1b[" in on_a_terminal(80, "timeline").text


def test_without_a_terminal_there_are_80_columns_and_no_colours(at, luoctl):
    with at(told(TWELVE)):
        printed = luoctl("timeline").out
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_without_utf_8_it_is_drawn_in_ascii(at):
    with at(told(["vm"])):
        printed = on_a_terminal(80, "timeline", NO_COLOR="1", PYTHONIOENCODING="ascii").text
    assert printed.isascii()
    assert re.search(r"^kernel starts +[| #]+ +0\.22 s +27\.5 %$", printed, re.MULTILINE)


def test_what_came_long_before_the_blackout_does_not_make_that_small():
    of = timeline(3, told(["vm"], scale=1.0, prepare=300.0))
    assert shown_from(of) > of.start
    assert (of.end - of.blackout.start) / (of.end - shown_from(of)) > 0.7


def test_one_that_was_aborted_says_why(at, luoctl):
    events = [
        {"what": "prepare", "usec": BEGAN, "via": "direct"},
        {"what": "ready", "usec": BEGAN + 500_000, "who": "web"},
        {"what": "veto", "usec": BEGAN + 1_000_000, "who": "vm", "reason": "busy"},
        {"what": "aborted", "usec": BEGAN + 1_100_000, "reason": "vm vetoed it"},
    ]
    with at(events):
        printed = luoctl("timeline").out
    assert printed.splitlines()[0].endswith(": aborted")
    assert "\nAborted: vm vetoed it\n" in printed
    assert re.search(r"^vm +─+✗", printed, re.MULTILINE)
    assert re.search(r"^web +─+◆", printed, re.MULTILINE)
    assert "Blackout" not in printed
    assert drawn(timeline(1, events)).count("Aborted: vm vetoed it") == 2


def test_one_that_is_under_way_says_so():
    of = timeline(1, told(["vm"])[:4])
    assert heading(of).endswith(": under way")
    assert summary(of) == []


def test_who_comes_much_later_is_seen_and_does_not_make_the_rest_small(at, luoctl):
    events = told(["vm", "gone"])
    events = [event for event in events if event["what"] not in ("first", "finished") or event["who"] == "vm"]
    events += [{"what": "first", "usec": BEGAN + 3_600_000_000, "who": "lazy"}]
    with at(events):
        printed = luoctl("timeline").out
    assert re.search(r"^gone +[◂─]+◆[ │]*$", printed, re.MULTILINE)
    assert re.search(r"^lazy[ │]+╌+▸ +59 min$", printed, re.MULTILINE)
    assert "(lazy came 59 min after the kexec, and isn't counted)" in unwrapped(printed)
    assert "lazy came later" in drawn(timeline(3, events))


def test_of_many_clients_the_last_ones_are_shown_and_those_who_refused():
    clients = [f"vm{number:03}" for number in range(100)]
    events = told(clients)
    next(event for event in events if event["what"] == "ready" and event["who"] == "vm007")["what"] = "unready"
    of = timeline(3, events)
    shown, others = shown_clients(of, 16)
    assert [client.who for client in shown] == ["vm007", *clients[-15:]]
    assert others == "and 84 more, back after 0.70 s to 0.79 s"
    assert drawn(of).count("M") < 150
    assert shown_clients(of, 100) == (list(of.clients), "")


def test_where_nobody_has_come_luod_is_waited_for():
    events = [event for event in told(["vm"]) if event["what"] not in ("first", "finished")]
    assert "until luod served; no owner has come yet" in summary(timeline(3, events))[0]


# As SVG


def texts(svg):
    """Each text with where it is, as x from and to, and y."""
    for element in svg.iter(f"{SVG}text"):
        look = element.get("class", "")
        x, y, size = float(element.get("x")), float(element.get("y")), 11 if "small" in look else 13
        wide = 0.53 * size * len(element.text)
        if "right" in look:
            yield element.text, x - wide, x, y
        elif "middle" in look or "inside" in look:
            yield element.text, x - wide / 2, x + wide / 2, y
        else:
            yield element.text, x, x + wide, y


@pytest.mark.parametrize("case", CASES)
def test_nothing_in_the_picture_is_over_anything_else_or_out_of_it(case):
    svg = ElementTree.fromstring(drawn(timeline(3, told(**case))))
    _, _, width, height = map(float, svg.get("viewBox").split())
    placed = list(texts(svg))
    for text, start, end, y in placed:
        assert 0 <= start < end <= width, text
        assert 0 < y < height, text
        over = [other for other in placed if abs(other[3] - y) < 9 and other[1] < end and other[2] > start]
        assert [other[0] for other in over] == [text]
    for rect in svg.iter(f"{SVG}rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width")) <= width


def test_the_picture_needs_nothing_else_and_can_be_read_to_somebody():
    text = drawn(timeline(3, told(TWELVE)))
    svg = ElementTree.fromstring(text)
    assert re.findall(r"https?://[^\s\"]+|url\(|<script|@import", text) == ["http://www.w3.org/2000/svg"]
    assert svg.get("role") == "img"
    named = [svg.find(f"*[@id='{name}']").text for name in svg.get("aria-labelledby").split()]
    assert named[0].startswith("Live update to generation 3")
    assert "kernel starts: 0.22 s, 27" in named[1] or "kernel starts: 0.22 s" in named[1]
    assert "alice/vm-00: first descriptor after" in named[1]
    assert "prefers-color-scheme: dark" in svg.find(f"{SVG}style").text
    assert "\x1b" not in text


def test_the_parts_of_the_blackout_fill_one_bar():
    svg = ElementTree.fromstring(drawn(timeline(3, told(["vm"]))))
    bar = [rect for rect in svg.iter(f"{SVG}rect") if rect.get("height") == "34"]
    assert sum(float(rect.get("width")) + 1 for rect in bar) == pytest.approx(960 - 2 * 24, abs=1)
    assert len(bar) == 9
