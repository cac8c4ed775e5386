"""What luod has in its hands: of every session the kernel's descriptor and a duplicate of each file.

What is acknowledged was written to the journal before. What is taken back after a failure goes into the
journal if it can; if it can't, a reader makes the same of what is there, and the next record brings a snapshot.
"""

import errno
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from luod import errors
from luod.fds import FdBundle, OwnedFd
from luod.kernel.api import Call, KernelError
from luod.kernel.api import Session as KernelSession
from luod.kernel.shared import SharedKernel
from luod.lifecycle import ALLOWED, Request, State
from luod.manifest import (
    Manifest,
    Record,
    Renewed,
    Renewing,
    Session,
    SessionIs,
    SessionMissing,
)
from luod.memory import Inode, Memory, look_at
from luod.policy import Limits, Owner

log = logging.getLogger(__name__)

NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Totals(NamedTuple):
    """What luod holds, counted. `bytes` are the sizes of all files."""

    boot_id: str
    generation: int
    sessions: int
    files: int
    bytes: int


class Journal(Protocol):
    """Where the manifest's records are written down (see `store.Journal`)."""

    epoch: int

    def append(self, record: Record) -> None: ...

    def make_room(self) -> object: ...

    def fall_behind(self) -> None: ...

    def give_up(self) -> None: ...


@dataclass
class Holding:
    """What luod has in its hands of a session: the kernel's session, and a duplicate of each file.

    `kernel` is None for a session that came over and that nobody asked for yet. `checked` says what each file is
    that the kernel holds, tombstones among them.
    """

    session: Session
    kernel: KernelSession | None = None
    files: dict[int, OwnedFd] = field(default_factory=dict)
    checked: dict[int, Memory] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    gone: bool = False


