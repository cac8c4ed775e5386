"""A kernel's command line, read as the kernel reads it. No I/O.

Spaces part parameters, quotation marks protect spaces, and what stands behind `--` is for init (lib/cmdline.c,
next_arg(); kernel/params.c, parse_args()). What turns live updates on are two booleans that are read early: of
several, the last one counts that has a value the kernel knows (init/main.c, do_early_param(); luo_core.c and
kexec_handover.c in kernel/liveupdate/).
"""

import os
import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Final

from luod.errors import LuodError

COMMAND_LINE_SIZE: Final = 2048
"""What a kernel keeps of it, with a NUL, in bytes, on x86 and arm64 (asm/setup.h)."""

LIVE_UPDATE: Final = "liveupdate"
KHO: Final = "kho"

_WORD: Final = re.compile(rb'(?:[^"\t-\r \xa0]++|"[^"]*+"?)++')
"""What stands between what isspace() takes for spaces (lib/ctype.c)."""

_ON: Final = re.compile(r"[eEyYtT1]|[oO][nN]")
_OFF: Final = re.compile(r"[dDnNfF0]|[oO][fF]")
"""What a value begins with that kstrtobool() takes for yes or no (lib/kstrtox.c); the rest of it doesn't matter."""


class CommandLineError(LuodError):
    """The kernel wouldn't take this command line as it is meant. The text says why."""


def parameters(line: str) -> Iterator[tuple[str, str | None]]:
    """The names of what is for the kernel, in order, each with its value: None where there is none."""
    for word in _for_the_kernel(os.fsencode(line)):
        name, value = _parted(word.group())
        yield os.fsdecode(name), None if value is None else os.fsdecode(value)


def is_on(line: str, name: str) -> bool | None:
    """Whether a boolean parameter is on; None where the kernel is left with its default."""
    answer = None
    for other, value in parameters(line):
        if other == name and value is not None:
            if _ON.match(value):
                answer = True
            elif _OFF.match(value):
                answer = False
    return answer


def turns_on_live_update(line: str) -> bool | None:
    """Whether a kernel that knows live updates is ready for them with this line.

    None where that depends on its CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT, which no image tells: `kho=on` settles it.
    """
    return is_on(line, KHO) if is_on(line, LIVE_UPDATE) else False


def with_parameter(line: str, name: str, value: str) -> str:
    """The line with one more parameter, behind all others that are for the kernel.

    Raises CommandLineError where something else would come of it.
    """
    before = os.fsencode(line)
    words = list(_for_the_kernel(before))
    end = words[-1].end() if words else 0
    added = os.fsencode(f'{name}="{value}"' if " " in value else f"{name}={value}")
    parts = [part for part in (before[:end].strip(), added, before[end:].strip()) if part]
    longer = os.fsdecode(b" ".join(parts))
    if list(parameters(longer)) != [*parameters(line), (name, value)]:
        raise CommandLineError(f"{name}={value} can't be added to the command line: mind the quotation marks")
    return longer


def without_parameter(line: str, name: str) -> str:
    """The line without what it says of a parameter to the kernel; all else is as it was."""
    before = os.fsencode(line)
    kept, end = b"", 0
    for word in _for_the_kernel(before):
        if os.fsdecode(_parted(word.group())[0]) == name:
            kept, end = kept + before[end : word.start()].rstrip(), word.end()
    return os.fsdecode((kept + before[end:]).strip() if end else before)


def check(line: str, most: int = COMMAND_LINE_SIZE - 1) -> None:
    """Raise CommandLineError where the line has more than `most` bytes (`Image.command_line_max`), or a NUL."""
    size = len(os.fsencode(line))
    if size > most:
        raise CommandLineError(f"the command line has {size} bytes, and this kernel takes {most}")
    if "\0" in line:
        raise CommandLineError("there is a NUL in the command line")


def _for_the_kernel(line: bytes) -> Iterator[re.Match[bytes]]:
    return takewhile(lambda word: _parted(word.group()) != (b"--", None), _WORD.finditer(line))


def _parted(word: bytes) -> tuple[bytes, bytes | None]:
    """A parameter's name and value, as next_arg() parts them: quotation marks in the middle stay."""
    quoted = word.startswith(b'"')
    inside = word.removeprefix(b'"')
    equals = inside.find(b"=", 1)
    if equals < 0:
        return inside.removesuffix(b'"') if quoted else inside, None
    name, value = inside[:equals], inside[equals + 1 :]
    if quoted or value.startswith(b'"'):
        value = value.removeprefix(b'"').removesuffix(b'"')
    return name, value
