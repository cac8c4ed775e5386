"""What takes long to make is made once and kept outside the checkout, under a name that says what it was made of."""

import fcntl
import hashlib
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

KEPT = 4
"""How many of a kind stay, whenever somebody has asked for them last."""

A_DAY = 24 * 60 * 60


def cache():
    """Where everything is kept: removing it costs only time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "luod" / "vm"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name):
    """Be alone with what has this name in the cache."""
    with open(cache() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made(name, ingredients, make):
    """The directory `<name>-<digest of the ingredients>`, filled by `make(directory)` unless it is there.

    It appears whole or not at all. Of a kind, the first word of the name, one is made at a time.
    """
    digest = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:16]
    path = cache() / f"{name}-{digest}"
    kind = name.partition("-")[0]
    with locked(kind):
        if not path.exists():
            unfinished = cache() / f"{kind}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)  # of somebody who was killed
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(path)
        os.utime(path)
        _forget_older(kind)
    return path


def _forget_older(kind):
    """Each state of the checkout makes more: the last few stay, and what was asked for today may still be in use."""
    there = sorted((path for path in cache().glob(f"{kind}-*") if path.is_dir()), key=os.path.getmtime)
    for path in there[:-KEPT]:
        if os.path.getmtime(path) < time.time() - A_DAY:
            shutil.rmtree(path)


def recipe(*modules):
    """What some modules of this package say: an ingredient, so that a changed recipe is cooked again."""
    return "".join((Path(__file__).parent / module).read_text() for module in modules)
