"""The Custodian: what luod holds, and what each request does to it. The heart.

Every method blocks and runs in a thread of its own; several run at once. A session's lock is held for the
whole of a request on it, the table's lock only for a moment, and always after the session's. Descriptors that
a request brings are closed here or kept, on every path; those it hands out are the caller's to close.

What is acknowledged was written to the journal before. What is taken back after a failure goes into the
journal if it can; if it can't, a reader makes the same of what is there, and the next record brings a snapshot.
"""

import errno
import itertools
import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from luod import errors
from luod.fds import FdBundle, OwnedFd
from luod.kernel.api import Call, KernelError
from luod.kernel.api import Session as KernelSession
from luod.kernel.shared import SharedKernel
from luod.lifecycle import ALLOWED, FileState, Mode, Request, State
from luod.manifest import (
    Document,
    File,
    FilesDropped,
    FilesHeld,
    FilesIntended,
    FilesRetrieved,
    Manifest,
    Record,
    Renewed,
    Renewing,
    Session,
    SessionGone,
    SessionIs,
    SessionMissing,
)
from luod.memory import Given, Inode, Memory, check, look_at
from luod.names import TOKEN_MAX
from luod.policy import Limits, Owner

log = logging.getLogger(__name__)

PAGE: Final = 253
"""SCM_MAX_FD: the most files that one reply hands back."""

_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_NOT_PRESERVABLE: Final = frozenset({errno.ENOENT, errno.EBADF, errno.EOPNOTSUPP, errno.EFBIG})


class Totals(NamedTuple):
    """What luod holds, counted. `bytes` are the sizes of all files."""

    boot_id: str
    generation: int
    sessions: int
    files: int
    bytes: int


class Lent(NamedTuple):
    """A file as it is handed back: the descriptor is the receiver's."""

    token: int
    name: str | None
    fd: OwnedFd


class Journal(Protocol):
    """Where the manifest's records are written down (see `store.Journal`)."""

    epoch: int

    def append(self, record: Record) -> None: ...

    def fall_behind(self) -> None: ...

    def give_up(self) -> None: ...


@dataclass
class _Holding:
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


