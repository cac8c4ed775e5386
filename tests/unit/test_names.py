"""What is a valid name, matched as a whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luod import names

GOOD_SESSIONS = ["r", "ram", "vm-1", "a.b:c@d_e-f", "_", "-", "@", "9", "A" * 48]
BAD_SESSIONS = [
    "",
    ".",
    "..",
    ".hidden",
    "A" * 49,
    "a b",
    "a/b",
    "a\n",
    "\na",
    "a\0",
    "ä",
    "a\u0301",
    "٣",
    "a" + "\u200b",
]


@pytest.mark.parametrize("name", GOOD_SESSIONS)
def test_a_session_can_be_called(name):
    assert names.session_name(name) == name


@pytest.mark.parametrize("name", BAD_SESSIONS)
def test_a_session_cannot_be_called(name):
    with pytest.raises(ValueError, match="must be 1 to 48"):
        names.session_name(name)


@given(st.text(max_size=60))
def test_a_sessions_name_is_safe_in_a_path_and_on_a_terminal(text):
    try:
        name = names.session_name(text)
    except ValueError:
        return
    assert name.isascii()
    assert name.isprintable()
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name.encode()) <= names.KERNEL_NAME_MAX


@pytest.mark.parametrize("name", ["a", "guest memory", "ä" * 32, "x" * 64, "🦀" * 16])
def test_a_file_can_be_called(name):
    assert names.file_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "ä" * 33, "a\nb", "\x1b[31m", "\u202e", "\ud800", "\0"])
def test_a_file_cannot_be_called(name):
    with pytest.raises(ValueError, match="must be 1 to 64 bytes of printable text"):
        names.file_name(name)


def test_labels_are_short_and_few():
    good = {f"key.{number}_-": "v" * 255 for number in range(16)}
    assert names.labels(good) == good
    assert names.labels({}) == {}
    assert names.labels({"k": ""}) == {"k": ""}


@pytest.mark.parametrize(
    "labels",
    [
        {f"k{number}": "" for number in range(17)},
        {"": "v"},
        {"-k": "v"},
        {".k": "v"},
        {"k" * 49: "v"},
        {"k\n": "v"},
        {"ä": "v"},
        {"k": "v" * 256},
        {"k": "ä" * 128},
        {"k": "\n"},
        {"k": "\ud800"},
    ],
)
def test_other_labels_are_refused(labels):
    with pytest.raises(ValueError, match="label"):
        names.labels(labels)


def test_a_token_is_what_varlink_can_carry():
    assert names.TOKEN_MAX == 2**63 - 1


@pytest.mark.parametrize(
    ("field", "wire"),
    [
        ("name", "name"),
        ("file_descriptor_index", "fileDescriptorIndex"),
        ("created_usec", "createdUSec"),
        ("deadline_usec", "deadlineUSec"),
        ("boot_id", "bootId"),
    ],
)
def test_fields_have_varlinks_names_on_the_wire(field, wire):
    assert names.camel(field) == wire
