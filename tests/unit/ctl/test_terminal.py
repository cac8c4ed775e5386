"""What luoctl prints on a terminal, and what it keeps from it."""

import pytest

from luod.ctl import output

from .terminal import on_a_terminal

ESCAPE = "\x1b"


def test_a_terminal_gets_colours(luod):
    assert ESCAPE in on_a_terminal(80, "list").text
    assert ESCAPE in on_a_terminal(80, "introspect", "io.luod.Custody").text


@pytest.mark.parametrize("arguments", [["list"], ["show", "ram"], ["status"], ["introspect", "io.luod.Custody"]])
def test_no_color_means_no_escapes_at_all(luod, arguments):
    assert ESCAPE not in on_a_terminal(80, *arguments, NO_COLOR="1").text


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("arguments", [["list", "--all"], ["show", "ram"], ["manifest", "show"]])
def test_tables_fit_the_terminal(luod, columns, arguments):
    printed = on_a_terminal(columns, *arguments, NO_COLOR="1").text
    assert printed
    assert max(len(line) for line in printed.splitlines()) <= columns


def test_a_pipe_gets_neither_escapes_nor_a_width(luoctl, luod):
    out = luoctl("manifest", "show").out
    assert ESCAPE not in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_what_others_named_can_not_command_the_terminal():
    assert output.visible("tame") == "tame"
    assert output.visible("\x1b]0;owned\x07\x9b31m\n") == r"\x1b]0;owned\x07\x9b31m\n"


def test_json_is_ascii(capsys):
    output.print_json({"name": "\x9b☃"})
    assert capsys.readouterr().out.isascii()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3 * 1024**3 // 2, "1.5 GiB"),
        (2**63, "8.0 EiB"),
        (2**80, "1048576.0 EiB"),
    ],
)
def test_sizes_are_as_people_read_them(count, text):
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "just now"),
        (59, "59 s ago"),
        (61, "1 min ago"),
        (7300, "2 h ago"),
        (200_000, "2 d ago"),
        (-3600, "in the future"),
    ],
)
def test_ages_are_as_people_read_them(monkeypatch, seconds, text):
    now = 1_800_000_000.25
    monkeypatch.setattr(output.time, "time", lambda: now)
    assert output.age(int((now - seconds) * 1_000_000)) == text


def test_a_time_that_no_calendar_has_is_a_number():
    assert output.moment(2**62) == str(2**62)