class Custodian:
    """Holds sessions for their owners.

    Every method may raise errors.WireError for what was wrong with the request, and KernelError or
    errors.KernelFailed where the kernel failed luod; in either case nothing has changed for the owner.
    """

    def __init__(
        self,
        kernel: SharedKernel,
        manifest: Manifest,
        journal: Journal,
        limits: Limits,
        descriptors: int,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`descriptors` is how many it may hold at most; `changed` is called, from any thread, after the manifest
        has changed.
        """
        self._kernel = kernel
        self._manifest = manifest
        self._journal = journal
        self._limits = limits
        self._descriptors = descriptors
        self._changed = changed
        self._table = threading.RLock()
        self._holdings = {number: _Holding(session) for number, session in manifest.sessions.items()}
        self._inodes: dict[Inode, tuple[int, int]] = {}  # session id, kernel token
        self._kernel_names = itertools.count()

    # What there is

    def sessions(self, uid: int | None = None) -> list[Session]:
        """The sessions of an owner, or of all, as they are now."""
        with self._table:
            return [
                session.model_copy(deep=True)
                for session in self._manifest.sessions.values()
                if uid is None or session.uid == uid
            ]

    def session(self, uid: int, name: str) -> Session:
        """One session, as it is now. Raises SessionNotFound."""
        with self._table:
            return self._find(uid, name).model_copy(deep=True)

    def document(self) -> Document:
        """The manifest for people and programs."""
        with self._table:
            return Document.of(self._manifest, self._journal.epoch)

    def totals(self) -> Totals:
        """How much there is of everything."""
        with self._table:
            manifest = self._manifest
            files = [file for session in manifest.sessions.values() for file in session.held().values()]
            size = sum(file.size or 0 for file in files)
            return Totals(manifest.boot_id, manifest.generation, len(manifest.sessions), len(files), size)

    # What an owner asks for

    def create(
        self, owner: Owner, name: str, mode: Mode, labels: dict[str, str], unit: str | None
    ) -> tuple[Session, OwnedFd | None]:
        """Make a session; a delegated one's descriptor comes with it."""
        with self._table:
            self._room_for_session(owner, name)
        kernel, kernel_name = self._new_kernel_session()
        lent = None
        try:
            if mode is Mode.DELEGATED:
                lent = _duplicate(kernel.duplicate)
            with self._table:
                self._room_for_session(owner, name)
                session = Session(
                    id=self._manifest.serial,
                    kernel_name=kernel_name,
                    uid=owner.uid,
                    gid=owner.gid,
                    name=name,
                    mode=mode,
                    state=State.OUTGOING,
                    unit=unit,
                    labels=labels,
                    created_usec=time.time_ns() // 1000,
                )
                self._record(SessionIs(session=session))
                self._holdings[session.id] = _Holding(session, kernel)
                return session.model_copy(deep=True), lent
        except BaseException:
            if lent is not None:
                lent.close()
            kernel.give_up()
            raise

    def preserve(self, owner: Owner, name: str, given: list[Given]) -> list[File]:
        """Preserve all of `given` or none. Duplicates are kept: the descriptors stay the caller's to close."""
        checked = [check(file, owner) for file in given]
        with self._at_work(owner, name, Request.PRESERVE) as holding:
            files, preserved = self._intend(holding, given, checked)
            with FdBundle() as kept:
                try:
                    kernel = self._kernel_session(holding)
                    for file, kernel_token in zip(given, files, strict=True):
                        kept.add(_duplicate(file.fd.duplicate))
                        if kernel_token not in preserved:
                            _preserve_in_kernel(kernel, file, kernel_token)
                            preserved.add(kernel_token)
                    self._record(FilesHeld(session_id=holding.session.id, kernel_tokens=list(files)))
                except BaseException:
                    self._take_back(holding, list(files), preserved)
                    raise
                holding.files.update(zip(files, kept.take_all(), strict=True))
            with self._table:
                return [holding.session.files[kernel_token].model_copy() for kernel_token in files]

    def unpreserve(self, owner: Owner, name: str, tokens: list[int]) -> bool:
        """Take files out of an outgoing session. True where the kernel has let go of their memory."""
        with self._at_work(owner, name, Request.UNPRESERVE) as holding:
            kernel_tokens = self._kernel_tokens(holding.session, tokens)
            self._record(FilesDropped(session_id=holding.session.id, kernel_tokens=kernel_tokens))
            self._let_go(holding, kernel_tokens)
            return self._renew_if_empty(holding)

    def retrieve(self, owner: Owner, name: str, tokens: list[int] | None) -> tuple[list[Lent], list[int]]:
        """Hand files back, and say which tokens are left over for another request."""
        with self._at_work(owner, name, Request.RETRIEVE) as holding:
            session = holding.session
            wanted = list(session.held()) if tokens is None else self._kernel_tokens(session, tokens)
            page, rest = wanted[:PAGE], wanted[PAGE:]
            with FdBundle() as lent:
                for kernel_token in page:
                    lent.add(_duplicate(self._file(holding, kernel_token).duplicate))
                fresh = [token for token in page if not session.files[token].retrieved]
                if fresh:
                    self._record(FilesRetrieved(session_id=session.id, kernel_tokens=fresh))
                files = [session.files[kernel_token] for kernel_token in page]
                handed = [Lent(file.token, file.name, fd) for file, fd in zip(files, lent.take_all(), strict=True)]
            return handed, [session.files[kernel_token].token for kernel_token in rest]

    def finish(self, owner: Owner, name: str) -> None:
        """End an incoming session: what its owner didn't take is gone."""
        with self._at_work(owner, name, Request.FINISH) as holding:
            self._finish_in_kernel(holding)
            self._settle(SessionGone(session_id=holding.session.id))
            self._forget(holding)

    def rearm(self, owner: Owner, name: str) -> None:
        """End an incoming session and preserve its files again in an outgoing one: same name, same tokens."""
        with self._at_work(owner, name, Request.REARM) as holding:
            session = holding.session
            files = {kernel_token: self._file(holding, kernel_token) for kernel_token in session.held()}
            with self._renewal(holding) as successor:
                self._finish_in_kernel(holding)
                for kernel_token, fd in files.items():
                    successor.preserve_fd(fd.fileno(), kernel_token)
                    self._mark(holding, kernel_token, look_at(fd))

    def discard(self, owner: Owner, name: str) -> None:
        """Give an outgoing session up, or forget a lost one."""
        with self._at_work(owner, name, Request.DISCARD) as holding:
            self._record(SessionGone(session_id=holding.session.id))
            self._forget(holding)

    def claim(self, owner: Owner, name: str) -> tuple[Session, OwnedFd]:
        """Lend the descriptor of a delegated session."""
        with self._at_work(owner, name, Request.CLAIM) as holding:
            lent = _duplicate(self._kernel_session(holding).duplicate)
            with self._table:
                return holding.session.model_copy(deep=True), lent

    def give_up_all(self) -> None:
        """Let go of everything, as the end of the process would: what nobody else has open is gone."""
        with self._table:
            holdings = list(self._holdings.values())
            if holdings:
                log.warning("letting go of %d sessions: what nobody else has open is gone", len(holdings))
            for holding in holdings:
                self._forget(holding)
            self._journal.give_up()

    # The table

    def _find(self, uid: int, name: str) -> Session:
        session = self._manifest.find(uid, name)
        if session is None:
            raise errors.SessionNotFound(name)
        return session

    @contextmanager
    def _at_work(self, owner: Owner, name: str, request: Request) -> Iterator[_Holding]:
        """Have a session to oneself for a request that it can serve."""
        with self._table:
            holding = self._holdings[self._find(owner.uid, name).id]
        with holding.lock:
            if holding.gone:
                raise errors.SessionNotFound(name)
            _allow(holding.session, request)
            yield holding

    def _room_for_session(self, owner: Owner, name: str) -> None:
        if self._manifest.find(owner.uid, name) is not None:
            raise errors.SessionExists(name)
        count = sum(session.uid == owner.uid for session in self._manifest.sessions.values())
        if count >= self._limits.sessions_per_owner:
            raise errors.QuotaExceeded("sessions", self._limits.sessions_per_owner)
        self._room_for_descriptors(1)

    def _room_for_files(self, session: Session, count: int) -> None:
        if len(session.files) + count > self._limits.files_per_session:
            raise errors.QuotaExceeded("files in a session", self._limits.files_per_session)
        owned = sum(len(other.files) for other in self._manifest.sessions.values() if other.uid == session.uid)
        if owned + count > self._limits.files_per_owner:
            raise errors.QuotaExceeded("files", self._limits.files_per_owner)
        self._room_for_descriptors(count)

    def _room_for_descriptors(self, count: int) -> None:
        held = sum(1 + len(holding.files) for holding in self._holdings.values())
        if held + count > self._descriptors:
            raise errors.QuotaExceeded("descriptors", self._descriptors)

    def _record(self, record: Record) -> None:
        """Write a record down, then let it be so."""
        with self._table:
            self._journal.append(record)
            self._manifest.apply(record)
        self._changed()

    def _settle(self, record: Record) -> None:
        """Let it be so, for it is. Write it down if possible: a reader comes to the same without it."""
        with self._table:
            try:
                self._journal.append(record)
            except (KernelError, errors.KernelFailed) as error:
                log.warning("the journal can't be written, its next record brings a snapshot: %s", error)
                self._journal.fall_behind()
            self._manifest.apply(record)
        self._changed()

    def _forget(self, holding: _Holding) -> None:
        """Close all that luod has of a session that is over. The kernel lets go of it here."""
        holding.gone = True
        with self._table:
            del self._holdings[holding.session.id]
        self._let_go(holding, list(holding.files))
        self._unmark(holding, list(holding.checked))
        if holding.kernel is not None:
            holding.kernel.give_up()

    # The kernel's sessions

    def _new_kernel_session(self) -> tuple[KernelSession, str]:
        """Make a session in the kernel under a name of our own."""
        with self._kernel.device() as device:
            while True:
                name = f"luod-{self._manifest.generation}-{next(self._kernel_names)}"
                try:
                    return device.create_session(name), name
                except KernelError as error:
                    if error.errno != errno.EEXIST:
                        raise

    def _kernel_session(self, holding: _Holding) -> KernelSession:
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
                self._settle(SessionMissing(session_id=session.id, reason=reason))
                raise errors.SessionLost(session.name, reason) from None
        return holding.kernel

    def _finish_in_kernel(self, holding: _Holding) -> None:
        try:
            self._kernel_session(holding).finish()
        except KernelError as error:
            if error.call is not Call.FINISH:
                raise
            raise errors.FinishRefused(holding.session.name, error.errno) from None

    @contextmanager
    def _renewal(self, holding: _Holding) -> Iterator[KernelSession]:
        """Put a new session of the kernel in the place of the old one, which takes its tombstones with it.

        In the `with` block the held files move over. Where that fails, the old one stays.
        """
        number = holding.session.id
        predecessor = self._kernel_session(holding)
        successor, name = self._new_kernel_session()
        try:
            self._record(Renewing(session_id=number, kernel_name=name))
            yield successor
        except BaseException:
            self._settle(Renewing(session_id=number, kernel_name=None))
            successor.give_up()
            raise
        sizes = {token: holding.checked[token].size for token in holding.session.held()}
        self._settle(Renewed(session_id=number, sizes=sizes))
        holding.kernel = successor
        self._unmark(holding, [token for token in holding.checked if token not in sizes])
        predecessor.give_up()

    def _renew_if_empty(self, holding: _Holding) -> bool:
        """Where only tombstones are left, make the kernel let go of their memory. True where it has."""
        if holding.session.held():
            return False
        try:
            with self._renewal(holding):
                return True
        except (KernelError, errors.KernelFailed) as error:
            log.warning("session %s keeps what was taken out of it: %s", holding.session.kernel_name, error)
            return False

    # Files

    def _kernel_tokens(self, session: Session, tokens: list[int]) -> list[int]:
        """The kernel's tokens for the owner's, each once. Raises TokenNotFound."""
        known = {file.token: kernel_token for kernel_token, file in session.held().items()}
        for token in tokens:
            if token not in known:
                raise errors.TokenNotFound(session.name, token)
        return [known[token] for token in dict.fromkeys(tokens)]

    def _intend(self, holding: _Holding, given: list[Given], checked: list[Memory]) -> tuple[dict[int, File], set[int]]:
        """Choose a kernel token for every file, and write down what is about to happen.

        Returns the files in order, and which of the kernel tokens are tombstones that the kernel holds already.
        """
        session = holding.session
        with self._table:
            self._room_for_files(session, len(given))
            tokens = _choose_tokens(session, given)
            kernel_tokens = self._choose_kernel_tokens(holding, given, checked)
            revived = session.files.keys() & kernel_tokens
            files = {
                kernel_token: File(token=token, name=file.name, size=known.size, state=FileState.INTENDED)
                for kernel_token, token, file, known in zip(kernel_tokens, tokens, given, checked, strict=True)
            }
            self._record(FilesIntended(session_id=session.id, files=files))
            for kernel_token, known in zip(kernel_tokens, checked, strict=True):
                self._mark(holding, kernel_token, known)
            return files, revived

    def _choose_kernel_tokens(self, holding: _Holding, given: list[Given], checked: list[Memory]) -> list[int]:
        """A new kernel token for every file, or that of its tombstone, for the kernel takes a file only once."""
        session = holding.session
        fresh = itertools.count(session.next_kernel_token)
        chosen: list[int] = []
        for position, (file, known) in enumerate(zip(given, checked, strict=True)):
            if any(known.inode == earlier.inode for earlier in checked[:position]):
                raise errors.AlreadyPreserved(file.index)
            place = self._inodes.get(known.inode)
            if place is None:
                chosen.append(next(fresh))
                continue
            number, kernel_token = place
            if number != session.id or session.files[kernel_token].state is not FileState.TOMBSTONE:
                raise errors.AlreadyPreserved(file.index)
            if holding.checked[kernel_token].seals != known.seals:
                reason = "it was preserved in this session before, and seals that were added since would be lost"
                raise errors.NotPreservable(file.index, reason)
            chosen.append(kernel_token)
        return chosen

    def _take_back(self, holding: _Holding, kernel_tokens: list[int], preserved: set[int]) -> None:
        """Undo what a Preserve began: what the kernel has by now becomes a tombstone."""
        dropped = [token for token in kernel_tokens if token in preserved]
        never = [token for token in kernel_tokens if token not in preserved]
        number = holding.session.id
        self._settle(FilesDropped(session_id=number, kernel_tokens=dropped, never_preserved=never))
        self._unmark(holding, never)
        if dropped:
            self._renew_if_empty(holding)

    def _file(self, holding: _Holding, kernel_token: int) -> OwnedFd:
        """The duplicate that luod holds of a file; one that came over is retrieved when it is first needed."""
        held = holding.files.get(kernel_token)
        if held is None:
            session = holding.session
            try:
                held = self._kernel_session(holding).retrieve_fd(kernel_token)
            except KernelError as error:
                if error.call is not Call.RETRIEVE_FD or error.errno in _NO_DESCRIPTORS:
                    raise
                raise errors.RetrieveFailed(session.name, session.files[kernel_token].token, error.errno) from None
            holding.files[kernel_token] = held
            _give_to(held, session)
            self._mark(holding, kernel_token, look_at(held))
        return held

    def _let_go(self, holding: _Holding, kernel_tokens: list[int]) -> None:
        """Close luod's duplicates."""
        FdBundle(holding.files.pop(token) for token in kernel_tokens if token in holding.files).close()

    def _mark(self, holding: _Holding, kernel_token: int, known: Memory) -> None:
        """Remember that the kernel has this file, so that nobody gives it twice."""
        with self._table:
            holding.checked[kernel_token] = known
            self._inodes[known.inode] = holding.session.id, kernel_token

    def _unmark(self, holding: _Holding, kernel_tokens: list[int]) -> None:
        with self._table:
            for kernel_token in kernel_tokens:
                known = holding.checked.pop(kernel_token, None)
                if known is not None:
                    self._inodes.pop(known.inode, None)


def _allow(session: Session, request: Request) -> None:
    """Raises what says why this session can't serve the request."""
    allowed = ALLOWED[request]
    if session.state is State.LOST and State.LOST not in allowed.states:
        raise errors.SessionLost(session.name, session.lost or "")
    if session.mode not in allowed.modes:
        raise errors.WrongMode(session.name, session.mode)
    if session.state not in allowed.states:
        raise errors.WrongDirection(session.name, session.direction)


def _choose_tokens(session: Session, given: list[Given]) -> list[int]:
    """The owner's tokens, and free ones where it left them out. Raises TokenInUse."""
    taken = {file.token for file in session.files.values() if file.state is not FileState.TOMBSTONE}
    for file in given:
        if file.token is not None:
            if file.token in taken:
                raise errors.TokenInUse(session.name, file.token)
            taken.add(file.token)
    highest = max(taken, default=-1)
    free = itertools.chain(range(highest + 1, TOKEN_MAX + 1), (token for token in range(highest) if token not in taken))
    return [file.token if file.token is not None else next(free) for file in given]


def _duplicate(duplicate: Callable[[], OwnedFd]) -> OwnedFd:
    try:
        return duplicate()
    except OSError as error:
        if error.errno not in _NO_DESCRIPTORS:
            raise
        raise errors.QuotaExceeded("descriptors", resource.getrlimit(resource.RLIMIT_NOFILE)[0]) from None


def _preserve_in_kernel(kernel: KernelSession, file: Given, kernel_token: int) -> None:
    try:
        kernel.preserve_fd(file.fd.fileno(), kernel_token)
    except KernelError as error:
        if error.errno == errno.EBUSY:
            raise errors.AlreadyPreserved(file.index) from None
        if error.errno in _NOT_PRESERVABLE:
            raise errors.NotPreservable(file.index, error.meaning) from None
        raise


def _give_to(fd: OwnedFd, session: Session) -> None:
    """Make a file that came over its owner's again: the kernel makes it anew, for whoever retrieves it."""
    if os.fstat(fd.fileno()).st_uid != session.uid:
        try:
            os.fchown(fd.fileno(), session.uid, session.gid)
        except OSError as error:
            log.warning("a file of session %s can't be given to uid %d: %s", session.kernel_name, session.uid, error)
