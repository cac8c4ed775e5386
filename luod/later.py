"""What is there a little later than those who may ask for it."""

import threading
from typing import Generic, TypeVar

from luod.errors import UpdateAborted

T = TypeVar("T")


class Later(Generic[T]):
    """Something that is made while others are served already."""

    def __init__(self) -> None:
        self._made = threading.Event()
        self._it: T | None = None

    def be(self, it: T | None) -> None:
        """It is there; None: it never will be."""
        self._it = it
        self._made.set()

    def wait(self) -> T | None:
        """Wait for it; None where it never comes."""
        self._made.wait()
        return self._it

    def get(self) -> T:
        """Wait for it. Raises UpdateAborted where it never comes: only live updates can't do without."""
        if (it := self.wait()) is None:
            raise UpdateAborted("luod failed as it started, its log says how")
        return it
