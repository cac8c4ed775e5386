"""What was preserved, as its owners measured it then, against what came back.

The driver keeps it: no client and no luod has a hand in the expectation that they are held against.
"""

from collections.abc import Iterable
from typing import NamedTuple

from luod.demo.reports import Measured, Report


class File(NamedTuple):
    """Whose file, and under which token."""

    owner: str
    token: int


class Ledger:
    """The account of every file. A file that is missing or changed once is lost."""

    def __init__(self) -> None:
        self._preserved: dict[File, Measured] = {}
        self._retrieved: set[File] = set()
        self._lost: set[File] = set()

    def preserve(self, owner: str, files: Iterable[Measured]) -> None:
        """Take down what an owner gave away."""
        self._preserved |= {File(owner, measured.token): measured for measured in files}

    def check(self, owner: str, came: Report, *, after_kexec: bool) -> list[str]:
        """Hold what an owner measured against what is expected. Returns what is wrong, a line for each file."""
        wrong = []
        back = {measured.token: measured for measured in came.files}
        for file, expected in self.of(owner).items():
            measured = back.pop(file.token, None)
            if measured is None:
                problem = came.failed.get(file.token, "it didn't come back")
            else:
                problem = _difference(expected, measured)
            if problem:
                self._lost.add(file)
                wrong.append(f"token {file.token} is lost: {problem}")
            elif after_kexec:
                self._retrieved.add(file)
        wrong += [f"token {token} came back, but nobody preserved it" for token in back]
        return wrong

    def of(self, owner: str) -> dict[File, Measured]:
        return {file: measured for file, measured in self._preserved.items() if file.owner == owner}

    @property
    def nothing_lost(self) -> bool:
        """Whether something was preserved, and all of it was retrieved after the kexec, unchanged."""
        return bool(self._preserved) and self._preserved.keys() == self._retrieved - self._lost

    def total(self) -> str:
        """The account in a line: what was not retrieved after the kexec, unchanged, is lost."""
        retrieved = len(self._retrieved - self._lost)
        return f"{len(self._preserved)} fds preserved, {retrieved} retrieved, {len(self._preserved) - retrieved} lost"


def _difference(expected: Measured, measured: Measured) -> str:
    changed = [
        f"{name} is {now}, was {was}"
        for name, was in expected.model_dump().items()
        for now in [getattr(measured, name)]
        if now != was
    ]
    return ", ".join(changed)
