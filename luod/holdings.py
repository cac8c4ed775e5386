"""What luod has in its hands: of every session the kernel's descriptor, and a bag with its files.

Both are in the fd store from the moment they exist until they are over, and are closed here only when they are over.
What is acknowledged was written to the journal before. What is taken back after a failure goes into the journal if
it can; if it can't, a reader makes the same of what is there, and the next record brings a snapshot.
"""

import errno
import itertools
import logging
import os
import resource
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from luod import errors
from luod.bag import Bag, BagFull
from luod.fds import FdBundle, OwnedFd
from luod.kernel.api import Call, KernelError
from luod.kernel.api import Session as KernelSession
from luod.kernel.shared import SharedKernel
from luod.lifecycle import ALLOWED, CHANGING, Mode, Request, State
from luod.manifest import (
    Manifest,
    Record,
    Session,
    SessionIs,
    SessionMissing,
    encode,
)
from luod.policy import Owner, Policy

log = logging.getLogger(__name__)

NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS})

_DESCRIPTORS: Final = 3
"""How many a session takes in luod: the kernel's, and both ends of its bag."""

_SPARE_ENTRIES: Final = 16
"""Entries of the fd store for the journal and the flight recorder, for the next kernel and one that takes its place,
for sessions that take another's place and for a listening socket.
"""


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

    def fall_behind(self) -> None: ...

    def room(self) -> int: ...

    def give_up(self) -> None: ...


class FdStore(Protocol):
    """Where copies of descriptors outlive this process (see `systemd.FdStore`)."""

    most: int

    def room_for(self, count: int) -> None: ...

    def put(self, *fds: int) -> None: ...

    def place(self) -> AbstractContextManager[Callable[[int], None]]: ...

    def remove(self, *fds: int) -> None: ...

    def barrier(self) -> None: ...


@dataclass
class Holding:
    """What luod has in its hands of a session: the kernel's session, and a bag with files.

    `kernel` is None for a session that came over and that nobody asked for yet. Of an outgoing session every file is
    in the bag, of an incoming one those that are being carried over: the kernel has the others. `alone`: the fd store
    has no copy of the kernel's session.
    """

    session: Session
    kernel: KernelSession | None = None
    bag: Bag | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    gone: bool = False
    alone: bool = False