class Holdings:
    """All holdings, with the manifest that says what they are. `table` is the lock for both."""

    def __init__(
        self,
        kernel: SharedKernel,
        manifest: Manifest,
        journal: Journal,
        limits: Limits,
        descriptors: int,
        changed: Callable[[], None],
    ) -> None:
        """`descriptors` is how many there may be at most; `changed` is called, from any thread, after the manifest has
        changed.
        """
        self.manifest = manifest
        self.table = threading.RLock()
        self.inodes: dict[Inode, tuple[int, int]] = {}  # session id, kernel token
        self._by_id = {number: Holding(session) for number, session in manifest.sessions.items()}
        self._kernel = kernel
        self._kernel_names = itertools.count()
        self._journal = journal
        self._limits = limits
        self._descriptors = descriptors
        self._changed = changed

    @property
    def epoch(self) -> int:
        """The number of the journal that is being written."""
        return self._journal.epoch

    def totals(self) -> Totals:
        """How much there is of everything."""
        with self.table:
            sessions = self.manifest.sessions.values()
            there = [session for session in sessions if session.state is not State.LOST]
            files = [file for session in there for file in session.held().values()]
            size = sum(file.size or 0 for file in files)
            return Totals(self.manifest.boot_id, self.manifest.generation, len(sessions), len(files), size)

    def add(self, session: Session, kernel: KernelSession) -> None:
        """Hold a new session from now on. Where that fails it is still the caller's."""
        with self.table:
            self.record(SessionIs(session=session))
            self._by_id[session.id] = Holding(session, kernel)

    def give_up_all(self) -> None:
        """Let go of everything, as the end of the process would: what nobody else has open is gone."""
        with self.table:
            holdings = list(self._by_id.values())
            if holdings:
                log.warning("letting go of %d sessions: what nobody else has open is gone", len(holdings))
            for holding in holdings:
                self.forget(holding)
            self._journal.give_up()

    # The table

    def find(self, uid: int, name: str) -> Session:
        session = self.manifest.find(uid, name)
        if session is None:
            raise errors.SessionNotFound(name)
        return session

    @contextmanager
    def at_work(self, owner: Owner, name: str, request: Request) -> Iterator[Holding]:
        """Have a session to oneself for a request that it can serve."""
        with self.table:
            holding = self._by_id[self.find(owner.uid, name).id]
        with holding.lock:
            if holding.gone:
                raise errors.SessionNotFound(name)
            _allow(holding.session, request)
            yield holding

    def room_for_session(self, owner: Owner, name: str) -> None:
        if self.manifest.find(owner.uid, name) is not None:
            raise errors.SessionExists(name)
        count = sum(session.uid == owner.uid for session in self.manifest.sessions.values())
        if count >= self._limits.sessions_per_owner:
            raise errors.QuotaExceeded("sessions", self._limits.sessions_per_owner)
        self._room_for_descriptors(1)

    def room_for_files(self, session: Session, count: int) -> None:
        if len(session.files) + count > self._limits.files_per_session:
            raise errors.QuotaExceeded("files in a session", self._limits.files_per_session)
        owned = sum(_file_count(other) for other in self.manifest.sessions.values() if other.uid == session.uid)
        if owned + count > self._limits.files_per_owner:
            raise errors.QuotaExceeded("files", self._limits.files_per_owner)
        self._room_for_descriptors(count)

    def _room_for_descriptors(self, count: int) -> None:
        """Counts what is intended and what wasn't retrieved yet, too: its descriptors are still to come."""
        promised = sum(1 + _file_count(session) for session in self.manifest.sessions.values())
        if promised + count > self._descriptors:
            raise errors.QuotaExceeded("descriptors", self._descriptors)

    def record(self, record: Record) -> None:
        """Write a record down, then let it be so."""
        with self.table:
            self._journal.append(record)
            self.manifest.apply(record)
        self._changed()

    def make_room(self) -> None:
        """Let a record be sure to find room in the journal, before what it records is done and can't be undone."""
        with self.table:
            self._journal.make_room()

    def settle(self, record: Record) -> None:
        """Let it be so, for it is. Write it down if possible: a reader comes to the same without it."""
        with self.table:
            try:
                self._journal.append(record)
            except (KernelError, errors.KernelFailed) as error:
                log.warning("the journal can't be written, its next record brings a snapshot: %s", error)
                self._journal.fall_behind()
            self.manifest.apply(record)
        self._changed()

    def forget(self, holding: Holding) -> None:
        """Close all that luod has of a session that is over. The kernel lets go of it here."""
        holding.gone = True
        with self.table:
            del self._by_id[holding.session.id]
        self.let_go(holding, list(holding.files))
        self.unmark(holding, list(holding.checked))
        if holding.kernel is not None:
            holding.kernel.give_up()

    # The kernel's sessions

    def new_kernel_session(self) -> tuple[KernelSession, str]:
        """Make a session in the kernel under a name of our own."""
        with self._kernel.device() as device:
            while True:
                name = f"luod-{self.manifest.generation}-{next(self._kernel_names)}"
                try:
                    return device.create_session(name), name
                except KernelError as error:
                    if error.errno != errno.EEXIST:
                        raise

    def kernel_session(self, holding: Holding) -> KernelSession:
        """The kernel's session; one that came over is retrieved by its name when it is first needed."""
        session = holding.session
        if holding.kernel is None:
            try:
                with self._kernel.device() as device:
                    holding.kernel = device.retrieve_session(session.kernel_name)
            except KernelError as error:
                if (error.call, error.errno) != (Call.RETRIEVE_SESSION, errno.ENOENT):
                    raise
                reason = f"the manifest came over, but the kernel has no session {session.kernel_name}"
                self.settle(SessionMissing(session_id=session.id, reason=reason))
                raise errors.SessionLost(session.name, reason) from None
        return holding.kernel

    def finish_in_kernel(self, holding: Holding) -> None:
        try:
            self.kernel_session(holding).finish()
        except KernelError as error:
            if error.call is not Call.FINISH:
                raise
            raise errors.FinishRefused(holding.session.name, error.errno) from None

    @contextmanager
    def renewal(self, holding: Holding) -> Iterator[KernelSession]:
        """Put a new session of the kernel in the place of the old one, which takes its tombstones with it.

        In the `with` block the held files move over. Where that fails, the old one stays.
        """
        number = holding.session.id
        predecessor = self.kernel_session(holding)
        successor, name = self.new_kernel_session()
        try:
            self.record(Renewing(session_id=number, kernel_name=name))
            yield successor
        except BaseException:
            self.settle(Renewing(session_id=number, kernel_name=None))
            successor.give_up()
            raise
        sizes = {token: holding.checked[token].size for token in holding.session.held()}
        self.settle(Renewed(session_id=number, sizes=sizes))
        holding.kernel = successor
        self.unmark(holding, [token for token in holding.checked if token not in sizes])
        predecessor.give_up()

    def renew_if_empty(self, holding: Holding) -> bool:
        """Where only tombstones are left, make the kernel let go of their memory. True where it has."""
        if holding.session.held():
            return False
        try:
            with self.renewal(holding):
                return True
        except (KernelError, errors.KernelFailed) as error:
            log.warning("session %s keeps what was taken out of it: %s", holding.session.kernel_name, error)
            return False

    def file(self, holding: Holding, kernel_token: int) -> OwnedFd:
        """The duplicate that luod holds of a file; one that came over is retrieved when it is first needed."""
        held = holding.files.get(kernel_token)
        if held is None:
            session = holding.session
            try:
                held = self.kernel_session(holding).retrieve_fd(kernel_token)
            except KernelError as error:
                if error.call is not Call.RETRIEVE_FD or error.errno in NO_DESCRIPTORS:
                    raise
                raise errors.RetrieveFailed(session.name, session.files[kernel_token].token, error.errno) from None
            holding.files[kernel_token] = held
            _give_to(held, session)
            self.mark(holding, kernel_token, look_at(held))
        return held

    def let_go(self, holding: Holding, kernel_tokens: list[int]) -> None:
        """Close luod's duplicates."""
        FdBundle(holding.files.pop(token) for token in kernel_tokens if token in holding.files).close()

    def mark(self, holding: Holding, kernel_token: int, known: Memory) -> None:
        """Remember that the kernel has this file, so that nobody gives it twice."""
        with self.table:
            holding.checked[kernel_token] = known
            self.inodes[known.inode] = holding.session.id, kernel_token

    def unmark(self, holding: Holding, kernel_tokens: list[int]) -> None:
        with self.table:
            for kernel_token in kernel_tokens:
                known = holding.checked.pop(kernel_token, None)
                if known is not None:
                    self.inodes.pop(known.inode, None)


def _file_count(session: Session) -> int:
    """How many files a session has, tombstones too; of one that is lost there are none."""
    return 0 if session.state is State.LOST else len(session.files)


def _allow(session: Session, request: Request) -> None:
    """Raises what says why this session can't serve the request."""
    allowed = ALLOWED[request]
    if session.state is State.LOST and State.LOST not in allowed.states:
        raise errors.SessionLost(session.name, session.lost or "")
    if session.mode not in allowed.modes:
        raise errors.WrongMode(session.name, session.mode)
    if session.state not in allowed.states:
        raise errors.WrongDirection(session.name, session.direction)


def _give_to(fd: OwnedFd, session: Session) -> None:
    """Make a file that came over its owner's again: the kernel makes it anew, for whoever retrieves it."""
    if os.fstat(fd.fileno()).st_uid != session.uid:
        try:
            os.fchown(fd.fileno(), session.uid, session.gid)
        except OSError as error:
            log.warning("a file of session %s can't be given to uid %d: %s", session.kernel_name, session.uid, error)
