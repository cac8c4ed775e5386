"""A command line means to luod what it means to the kernel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luod.kernel.cmdline import (
    COMMAND_LINE_SIZE,
    KHO,
    LIVE_UPDATE,
    CommandLineError,
    check,
    is_on,
    parameters,
    turns_on_live_update,
    with_parameter,
    without_parameter,
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        (" \t\n\v\f\r ", []),
        ("quiet", [("quiet", None)]),
        ("  a=1  b \n", [("a", "1"), ("b", None)]),
        ("a= b==c =d", [("a", ""), ("b", "=c"), ("=d", None)]),
        ('a="b c" d', [("a", "b c"), ("d", None)]),
        ('"a=b c" "d e"', [("a", "b c"), ("d e", None)]),
        ('a=b" "c d=x"y"', [("a", 'b" "c'), ("d", 'x"y"')]),
        ('a="b c', [("a", "b c")]),
        ('"', [("", None)]),
        ('a="', [("a", "")]),
        ("a -- b=c", [("a", None)]),
        ('a "--" b=c', [("a", None)]),
        ("a --=b --c", [("a", None), ("--", "b"), ("--c", None)]),
        ("a='b c'", [("a", "'b"), ("c'", None)]),
        ("name=\udcff\udca0x", [("name", "\udcff"), ("x", None)]),
    ],
)
def test_parameters_are_parted_as_the_kernel_parts_them(line, expected):
    assert list(parameters(line)) == expected


@pytest.mark.parametrize("value", ["on", "ON", "oNly", "1", "10", "y", "Yes", "t", "TRUE", "enable", "E"])
def test_what_the_kernel_takes_for_a_yes(value):
    assert is_on(f"quiet liveupdate={value}", LIVE_UPDATE) is True


@pytest.mark.parametrize("value", ["off", "OF", "0", "01", "n", "No", "f", "FALSE", "disable", "D"])
def test_what_the_kernel_takes_for_a_no(value):
    assert is_on(f"liveupdate={value} quiet", LIVE_UPDATE) is False


@pytest.mark.parametrize("word", ["", "liveupdate", "liveupdate=", "liveupdate=o", "liveupdate=2", "liveupdate= on"])
def test_what_the_kernel_takes_for_neither_leaves_what_was_said_before(word):
    assert is_on(word, LIVE_UPDATE) is None
    assert is_on(f"liveupdate=on {word}", LIVE_UPDATE) is True
    assert is_on(f"liveupdate=off {word}", LIVE_UPDATE) is False


def test_the_last_one_counts():
    assert is_on("kho=on kho=off", KHO) is False
    assert is_on("kho=off kho=on", KHO) is True


@pytest.mark.parametrize(
    "line", ["Liveupdate=on", "liveupdate.x=on", "xliveupdate=on", "-- liveupdate=on", 'a="x liveupdate=on"']
)
def test_what_only_looks_like_it_is_not_the_parameter(line):
    assert is_on(line, LIVE_UPDATE) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", False),
        ("kho=on", False),
        ("liveupdate=off kho=on", False),
        ("liveupdate=on kho=off", False),
        ("liveupdate=on kho=on", True),
        ("liveupdate=on", None),
    ],
)
def test_live_updates_take_both_and_kho_may_be_the_kernels_default(line, expected):
    assert turns_on_live_update(line) is expected


@pytest.mark.parametrize(
    ("line", "name", "value", "expected"),
    [
        ("", "kho", "on", "kho=on"),
        ("quiet\n", "kho", "on", "quiet kho=on"),
        ("quiet -- single", "kho", "on", "quiet kho=on -- single"),
        ("-- single", "kho", "on", "kho=on -- single"),
        ("quiet", "a", "b c", 'quiet a="b c"'),
        ('x="y z" ', "a", "", 'x="y z" a='),
    ],
)
def test_a_parameter_is_added_behind_all_others_for_the_kernel(line, name, value, expected):
    assert with_parameter(line, name, value) == expected


@pytest.mark.parametrize(("line", "value"), [('a="b', "on"), ('"', "on"), ("a -- b", 'o"n'), ("a", "o\tn")])
def test_a_parameter_that_would_become_something_else_is_refused(line, value):
    with pytest.raises(CommandLineError, match="can't be added"):
        with_parameter(line, "kho", value)


words = st.text(alphabet='ab= "-\t', max_size=12)


@given(line=words, value=words)
def test_what_is_added_is_the_last_and_changes_nothing_before_it(line, value):
    try:
        longer = with_parameter(line, "name", value)
    except CommandLineError:
        return
    assert list(parameters(longer)) == [*parameters(line), ("name", value)]


def test_a_line_is_as_long_as_a_kernel_takes():
    check("x" * (COMMAND_LINE_SIZE - 1))
    check("ä" * 1008, 2016)
    with pytest.raises(CommandLineError, match=r"^the command line has 2048 bytes, and this kernel takes 2047$"):
        check("x" * COMMAND_LINE_SIZE)
    with pytest.raises(CommandLineError, match=r"^the command line has 2018 bytes, and this kernel takes 2016$"):
        check("ä" * 1009, 2016)


def test_a_line_has_no_nul():
    with pytest.raises(CommandLineError, match=r"^there is a NUL in the command line$"):
        check("quiet\0liveupdate=on")


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("quiet luod.from=a/1", "quiet"),
        ("luod.from=a/1 quiet", "quiet"),
        ("quiet luod.from=a/1  debug luod.from=b/2 -- single", "quiet  debug -- single"),
        ('"luod.from=a 1"', ""),
        ("luod.from", ""),
        ("quiet  debug ", "quiet  debug "),
        ("quiet -- luod.from=a/1", "quiet -- luod.from=a/1"),
        ("luod.fromage=a/1", "luod.fromage=a/1"),
    ],
)
def test_a_parameter_is_taken_out_wherever_it_stands(line, rest):
    assert without_parameter(line, "luod.from") == rest
