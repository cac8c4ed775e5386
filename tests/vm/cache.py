"""What takes long to make is made once and kept outside the checkout, under a name that says what it was made of."""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path


def cache():
    """Where everything is kept: removing it costs only time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "luod" / "vm"
    path.mkdir(parents=True, exist_ok=True)
    return path


def made(name, ingredients, make):
    """The directory `<name>-<digest of the ingredients>`, filled by `make(directory)` unless it is there.

    It appears whole or not at all, and two that ask at once make it once.
    """
    digest = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:16]
    path = cache() / f"{name}-{digest}"
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = Path(f"{path}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(path)
    return path


def recipe(*modules):
    """What some modules of this package say: an ingredient, so that a changed recipe is cooked again."""
    return "".join((Path(__file__).parent / module).read_text() for module in modules)
