"""What a terminal shows of a command, as SVG: `python docs/capture.py PICTURE COLUMNS COMMAND ...`."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich import _export_format
from rich.console import Console
from rich.text import Text

LINES = 60
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
FORMAT = re.sub(r"@font-face {{.*?}}\s*", "", _export_format.CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""A picture that fetches nothing: the reader's own font has to do."""

PROGRESS = re.compile(r"\r[^\n]*\x1b\[K")
"""What was shown only for a while."""


def shown(columns: int, command: list[str]) -> str:
    """What the command prints on a terminal of so many columns, escapes and all. It must succeed."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    environment.pop("NO_COLOR", None)
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            printed = b""
            try:
                while data := terminal.read(65536):
                    printed += data
            except OSError:  # EIO: nobody writes there any more
                pass
        if process.returncode:
            raise SystemExit(f"{command[0]} ended with status {process.returncode}")
    return PROGRESS.sub("", printed.decode().replace("\r\n", "\n"))


def picture(title: str, columns: int, text: str) -> str:
    """The SVG."""
    console = Console(record=True, width=columns, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(text.strip("\n")))
    svg = console.export_svg(title=title, code_format=FORMAT.replace("Fira Code, monospace", FONTS))
    return re.sub(r" *\n", "\n", svg)


def main(name: str, columns: str, *command: str) -> None:
    Path(name).write_text(picture(" ".join(command), int(columns), shown(int(columns), [*command])))


if __name__ == "__main__":
    main(*sys.argv[1:])
