"""What a valid name, token or label is. Every check matches the whole string."""

import re
from typing import Final

SESSION_NAME: Final = re.compile(r"[A-Za-z0-9_:@-][A-Za-z0-9._:@-]{0,47}")
"""A client's name for a session: 1 to 48 ASCII characters, no leading dot."""

FILE_NAME_MAX: Final = 64
"""The longest word of an owner's own for a file, in UTF-8 bytes."""

LABEL_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
LABEL_VALUE_MAX: Final = 255
LABELS_MAX: Final = 16

LINK_PATTERN_MAX: Final = 127
"""As the longest name of a link, an alternative one (ALTIFNAMSIZ)."""

NETWORK_SESSIONS: Final = ("luod-network-a", "luod-network-b")
"""Those in which the network is handed over."""

NETWORK_REPORT: Final = "network.json"
"""In luod's runtime directory: what came of setting it up again (see `network.report`)."""

TOKEN_MAX: Final = 2**63 - 1
"""Tokens are 0 .. 2^63-1: what a Varlink `int` can carry of the kernel's u64."""

KERNEL_NAME_MAX: Final = 63
"""LIVEUPDATE_SESSION_NAME_LENGTH without its NUL, in bytes (include/uapi/linux/liveupdate.h)."""


def session_name(value: str) -> str:
    """Return `value` if it can name a session, else raise ValueError with the rule it breaks."""
    if SESSION_NAME.fullmatch(value) is None:
        raise ValueError("must be 1 to 48 of A-Z a-z 0-9 . _ : @ -, with no leading dot")
    return value


def file_name(value: str) -> str:
    """Return `value` if it can name a file: printable, 1 to 64 bytes of UTF-8."""
    if not value.isprintable() or not 1 <= len(value.encode()) <= FILE_NAME_MAX:
        raise ValueError(f"must be 1 to {FILE_NAME_MAX} bytes of printable text")
    return value


def labels(value: dict[str, str]) -> dict[str, str]:
    """Return `value` if it can label a session."""
    if len(value) > LABELS_MAX:
        raise ValueError(f"must be at most {LABELS_MAX} labels")
    for key, text in value.items():
        if LABEL_KEY.fullmatch(key) is None:
            raise ValueError("a label's key must be 1 to 48 of A-Z a-z 0-9 . _ -, starting with a letter or digit")
        if not text.isprintable() or len(text.encode()) > LABEL_VALUE_MAX:
            raise ValueError(f"a label's value must be at most {LABEL_VALUE_MAX} bytes of printable text")
    return value


def link_pattern(value: str) -> str:
    """Return `value` if it is the name of a link, or a pattern of names (fnmatch(3))."""
    if not 1 <= len(value) <= LINK_PATTERN_MAX or any(letter in "/:" or letter.isspace() for letter in value):
        raise ValueError(
            f"must be a link's name or a pattern of names: 1 to {LINK_PATTERN_MAX} letters, no space, / or :"
        )
    return value


def camel(snake: str) -> str:
    """Return a field's name as it stands on the wire: file_descriptor_index, fileDescriptorIndex."""
    head, *tail = snake.split("_")
    return head + "".join("USec" if word == "usec" else word.capitalize() for word in tail)
