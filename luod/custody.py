"""The Custodian: what each request of an owner does to what luod holds. The heart.

Every method blocks and runs in a thread of its own; several run at once. A session's lock is held for the
whole of a request on it, the table's lock only for a moment, and always after the session's. Descriptors that
a request brings are closed here or kept, on every path; those it hands out are the caller's to close.
"""

import errno
import itertools
import time
from typing import Final, NamedTuple

from luod import errors
from luod.fds import OwnedFd
from luod.holdings import Holding, Holdings, Totals, enough_descriptors
from luod.kernel.api import Call, KernelError
from luod.kernel.api import Session as KernelSession
from luod.lifecycle import Direction, Event, FileState, Mode, Request, State
from luod.manifest import (
    Document,
    File,
    FilesDropped,
    FilesHeld,
    FilesIntended,
    FilesRetrieved,
    Rearmed,
    Session,
    SessionGone,
)
from luod.memory import Given, Memory, check, look_at
from luod.names import TOKEN_MAX
from luod.policy import Owner
from luod.renewal import finish, renew, renew_if_empty
from luod.sockets import FDS_MAX

_NOT_PRESERVABLE: Final = frozenset({errno.ENOENT, errno.EBADF, errno.EOPNOTSUPP, errno.EFBIG})


class Lent(NamedTuple):
    """A file as it is handed back: the descriptor is the receiver's."""

    token: int
    name: str | None
    fd: OwnedFd


