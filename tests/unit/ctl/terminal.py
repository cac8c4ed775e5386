"""A terminal, and what luoctl makes of it."""

import fcntl
import os
import struct
import subprocess
import termios
from dataclasses import dataclass

from .conftest import LUOCTL


@dataclass
class Shown:
    """What was on the terminal in the end, and the exit status."""

    status: int
    text: str


def on_a_terminal(columns: int, *arguments: str, typed: str = "", **environment: str) -> Shown:
    """Run luoctl on a terminal that wide, on which somebody types."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.write(ours, typed.encode())
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")
    }
    with subprocess.Popen(
        [*LUOCTL, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=inherited | {"TERM": "xterm"} | environment,
    ) as luoctl:
        os.close(theirs)
        printed = b""
        try:
            while data := os.read(ours, 65536):
                printed += data
        except OSError:  # EIO: the other end was closed
            pass
    os.close(ours)
    return Shown(luoctl.returncode, printed.decode().replace("\r\n", "\n"))
