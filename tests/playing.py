"""A demo, as somebody runs it."""

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from eventually import within


@contextmanager
def demo(place, module, *arguments, stdout=subprocess.PIPE, **environment):
    """Run a module that is a demo, which makes in `place` what it doesn't keep. Whatever happens, nothing is left."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place), **environment},
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise
    assert list(place.iterdir()) == []
    within(20, lambda: not list(players(place)))  # who was killed may still be on its way out


def players(place):
    """The processes that work in this place: numbers and names."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal() and os.fsencode(place) in (process / "environ").read_bytes():
                yield int(process.name), (process / "comm").read_text().strip()


def lines_until(process, text):
    """What the demo says, up to the line with this text."""
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return said
    raise AssertionError(f"it never said {text!r}, but: {said}")
