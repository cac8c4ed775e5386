"""luod's own programs as its children, where there is no systemd to run them, and luod has no sandbox."""

import os
import sys
from typing import Final, NamedTuple

_KILLED: Final = 10.0
"""How long a child may take to end once it is killed, in seconds: a disk may hold it up."""


class Ended(NamedTuple):
    """`status` is that of the exit, or minus a signal; None where the child doesn't even end when it is killed. `late`:
    it was killed, for its time was over.
    """

    status: int | None
    err: str
    late: bool = False


def run(*words: str, patience: float) -> Ended:
    """Run `python -m WORDS…`, for so many seconds at most."""
    import subprocess

    child = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is luod's
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    late = False
    try:
        _, said = child.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        late = True
        child.kill()
        try:
            _, said = child.communicate(timeout=_KILLED)
        except subprocess.TimeoutExpired:
            return Ended(None, "", late)
    return Ended(child.returncode, said.strip(), late)
