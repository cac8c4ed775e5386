"""What the demo needs of the place that it plays in: a kernel, luod and its clients, wherever they run."""

import signal
from typing import NamedTuple, Protocol

from luod.client import Session
from luod.demo.reports import Event, Report
from luod.interface.update import StatusReply


class Failed(Exception):
    """Somebody didn't do what was expected. The text says what happened instead."""

    def __init__(self, who: str, reason: str) -> None:
        super().__init__(reason)
        self.who = who


class Boot(NamedTuple):
    """A start of the kernel, from when to when. `text` says that it is up, and which one it is."""

    id: str
    text: str
    started: float
    up: float


class Process(Protocol):
    """A process that somebody plays in. Its text says where it is."""

    @property
    def who(self) -> str: ...

    @property
    def started(self) -> float: ...

    async def report(self, expected: Event) -> Report:
        """The next report of a client, which must be this one; `at` is when, by this process's clock. Raises Failed."""

    async def kill(self) -> None:
        """End it with SIGKILL, wherever it is. Of luod there is soon a next one."""

    async def leave(self) -> None:
        """Let it end by itself. Raises Failed."""


class Stage(Protocol):
    """Where the demo plays. Whoever doesn't do his part there raises Failed."""

    @property
    def end_of_all(self) -> str:
        """What becomes of every process at a kexec."""

    async def start_kernel(self) -> Boot: ...

    async def start_luod(self) -> Process:
        """A luod that is ready, under `luod supervise`."""

    async def start_client(self, role: str, *arguments: str) -> Process: ...

    async def ask_luod(self) -> tuple[StatusReply, list[Session]]:
        """What luod says of itself and of its sessions, as soon as it answers."""

    async def make_ready_for_kexec(self) -> tuple[str, str]:
        """Do what comes before a kexec. Returns what to say of the kernel then, and an explanation."""

    async def kexec(self) -> Boot:
        """Go into the next kernel. Afterwards no process is left."""

    async def what_came_over(self) -> str:
        """What the next kernel was given, in words."""

    def log(self, who: str) -> list[str]:
        """The last lines of somebody's log, over all incarnations."""


def understood(who: str, line: str | bytes, expected: Event) -> Report:
    """The report in a line of a client's, which must be this one. Raises Failed."""
    try:
        report = Report.model_validate_json(line)
    except ValueError:
        raise Failed(who, f"it said {line.decode(errors='replace') if isinstance(line, bytes) else line!r}") from None
    if report.event is not expected:
        raise Failed(who, f"it has {report.event}, where it should have {expected}")
    return report


def ending(status: int | None) -> str:
    """How a process ended with this status, or that it didn't, though it should have."""
    match status:
        case None:
            return "it doesn't end"
        case status if status < 0:
            return f"it was ended by {signal.Signals(-status).name}"
        case status:
            return f"it ended with status {status}"
