"""A terminal, and what luoctl makes of it."""

import fcntl
import os
import re
import struct
import subprocess
import termios
from collections.abc import Callable
from dataclasses import dataclass

from .conftest import LUOCTL


@dataclass
class Shown:
    """What was on the terminal in the end, and the exit status."""

    status: int
    text: str


_PIECES = re.compile(r"\x1b\[(\d*(?:;\d+)*)([A-Za-z])|([\r\n])|([^\x1b\r\n])")


class Screen:
    """What is seen on a terminal of so many columns; `widest` is the longest line that ever was on it."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.widest = 0
        self._lines = [""]
        self._row = self._column = 0

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines).rstrip()

    def print(self, printed: str) -> None:
        for number, command, control, letter in _PIECES.findall(printed):
            line = self._lines[self._row]
            match command or control:
                case "A":
                    self._row -= int(number or 1)
                    assert self._row >= 0
                case "K":
                    self._lines[self._row] = line[: self._column]
                case "J":
                    self._lines[self._row] = line[: self._column]
                    del self._lines[self._row + 1 :]
                case "\r":
                    self._column = 0
                case "\n":
                    self._row, self._column = self._row + 1, 0
                    self._lines += [""] * (self._row == len(self._lines))
                case "":
                    self._lines[self._row] = (
                        line[: self._column].ljust(self._column) + letter + line[self._column + 1 :]
                    )
                    self._column += 1
                    self.widest = max(self.widest, self._column)
                case other:
                    assert other == "m", other


def on_a_terminal(
    columns: int,
    *arguments: str,
    typed: str = "",
    sees: Callable[[str, subprocess.Popen], None] | None = None,
    **environment: str,
) -> Shown:
    """Run luoctl on a terminal that wide, on which somebody types, and `sees` what was printed so far."""
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
                if sees is not None:
                    sees(printed.decode(errors="ignore"), luoctl)
        except OSError:  # EIO: the other end was closed
            pass
    os.close(ours)
    return Shown(luoctl.returncode, printed.decode().replace("\r\n", "\n"))
