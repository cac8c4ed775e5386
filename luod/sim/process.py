"""Run a simulated kernel for the length of a `with` block."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath

from luod.sim.client import Control


@contextmanager
def simulator(path: str | PathLike[str]) -> Iterator[Control]:
    """A simulated kernel that listens at `path` (`control.path`), in a process of its own.

    Raises RuntimeError where it doesn't start; it has said why on standard error.
    """
    command = [sys.executable, "-m", "luod.sim", "--socket", fspath(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith(b"listening on "):
                raise RuntimeError(f"no simulated kernel at {fspath(path)}")
            yield Control(fspath(path))
        finally:
            process.terminate()
