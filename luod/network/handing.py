"""What luod holds of the network: a snapshot in a session of its own, in the custody of whoever has taken it.

There are two names for it. A new snapshot goes under one of them, and what is under the other goes when luod has the
new one whole: so an older one stays, whatever fails and whoever is killed. A reader takes the newest that can be read.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from luod.client import Client, Direction, LuodError, Session, SessionNotFound
from luod.errors import WireError
from luod.fds import FdBundle, OwnedFd
from luod.handover import BadReport, report_in
from luod.memory import new_memory
from luod.names import NETWORK_REPORT, NETWORK_SESSIONS
from luod.network.model import BadSnapshot, Snapshot
from luod.network.report import Report

MOST: Final = 256 << 20
"""How much is read as a snapshot, in bytes."""

_TOKEN: Final = 0
_WORD: Final = "network"
_LOCK: Final = "network.lock"
_CHECKSUM: Final = "crc32"
"""The label of a session that says what is in its memory: one letter that is another makes another network."""


@dataclass(frozen=True)
class Held:
    """One of the sessions, and its snapshot; or why that can't be read. `begun`: nothing is in it yet."""

    session: Session
    snapshot: Snapshot | None = None
    reason: str | None = None
    begun: bool = False

    @property
    def name(self) -> str:
        return self.session.name

    @property
    def came_over(self) -> bool:
        """Whether it was taken in an earlier boot; luod may have preserved it again since, for the next live update."""
        return self.session.generation > 0


def held(luod: Client) -> list[Held]:
    """What luod holds: the newest first, then what can't be read."""
    while True:
        try:
            found = [_read(luod, session) for session in luod.list() if session.name in NETWORK_SESSIONS]
        except SessionNotFound:  # there is a newer one meanwhile
            continue
        return sorted(found, key=lambda each: each.snapshot.taken if each.snapshot else -1, reverse=True)


@dataclass(frozen=True)
class Coming:
    """What is to be set up, if anything: `newest` came over, or may be set up in the boot that it was taken in; of
    `unread` nobody knows what it would have been. `waits`: there is one, though it be for the next kernel.
    """

    newest: Held | None
    unread: tuple[Held, ...]
    waits: bool = False

    def __bool__(self) -> bool:
        return self.newest is not None or bool(self.unread)


def coming(luod: Client, *, same_boot: bool) -> Coming:
    """What luod holds that is to be set up in this kernel; with `same_boot` also what was taken in it."""
    there = held(luod)
    whole = [each for each in there if each.snapshot is not None]
    newest = next((each for each in whole if each.came_over or same_boot), None)
    unread = tuple(each for each in there if each.snapshot is None and not (whole and each.begun))
    return Coming(newest, unread, waits=bool(whole))


class Put(NamedTuple):
    """Where a snapshot is: the name of its session, its bytes, and what had to go although it couldn't be read."""

    name: str
    size: int
    unread: list[Held]


def put(luod: Client, snapshot: Snapshot) -> Put:
    """Have luod hold a snapshot, in place of what it held. Raises what luod refuses, and OSError."""
    there = held(luod)
    free = [name for name in NETWORK_SESSIONS if name not in {each.name for each in there}]
    if not free:
        end(luod, there[-1].session)
        free = [there[-1].name]
    name = free[0]
    data = snapshot.encode()
    with _memory_of(data) as memory:
        luod.create(name, {_CHECKSUM: _checksum(data)})
        try:
            luod.preserve(name, memory, _TOKEN, _WORD)
        except BaseException:
            with suppress(LuodError, OSError):
                luod.discard(name)
            raise
    for each in there:
        if each.name != name:
            end(luod, each.session)
    return Put(name, len(data), [each for each in there if each.snapshot is None and not each.begun])


def end(luod: Client, session: Session) -> None:
    """Have it gone, whatever it is. Raises what luod refuses."""
    with suppress(SessionNotFound):
        if session.lost is None and session.direction is Direction.INCOMING:
            luod.finish(session.name)
        else:
            luod.discard(session.name)


def end_applied(luod: Client, applied: Held) -> None:
    """Have a snapshot gone that was applied, and what is older; not one that was taken since."""
    assert applied.snapshot is not None
    for each in held(luod):
        older = each.snapshot is not None and each.snapshot.taken <= applied.snapshot.taken
        if older or each.begun:
            end(luod, each.session)


def _read(luod: Client, session: Session) -> Held:
    """Raises SessionNotFound where it is gone meanwhile."""
    if session.lost is not None:
        return Held(session, reason=f"it is lost: {session.lost}")
    if not session.files and session.mode == "custodial":
        return Held(session, reason="nothing was written into it", begun=True)
    try:
        files = luod.retrieve(session.name)
    except SessionNotFound:
        raise
    except WireError as error:
        return Held(session, reason=str(error))
    with FdBundle(files.values()):
        try:
            data = _content(files.get(_TOKEN))
            if session.labels.get(_CHECKSUM, checksum := _checksum(data)) != checksum:
                raise BadSnapshot("it isn't what was written into it")
            return Held(session, Snapshot.decode(data))
        except BadSnapshot as error:
            return Held(session, reason=str(error))
        except OSError as error:
            return Held(session, reason=f"its memory can't be read: {error.strerror}")


def _checksum(data: bytes) -> str:
    return f"{crc32(data):08x}"


def _content(memory: OwnedFd | None) -> bytes:
    if memory is None:
        raise BadSnapshot("there is something else in it")
    size = os.fstat(memory.fileno()).st_size
    if size > MOST:
        raise BadSnapshot(f"it is larger than {MOST >> 20} MiB")
    parts, at = list[bytes](), 0
    while part := os.pread(memory.fileno(), size - at, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _memory_of(data: bytes) -> OwnedFd:
    """Memory that has exactly this in it, without holes; the caller's to close. Raises OSError."""
    memory = new_memory("luod-network")
    try:
        with open(memory.fileno(), "wb", closefd=False) as file:
            file.write(data)
    except BaseException:
        memory.close()
        raise
    return memory


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait until nobody else changes what luod holds of the network, as far as they use the same directory of luod's.
    Whoever mustn't write there is alone with their own sessions.
    """
    try:
        fd = OwnedFd(os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError:
        yield
        return
    with fd:
        fcntl.flock(fd.fileno(), fcntl.LOCK_EX)
        yield


# What came of it


def write_report(directory: Path, report: Report) -> None:
    """It appears whole, or not at all. Raises OSError."""
    new = directory / f"{NETWORK_REPORT}.new"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(report.model_dump_json(indent=2) + "\n")
        new.replace(directory / NETWORK_REPORT)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def read_report(directory: Path) -> Report | None:
    """The last one; None where there is none. Raises BadSnapshot where it can't be read as one."""
    try:
        said = report_in(directory)
    except BadReport as error:
        raise BadSnapshot(f"{directory}: {error}") from None
    if said is None:
        return None
    try:
        return Report.model_validate(said)
    except ValueError:
        raise BadSnapshot(f"{directory}: {NETWORK_REPORT} is no report") from None