class Holdings:
    """All holdings, with the manifest that says what they are. `table` is the lock for both."""

    def __init__(
        self,
        kernel: SharedKernel,
        manifest: Manifest,
        journal: Journal,
        fd_store: FdStore,
        policy: Policy,
        changed: Callable[[], None],
        there: Iterable[Holding] | None = None,
        note: Callable[[str, str], None] = lambda what, who: None,
    ) -> None:
        """`changed` is called, from any thread, after the manifest has changed; `there` are the manifest's sessions,
        with what the fd store brought back of them. `note` is for the flight recorder: what has happened, and whose
        session that was.
        """
        self.manifest = manifest
        self.table = threading.RLock()
        self.fd_store = fd_store
        if there is None:
            there = [Holding(session) for session in manifest.sessions.values()]
        self._by_id = {holding.session.id: holding for holding in there}
        self._kernel = kernel
        self._kernel_names = itertools.count(manifest.serial)
        self._journal = journal
        self._policy = policy
        self._changed = changed
        self._note = note
        self._sealed_for: int | None = None

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

    def journal_room(self) -> tuple[int, int]:
        """How many bytes are free in the journal, and how many it may take to carry over what came over."""
        with self.table:
            incoming = [each for each in self.manifest.sessions.values() if each.state is State.INCOMING]
            return self._journal.room(), sum(2 * len(encode(SessionIs(session=session))) for session in incoming)

    def all(self) -> list[Holding]:
        """Every holding, of sessions that are lost as well."""
        with self.table:
            return list(self._by_id.values())

    def add(self, session: Session, kernel: KernelSession) -> None:
        """Hold a new session from now on. Where that fails it is still the caller's."""
        with self.table:
            self.record(SessionIs(session=session))
            self._by_id[session.id] = Holding(session, kernel)

    def give_up_all(self) -> None:
        """Close everything, as the end of the process would: what nobody else has open is gone."""
        with self.table:
            holdings = self.all()
            if holdings and self.fd_store.most:
                log.info("the service manager keeps what is held: %d sessions", len(holdings))
            elif holdings:
                log.warning("letting go of %d sessions: what nobody else has open is gone", len(holdings))
            for holding in holdings:
                self._close(holding)
            self._journal.give_up()

    # A live update

    def note(self, what: str, session: Session) -> None:
        """Let the flight recorder know."""
        self._note(what, session.called)

    def seal(self, update: int) -> None:
        """Let nothing change any more, for a live update that is about to come. What is under way is waited for."""
        with self.table:
            self._sealed_for = update
        for holding in self.all():
            with holding.lock:
                pass

    def unseal(self) -> None:
        """The live update didn't come."""
        with self.table:
            self._sealed_for = None

    def require_unsealed(self) -> None:
        """Raises UpdateInProgress."""
        with self.table:
            if self._sealed_for is not None:
                raise errors.UpdateInProgress(self._sealed_for)

    # The table

    def find(self, uid: int, name: str) -> Session:
        session = self.manifest.find(uid, name)
        if session is None:
            raise errors.SessionNotFound(name)
        return session

    @contextmanager
    def at_work(self, uid: int, name: str, request: Request) -> Iterator[Holding]:
        """Have a session to oneself for a request that it can serve."""
        with self.table:
            holding = self._by_id.get(self.find(uid, name).id)
        if holding is None:  # it is over, which the manifest is about to say
            raise errors.SessionNotFound(name)
        with holding.lock:
            if holding.gone:
                raise errors.SessionNotFound(name)
            if request in CHANGING:
                self.require_unsealed()
            _allow(holding.session, request)
            yield holding

    def room_for_session(self, owner: Owner, name: str, mode: Mode) -> None:
        self.require_unsealed()
        if self.manifest.find(owner.uid, name) is not None:
            raise errors.SessionExists(name)
        count = sum(session.uid == owner.uid for session in self.manifest.sessions.values())
        most = self._policy.limits.sessions_per_owner
        if count >= most:
            raise errors.QuotaExceeded("sessions", most)
        entries = sum(_entries(session.mode) for session in self.manifest.sessions.values())
        self.fd_store.room_for(entries + _entries(mode) + _SPARE_ENTRIES)
        self._room_for_descriptors(_DESCRIPTORS)

    def room_for_files(self, session: Session, count: int) -> None:
        limits = self._policy.limits
        if len(session.files) + count > limits.files_per_session:
            raise errors.QuotaExceeded("files in a session", limits.files_per_session)
        owned = sum(_file_count(other) for other in self.manifest.sessions.values() if other.uid == session.uid)
        if owned + count > limits.files_per_owner:
            raise errors.QuotaExceeded("files", limits.files_per_owner)
        self._room_for_descriptors(count)

    def _room_for_descriptors(self, count: int) -> None:
        """Those in bags count as well: the kernel allows a user as many in flight as a process may have open."""
        promised = sum(_DESCRIPTORS + _file_count(session) for session in self.manifest.sessions.values())
        if promised + count > self._policy.descriptors:
            raise errors.QuotaExceeded("descriptors", self._policy.descriptors)

    def record(self, record: Record) -> None:
        """Write a record down, then let it be so."""
        with self.table:
            self._journal.append(record)
            self.manifest.apply(record)
        self._changed()

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
        try:
            self.fd_store.remove(*(each.fileno() for each in (holding.kernel, holding.bag) if each is not None))
        finally:
            self._close(holding)

    def _close(self, holding: Holding) -> None:
        if holding.bag is not None:
            holding.bag.close()
        if holding.kernel is not None:
            holding.kernel.give_up()
        holding.bag = holding.kernel = None

    # The kernel's sessions

    def new_kernel_session(self) -> tuple[KernelSession, str]:
        """Make a session in the kernel under a name of our own, in the fd store as well."""
        with self._kernel.device() as device:
            while True:
                name = f"luod-{self.manifest.generation}-{next(self._kernel_names)}"
                try:
                    kernel = device.create_session(name)
                    break
                except KernelError as error:
                    if error.errno != errno.EEXIST:
                        raise
        try:
            self.fd_store.put(kernel.fileno())
        except BaseException:
            kernel.give_up()
            raise
        return kernel, name

    def give_up(self, kernel: KernelSession) -> None:
        """Make the kernel let go of a session that is over, or never began."""
        try:
            self.fd_store.remove(kernel.fileno())
        finally:
            kernel.give_up()

    def kernel_session(self, holding: Holding) -> KernelSession:
        """The kernel's session; one that came over is retrieved by its name when it is first needed."""
        kernel = self.to_finish(holding)
        assert kernel is not None  # what is asked of it isn't in the bag
        return kernel

    def to_finish(self, holding: Holding) -> KernelSession | None:
        """The kernel's session; None where an earlier luod has finished it, and every file is in the bag."""
        session = holding.session
        if holding.kernel is None:
            try:
                with self._kernel.device() as device, self.fd_store.place() as keep:
                    # Between these two lines a SIGKILL closes the only descriptor, which finishes the session.
                    holding.kernel = device.retrieve_session(session.kernel_name)
                    keep(holding.kernel.fileno())
            except errors.KernelFailed as error:  # it can't be put back
                _is_alone(holding, error)
            except KernelError as error:
                if (error.call, error.errno) != (Call.RETRIEVE_SESSION, errno.ENOENT):
                    raise
                if holding.bag is not None and session.held().keys() <= holding.bag.tokens:
                    return None
                reason = f"the manifest came over, but the kernel has no session {session.kernel_name}"
                self.settle(SessionMissing(session_id=session.id, reason=reason))
                raise errors.SessionLost(session.name, reason) from None
        elif holding.alone:
            try:
                self.fd_store.put(holding.kernel.fileno())
                holding.alone = False
            except (errors.KernelFailed, errors.QuotaExceeded) as error:
                _is_alone(holding, error)
        return holding.kernel

    # Files

    @contextmanager
    def files(self, holding: Holding, kernel_tokens: Collection[int]) -> Iterator[dict[int, OwnedFd]]:
        """Descriptors of these files, at most a page of them: from the bag, else from the kernel.

        Those that nobody has handed on are closed at the end. Raises RetrieveFailed.
        """
        with enough_descriptors("recvmsg"):
            found = {} if holding.bag is None else holding.bag.get(kernel_tokens)
        try:
            for kernel_token in kernel_tokens:
                if kernel_token not in found:
                    found[kernel_token] = self._retrieve(holding, kernel_token)
            yield {kernel_token: found[kernel_token] for kernel_token in kernel_tokens}
        finally:
            FdBundle(found.values()).close()

    def _retrieve(self, holding: Holding, kernel_token: int) -> OwnedFd:
        session = holding.session
        try:
            with enough_descriptors(Call.RETRIEVE_FD):
                fd = self.kernel_session(holding).retrieve_fd(kernel_token)
        except KernelError as error:
            if error.call is not Call.RETRIEVE_FD:
                raise
            raise errors.RetrieveFailed(session.name, session.files[kernel_token].token, error.errno) from None
        _give_to(fd, session)
        return fd

    def keep(self, holding: Holding, files: Mapping[int, OwnedFd]) -> None:
        """Keep duplicates of these files in the session's bag, by kernel token: they outlive luod from then on.

        Raises QuotaExceeded, or KernelFailed.
        """
        if holding.bag is not None:
            try:
                with enough_descriptors("sendmsg"):
                    holding.bag.put(files)
            except BagFull:
                pass
            else:
                return
        self._repack(holding, files)

    def _repack(self, holding: Holding, files: Mapping[int, OwnedFd]) -> None:
        """Put what is held, and these, into a new bag, in as few messages as can be."""
        with enough_descriptors("socketpair"):
            bag = Bag(holding.session.id)
        try:
            with enough_descriptors("sendmsg"):
                if holding.bag is not None:
                    bag.put_from(holding.bag, holding.bag.tokens & holding.session.held().keys())
                bag.put(files)
            self.fd_store.put(bag.fileno())
        except BaseException as error:
            bag.close()
            if isinstance(error, BagFull):
                raise errors.QuotaExceeded("files in a bag (net.core.wmem_max)", len(bag.tokens)) from None
            raise
        self.replace_bag(holding, bag)

    def replace_bag(self, holding: Holding, bag: Bag | None) -> None:
        """Let go of the session's bag. Another one has what is to be kept of it."""
        old, holding.bag = holding.bag, bag
        if old is not None:
            try:
                self.fd_store.remove(old.fileno())
            finally:
                old.close()