class Custodian:
    """Holds sessions for their owners.

    Every method may raise errors.WireError for what was wrong with the request, and KernelError or
    errors.KernelFailed where the kernel failed luod; in either case nothing has changed for the owner.
    """

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings

    # What there is

    def sessions(self, uid: int | None = None) -> list[Session]:
        """The sessions of an owner, or of all, as they are now."""
        with self._holdings.table:
            return [
                session.model_copy(deep=True)
                for session in self._holdings.manifest.sessions.values()
                if uid is None or session.uid == uid
            ]

    def session(self, uid: int, name: str) -> Session:
        """One session, as it is now. Raises SessionNotFound."""
        with self._holdings.table:
            return self._holdings.find(uid, name).model_copy(deep=True)

    def document(self) -> Document:
        """The manifest for people and programs."""
        with self._holdings.table:
            document = Document.draft(self._holdings.manifest, self._holdings.epoch)
        return document.sealed()

    def totals(self) -> Totals:
        """How much there is of everything."""
        return self._holdings.totals()

    def journal_room(self) -> tuple[int, int]:
        """How many bytes are free in the journal, and how many a live update may take."""
        return self._holdings.journal_room()

    # What an owner asks for

    def create(
        self, owner: Owner, name: str, mode: Mode, labels: dict[str, str], unit: str | None
    ) -> tuple[Session, OwnedFd | None]:
        """Make a session; a delegated one's descriptor comes with it."""
        with self._holdings.table:
            self._holdings.room_for_session(owner, name, mode)
        kernel, kernel_name = self._holdings.new_kernel_session()
        lent = None
        try:
            if mode is Mode.DELEGATED:
                lent = _lend(kernel)
            with self._holdings.table:
                self._holdings.room_for_session(owner, name, mode)
                session = Session(
                    id=self._holdings.manifest.serial,
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
                self._holdings.add(session, kernel)
                return session.model_copy(deep=True), lent
        except BaseException:
            if lent is not None:
                lent.close()
            self._holdings.give_up(kernel)
            raise

    def preserve(self, owner: Owner, name: str, given: list[Given]) -> list[File]:
        """Preserve all of `given` or none. Duplicates are kept: the descriptors stay the caller's to close."""
        checked = [check(file, owner) for file in given]
        with self._holdings.at_work(owner.uid, name, Request.PRESERVE) as holding:
            files, revived = self._intend(holding, given, checked)
            preserved = set(revived)
            try:
                kernel = self._holdings.kernel_session(holding)
                for file, kernel_token in zip(given, files, strict=True):
                    _preserve(kernel, file, kernel_token, may_be_there=kernel_token in revived)
                    preserved.add(kernel_token)
                self._holdings.keep(holding, {token: file.fd for file, token in zip(given, files, strict=True)})
                self._holdings.record(FilesHeld(session_id=holding.session.id, kernel_tokens=list(files)))
            except BaseException:
                self._take_back(holding, list(files), preserved)
                raise
            with self._holdings.table:
                return [holding.session.files[kernel_token].model_copy() for kernel_token in files]

    def unpreserve(self, owner: Owner, name: str, tokens: list[int]) -> bool:
        """Take files out of an outgoing session. True where the kernel has let go of their memory."""
        with self._holdings.at_work(owner.uid, name, Request.UNPRESERVE) as holding:
            kernel_tokens = self._kernel_tokens(holding.session, tokens)
            self._holdings.record(FilesDropped(session_id=holding.session.id, kernel_tokens=kernel_tokens))
            return renew_if_empty(self._holdings, holding)

    def retrieve(self, owner: Owner, name: str, tokens: list[int] | None) -> tuple[list[Lent], list[int]]:
        """Hand files back, and say which tokens are left over for another request."""
        with self._holdings.at_work(owner.uid, name, Request.RETRIEVE) as holding:
            session = holding.session
            is_first = session.direction is Direction.INCOMING and not session.is_claimed
            wanted = list(session.held()) if tokens is None else self._kernel_tokens(session, tokens)
            page, rest = wanted[:FDS_MAX], wanted[FDS_MAX:]
            with self._holdings.files(holding, page) as found:
                fresh = [token for token in page if not session.files[token].retrieved]
                if fresh:
                    unknown = [token for token in fresh if session.files[token].inode is None]
                    inodes = {token: look_at(found[token]).inode for token in unknown}
                    record = FilesRetrieved(session_id=session.id, kernel_tokens=fresh, inodes=inodes)
                    self._holdings.record(record)
                files = [(session.files[kernel_token], fd) for kernel_token, fd in found.items()]
                handed = [Lent(file.token, file.name, OwnedFd(fd.hand_on())) for file, fd in files]
            if is_first:
                self._holdings.note("first", session)
            return handed, [session.files[kernel_token].token for kernel_token in rest]

    def finish(self, owner: Owner, name: str) -> None:
        """End a session that came over: what its owner didn't take is gone."""
        with self._holdings.at_work(owner.uid, name, Request.FINISH) as holding:
            self._finish(holding)

    def rearm(self, owner: Owner, name: str) -> None:
        """End a session that came over, and preserve its files for the next live update: same name, same tokens."""
        with self._holdings.at_work(owner.uid, name, Request.REARM) as holding:
            if holding.session.state is State.CARRIED:
                self._holdings.record(Rearmed(session_id=holding.session.id))
            else:
                renew(self._holdings, holding, Event.REARMED)
            self._holdings.note("finished", holding.session)

    def discard(self, owner: Owner, name: str) -> None:
        """Give an outgoing session up, or forget a lost one."""
        with self._holdings.at_work(owner.uid, name, Request.DISCARD) as holding:
            self._holdings.record(SessionGone(session_id=holding.session.id))
            self._holdings.forget(holding)

    def claim(self, owner: Owner, name: str) -> tuple[Session, OwnedFd]:
        """Lend the descriptor of a delegated session."""
        with self._holdings.at_work(owner.uid, name, Request.CLAIM) as holding:
            lent = _lend(self._holdings.kernel_session(holding))
            if holding.session.direction is Direction.INCOMING:
                self._holdings.note("first", holding.session)
            with self._holdings.table:
                return holding.session.model_copy(deep=True), lent

    # What luod does by itself

    def exposed(self, *, claimed: bool) -> list[tuple[int, str]]:
        """Which sessions the next live update would drop, by owner and name; those that were `claimed` too, or not."""
        with self._holdings.table:
            return [
                (session.uid, session.name)
                for session in self._holdings.manifest.sessions.values()
                if session.state is State.INCOMING and session.mode is Mode.CUSTODIAL
                if claimed or not session.is_claimed
            ]

    def waiting(self) -> tuple[list[tuple[int, str]], int]:
        """Which sessions came over and wait for their owners, by owner and name; and how many others came over."""
        with self._holdings.table:
            came = [session for session in self._holdings.manifest.sessions.values() if session.generation]
            waiting = [(session.uid, session.name) for session in came if session.state is State.INCOMING]
        return waiting, len(came) - len(waiting)

    def unclaimed(self) -> list[tuple[int, str]]:
        """Which sessions came over and nobody has come for, by owner and name. Of delegated ones luod can't tell."""
        with self._holdings.table:
            return [
                (session.uid, session.name)
                for session in self._holdings.manifest.sessions.values()
                if session.state in (State.INCOMING, State.CARRIED) and session.mode is Mode.CUSTODIAL
                if not session.is_claimed
            ]

    def finish_unclaimed(self, uid: int, name: str) -> bool:
        """End a session that came over, if nobody has come for it. False where its owner was faster."""
        try:
            with self._holdings.at_work(uid, name, Request.FINISH) as holding:
                if holding.session.is_claimed:
                    return False
                self._finish(holding)
        except (errors.SessionNotFound, errors.WrongDirection):
            return False
        return True

    def carry_over(self, uid: int, name: str, *, claimed: bool) -> bool:
        """Preserve for the next live update what came over with the last one. False where its owner was faster."""
        try:
            with self._holdings.at_work(uid, name, Request.CARRY_OVER) as holding:
                if holding.session.is_claimed and not claimed:
                    return False
                renew(self._holdings, holding, Event.CARRIED_OVER)
        except (errors.SessionNotFound, errors.WrongDirection):
            return False
        return True

    def seal(self, update: int) -> None:
        """Let owners change nothing any more, for live update number `update`. What is under way is waited for."""
        self._holdings.seal(update)

    def unseal(self) -> None:
        """The live update didn't come."""
        self._holdings.unseal()

    def give_up_all(self) -> None:
        """Let go of everything, as the end of the process would: what nobody else has open is gone."""
        self._holdings.give_up_all()

    def _finish(self, holding: Holding) -> None:
        if holding.session.state is State.CARRIED:
            self._holdings.record(SessionGone(session_id=holding.session.id))
            self._holdings.forget(holding)
        else:
            finish(self._holdings, holding)
        self._holdings.note("finished", holding.session)

    def _kernel_tokens(self, session: Session, tokens: list[int]) -> list[int]:
        """The kernel's tokens for the owner's, each once. Raises TokenNotFound."""
        known = {file.token: kernel_token for kernel_token, file in session.held().items()}
        for token in tokens:
            if token not in known:
                raise errors.TokenNotFound(session.name, token)
        return [known[token] for token in dict.fromkeys(tokens)]

    def _intend(self, holding: Holding, given: list[Given], checked: list[Memory]) -> tuple[dict[int, File], set[int]]:
        """Choose a kernel token for every file, and write down what is about to happen.

        Returns the files in order, and which of the kernel tokens are tombstones: the kernel may have those already.
        """
        session = holding.session
        with self._holdings.table:
            tokens = _choose_tokens(session, given)
            kernel_tokens = self._choose_kernel_tokens(holding, given, checked)
            revived = session.files.keys() & kernel_tokens
            self._holdings.room_for_files(session, len(given) - len(revived))
            files = {
                kernel_token: File(
                    token=token,
                    name=file.name,
                    size=known.size,
                    state=FileState.INTENDED,
                    inode=known.inode,
                    seals=known.seals,
                )
                for kernel_token, token, file, known in zip(kernel_tokens, tokens, given, checked, strict=True)
            }
            self._holdings.record(FilesIntended(session_id=session.id, files=files))
            return files, set(revived)

    def _choose_kernel_tokens(self, holding: Holding, given: list[Given], checked: list[Memory]) -> list[int]:
        """A new kernel token for every file, or that of its tombstone, for the kernel takes a file only once."""
        session = holding.session
        fresh = itertools.count(session.next_kernel_token)
        chosen: list[int] = []
        for position, (file, known) in enumerate(zip(given, checked, strict=True)):
            if any(known.inode == earlier.inode for earlier in checked[:position]):
                raise errors.AlreadyPreserved(file.index)
            place = self._holdings.manifest.inodes.get(known.inode)
            if place is None:
                chosen.append(next(fresh))
                continue
            number, kernel_token = place
            if number != session.id or session.files[kernel_token].state is not FileState.TOMBSTONE:
                raise errors.AlreadyPreserved(file.index)
            if session.files[kernel_token].seals != known.seals:
                reason = "it was preserved in this session before, and seals that were added since would be lost"
                raise errors.NotPreservable(file.index, reason)
            chosen.append(kernel_token)
        return chosen

    def _take_back(self, holding: Holding, kernel_tokens: list[int], preserved: set[int]) -> None:
        """Undo what a Preserve began: what the kernel has by now becomes a tombstone."""
        dropped = [token for token in kernel_tokens if token in preserved]
        never = [token for token in kernel_tokens if token not in preserved]
        number = holding.session.id
        self._holdings.settle(FilesDropped(session_id=number, kernel_tokens=dropped, never_preserved=never))
        if dropped:
            renew_if_empty(self._holdings, holding)


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


def _lend(kernel: KernelSession) -> OwnedFd:
    with enough_descriptors("dup"):
        return kernel.duplicate()


def _preserve(kernel: KernelSession, file: Given, kernel_token: int, *, may_be_there: bool) -> None:
    try:
        with enough_descriptors(Call.PRESERVE_FD):
            kernel.preserve_fd(file.fd.fileno(), kernel_token)
    except KernelError as error:
        if error.errno == errno.EEXIST and may_be_there:
            return
        if error.errno == errno.EBUSY:
            raise errors.AlreadyPreserved(file.index) from None
        if error.errno in _NOT_PRESERVABLE:
            raise errors.NotPreservable(file.index, error.meaning) from None
        raise
