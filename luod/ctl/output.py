"""What luoctl prints: tables for people, JSON for programs. Nothing that luod says can command the terminal."""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from luod.client import File

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_AGES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_ANY_WIDTH = 100_000
_TOKENS_SHOWN = 8


def print_json(value: Any) -> None:
    """Print a JSON value. All but ASCII is escaped, control characters too."""
    print(json.dumps(value, indent=2))


def print_line(text: str) -> None:
    print(visible(text))


def show(*parts: "RenderableType", plain_width: int = _ANY_WIDTH) -> None:
    """Print tables and texts, an empty line between them: as wide as the terminal, plain where there is none."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(
        color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
        width=None if terminal else plain_width,
        highlight=False,
        emoji=False,
    )
    for number, part in enumerate(parts):
        with console.capture() as captured:
            console.print(part)
        lines = captured.get().splitlines()
        print("\n" * (number > 0) + "\n".join(line.rstrip() for line in lines))


def table(*headings: str, rows: Iterable[Sequence[Any]]) -> "Table":
    """A table. A heading that starts with `>` is that of a column of numbers. A cell is a text, or a styled one."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        number = heading.startswith(">")
        made.add_column(
            heading.removeprefix(">"),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(_cell(cell) for cell in row))
    return made


def facts(pairs: Mapping[str, Any]) -> "Table":
    """One fact a line. Those that are None are left out."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None:
            made.add_row(name, _cell(value))
    return made


def styled(text: str, style: str) -> "RenderableType":
    from rich.text import Text

    return Text(visible(text), style)


def styled_lines(lines: Sequence[str], style: str) -> "RenderableType":
    from rich.text import Text

    return Text("\n".join(visible(line) for line in lines), style)


def _cell(value: Any) -> "RenderableType":
    from rich.text import Text

    if isinstance(value, Text):
        return value
    lines = value if isinstance(value, list) else ["" if value is None else value]
    return Text("\n".join(visible(str(line)) for line in lines))


def visible(text: str) -> str:
    r"""The text with what can't be printed as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )


def size(count: int | None) -> str | None:
    """Bytes as people read them: 4.0 KiB."""
    if count is None:
        return None
    value, unit = float(count), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} B"


def age(usec: int) -> str:
    """How long ago a CLOCK_REALTIME time in microseconds was: 3 h ago."""
    seconds = int(time.time() - usec / 1_000_000)
    for length, unit in _AGES:
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "just now" if seconds > -2 else "in the future"


def moment(usec: int) -> str:
    """A CLOCK_REALTIME time in microseconds, here: 2026-02-28 14:00:07 (3 h ago)."""
    try:
        local = datetime.fromtimestamp(usec // 1_000_000).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(usec)
    return f"{local:%Y-%m-%d %H:%M:%S} ({age(usec)})"


def user(uid: int) -> str:
    """The name of a user, or the uid of one without."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def whose(owner: int | None) -> str:
    """The name of an owner: the caller where it is None."""
    return user(os.getuid() if owner is None else owner)


def count(number: int, what: str) -> str:
    """1 file, 2 files."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def amount(files: "Sequence[File]") -> str:
    """How many files, and how much memory: 2 files, 5.9 KiB."""
    return f"{count(len(files), 'file')}, {size(sum(file.size or 0 for file in files))}"


def tokens(files: "Sequence[File]") -> str:
    """The tokens of files, with their owner's words, so that one can be chosen: 0 (kernel), 7, and 12 more."""
    shown = [f"{file.token} ({file.name})" if file.name else str(file.token) for file in files[:_TOKENS_SHOWN]]
    rest = len(files) - len(shown)
    return ", ".join(shown) + (f", and {rest} more" if rest else "")