def _is_alone(holding: Holding, error: errors.WireError) -> None:
    holding.alone = True
    log.error("session %s is lost if luod dies before its next use: %s", holding.session.kernel_name, error)


def _entries(mode: Mode) -> int:
    """How many entries of the fd store a session takes."""
    return 2 if mode is Mode.CUSTODIAL else 1


def _file_count(session: Session) -> int:
    """How many files a session has, tombstones too; of one that is lost there are none."""
    return 0 if session.state is State.LOST else len(session.files)


@contextmanager
def enough_descriptors(call: str) -> Iterator[None]:
    """Raise KernelFailed where `call` to the system fails; QuotaExceeded where there are no descriptors left for it.

    That is, in this process or in flight.
    """
    try:
        with errors.answered(call):
            yield
    except (errors.KernelFailed, KernelError) as error:
        if error.errno not in NO_DESCRIPTORS:
            raise
        raise errors.QuotaExceeded("descriptors", resource.getrlimit(resource.RLIMIT_NOFILE)[0]) from None


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
    try:
        if os.fstat(fd.fileno()).st_uid != session.uid:
            os.fchown(fd.fileno(), session.uid, session.gid)
    except OSError as error:
        log.warning("a file of session %s can't be given to uid %d: %s", session.kernel_name, session.uid, error)
