"""The start: take over what the fd store brought back and what the last kernel left, and settle every difference.

What the fd store brought is recognised by what it is, not by its name. Nothing is closed here whose close could be a
FINISH: what is unclear is kept, and reported.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from luod.bag import Bag, NotABag
from luod.errors import KernelFailed
from luod.fds import OwnedFd
from luod.flight import NAME as FLIGHT
from luod.flight import Kept, is_record
from luod.holdings import Holding
from luod.kernel.api import Call, Device, KernelError, Session, came_over
from luod.kernel.shared import SharedKernel
from luod.lifecycle import Mode, State
from luod.manifest import MAGIC, Manifest, ManifestError, NewerVersion, read_epoch, replay
from luod.manifest import Session as Recorded
from luod.sockets import is_over
from luod.store import SLOTS, Journal, slot_of
from luod.systemd import FdStore, Handed

if TYPE_CHECKING:
    from luod.origin import Origin
    from luod.sealed import Sealed, Spec

_OURS: Final = "luod-"


class RestoreImpossible(Exception):
    """This boot can't give anything back. `reason` says why; `kept` closes what came over, which would finish it.
    `nothing_came`: it could begin afresh, if somebody accepts that all is lost.
    """

    def __init__(self, reason: str, kept: ExitStack | None = None, *, nothing_came: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kept = kept or ExitStack()
        self.nothing_came = nothing_came

    def give_up_all(self) -> None:
        """Close what is kept, as the end of the process would: what nobody else has open is gone then."""
        self.kept.close()


class SecondLuod(Exception):
    """Another luod holds the journal in this kernel."""


class Named(NamedTuple):
    """A session of the kernel, and what it is called there."""

    name: str
    incoming: bool
    session: Session


@dataclass
class Brought:
    """What the fd store brought back. `flight` is for the flight recorder."""

    sessions: list[Named] = field(default_factory=list)
    bags: list[Bag] = field(default_factory=list)
    journals: list[OwnedFd] = field(default_factory=list)
    specs: "list[Spec]" = field(default_factory=list)
    unclear: list[Handed] = field(default_factory=list)
    flight: Kept = field(default_factory=Kept)

    def kept(self) -> ExitStack:
        """Closes all of it."""
        kept = ExitStack()
        kept.callback(self.flight.close)
        for named in self.sessions:
            kept.callback(named.session.give_up)
        for bag in self.bags:
            kept.callback(bag.close)
        for spec in self.specs:
            kept.callback(spec.close)
        for fd in (*self.journals, *(entry.fd for entry in self.unclear)):
            kept.callback(fd.close)
        return kept

    def said(self) -> list[str]:
        """What it is, for people."""
        sessions = [f"{'incoming' if incoming else 'outgoing'} session {name}" for name, incoming, _ in self.sessions]
        return sessions + [f"{_target(fd)}, kept as {name}" for name, fd in self.unclear]


def _target(fd: OwnedFd) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd.fileno()}")
    except OSError as error:
        return f"something ({error.strerror})"


@dataclass
class Recovered:
    """What the start found.

    `there` are the manifest's sessions, with what the fd store brought back of them; `successors` are those of the
    kernel, by session id, that were about to take another's place. `notes` say, for people, what was made of it;
    `unclear` is what is kept although nobody knows it; `next_kernel`, what an earlier luod has loaded in this boot, is
    the caller's to close.
    """

    manifest: Manifest
    journal: Journal
    there: list[Holding]
    successors: dict[int, Session]
    notes: list[str]
    unclear: Brought
    next_kernel: "Sealed | None" = None


@dataclass
class _Found:
    """A journal, as far as it can be read: `manifest` is what its records up to `end` lead to.

    Of one that came over there is only the session. Of one of this boot the fd store has the memory as well.
    """

    slot: str
    session: Session | None
    incoming: bool
    memfd: OwnedFd | None = None
    data: bytes = b""
    epoch: int = -1
    manifest: Manifest = field(default_factory=Manifest)
    end: int = 0
    problem: KernelError | ManifestError | None = None

    def read(self, memfd: OwnedFd) -> None:
        """Raises ManifestError."""
        size = os.fstat(memfd.fileno()).st_size
        self.data = os.pread(memfd.fileno(), size, 0) if size else b""
        self.epoch = read_epoch(self.data)
        self.manifest, self.end = replay(self.data)


def recover(
    kernel: SharedKernel,
    fd_store: FdStore,
    handed: Iterable[Handed] = (),
    expected: "Callable[[], Origin | None]" = lambda: None,
) -> Recovered:
    """Take over what there is, or begin afresh where there is nothing, and nothing is `expected` from another boot.

    Raises RestoreImpossible, and SecondLuod or KernelError where nothing came over and no journal can be had.
    """
    brought = _recognised(kernel, fd_store, handed)
    found: list[_Found] = []
    notes: list[str] = []
    try:
        _find_brought(brought, found)
        manifest, journal = _go_on(kernel, fd_store, found, notes) or _begin(
            kernel, fd_store, brought, found, notes, expected
        )
        for old in found:
            _let_go(old, fd_store, notes)
        there, successors = _sort(brought, manifest, fd_store, notes)
        next_kernel = _next_kernel(brought, kernel.boot_id, fd_store, notes)
    except ManifestError as error:
        raise RestoreImpossible(f"the manifest can't be read: {error.reason}", _kept(found, brought)) from None
    except Exception as error:
        # Whatever this is, it must not end the process while what came over is in its hands.
        if found or brought.sessions:
            raise RestoreImpossible(f"the manifest came over, but {error}", _kept(found, brought)) from error
        brought.kept().close()
        if isinstance(error, KernelError):
            match error.call, error.errno:
                case Call.OPEN, number if number != errno.EBUSY:
                    raise RestoreImpossible(error.meaning) from None
                case Call.RETRIEVE_SESSION, errno.EINVAL:
                    raise RestoreImpossible("another process holds the manifest that came over") from None
                case Call.CREATE_SESSION, errno.EEXIST:
                    raise SecondLuod("another luod holds the manifest in this kernel") from None
        raise
    return Recovered(manifest, journal, there, successors, notes, brought, next_kernel)


def _recognised(kernel: SharedKernel, fd_store: FdStore, handed: Iterable[Handed]) -> Brought:
    """Tell what these descriptors are. Raises RestoreImpossible: what can't be told isn't missing."""
    brought = Brought(unclear=list(handed))
    try:
        _recognise(kernel, fd_store, brought)
    except Exception as error:
        # Whatever this is, it must not end the process while what came over is in its hands.
        raise RestoreImpossible(f"what the fd store brought can't be told: {error}", brought.kept()) from error
    return brought


def _recognise(kernel: SharedKernel, fd_store: FdStore, brought: Brought) -> None:
    for entry in list(brought.unclear):
        name = kernel.recognise(entry.fd.fileno())
        if name is not None:
            session = kernel.adopt(entry.fd)
            incoming = came_over(session)
            if name == FLIGHT:
                (brought.flight.incoming if incoming else brought.flight.outgoing).append(session)
            else:
                brought.sessions.append(Named(name, incoming, session))
        elif _is_journal(entry.fd):
            brought.journals.append(entry.fd)
        elif _is_file(entry.fd) and is_record(entry.fd):
            brought.flight.memory.append(entry.fd)
        else:
            try:
                brought.bags.append(Bag.adopt(entry.fd))
            except NotABag:
                if not is_over(entry.fd.fileno()):
                    continue
                fd_store.remove(entry.fd.fileno())
                entry.fd.close()
        brought.unclear.remove(entry)
    if brought.unclear:  # as a rule there is nothing left, and nothing of this is needed
        from luod.sealed import specs_among

        brought.specs, brought.unclear = specs_among(brought.unclear)


def _is_file(fd: OwnedFd) -> bool:
    return stat.S_ISREG(os.fstat(fd.fileno()).st_mode)


def _is_journal(fd: OwnedFd) -> bool:
    return _is_file(fd) and os.pread(fd.fileno(), len(MAGIC), 0) == MAGIC


def _kept(found: list[_Found], brought: Brought) -> ExitStack:
    kept = brought.kept()
    for journal in found:
        if journal.session is not None:
            kept.callback(journal.session.give_up)
        if journal.memfd is not None:
            kept.callback(journal.memfd.close)
    return kept


# The journal


def _find_brought(brought: Brought, found: list[_Found]) -> None:
    """Move the journals from `brought` to `found`: each with its memory if it is of this boot."""
    while brought.journals:
        found.append(_Found("", None, incoming=False, memfd=brought.journals.pop()))
        _read_of_this_boot(found[-1])
    for named in [named for named in brought.sessions if named.name in SLOTS]:
        brought.sessions.remove(named)
        alone = [each for each in found if each.slot == named.name and each.session is None]
        if alone and not named.incoming:
            alone[0].session = named.session
            continue
        found.append(_Found(named.name, named.session, named.incoming))
        if named.incoming:
            _read_incoming(found[-1])
        else:
            found[-1].problem = ManifestError("its memory is not in the fd store")


def _read_of_this_boot(journal: _Found) -> None:
    assert journal.memfd is not None
    try:
        journal.read(journal.memfd)
        journal.slot = slot_of(journal.epoch)
    except ManifestError as error:
        journal.problem = error


def _read_incoming(journal: _Found) -> None:
    assert journal.session is not None
    try:
        with journal.session.retrieve_fd(0) as memfd:
            journal.read(memfd)
    except (KernelError, ManifestError) as error:
        journal.problem = error


def _go_on(
    kernel: SharedKernel, fd_store: FdStore, found: list[_Found], notes: list[str]
) -> tuple[Manifest, Journal] | None:
    """Go on with the newest journal of this boot, which is no longer in `found` then; None where there is none."""
    if not any(each.problem is None and each.manifest.boot_id == kernel.boot_id for each in found):
        return None
    newest = _newest(found, notes)
    assert newest is not None
    newest.manifest.enter_new_process()
    journal = Journal(kernel, fd_store, newest.manifest, newest.epoch)
    if newest.session is not None and newest.memfd is not None:
        journal.go_on(newest.session, newest.memfd, newest.end)
        found.remove(newest)
    else:
        with kernel.device() as device:
            journal.switch(device)
    return newest.manifest, journal


def _begin(
    kernel: SharedKernel,
    fd_store: FdStore,
    brought: Brought,
    found: list[_Found],
    notes: list[str],
    expected: "Callable[[], Origin | None]",
) -> tuple[Manifest, Journal]:
    """Begin a journal with what the last kernel left, or with nothing."""
    with kernel.device() as device:
        for slot in SLOTS:
            if not any(journal.incoming and journal.slot == slot for journal in found):
                _retrieve(device, slot, fd_store, found, notes)
        newest = _newest(found, notes)
        if newest is None:
            if brought.sessions:
                raise ManifestError(f"there is none, but sessions: {', '.join(brought.said())}")
            if (origin := expected()) is not None and origin.boot_id != kernel.boot_id:
                whence = f"boot {origin.boot_id}, generation {origin.generation}"
                reason = f"a live update from {whence} started this kernel, and nothing came over"
                raise RestoreImpossible(reason, nothing_came=True)
            device.create_session(SLOTS[1]).give_up()  # no other luod has its journal there
            manifest = Manifest(kernel.boot_id)
        else:
            manifest = newest.manifest
            manifest.enter_new_kernel(kernel.boot_id)
            _drop_bags(brought, fd_store)
        journal = Journal(kernel, fd_store, manifest, epoch=max((each.epoch for each in found), default=0))
        journal.switch(device)
    return manifest, journal


def _retrieve(device: Device, slot: str, fd_store: FdStore, found: list[_Found], notes: list[str]) -> None:
    """Add the journal in `slot` to `found`, if there is one. From then on it must not be closed by accident."""
    with fd_store.place() as keep:
        try:
            session = device.retrieve_session(slot)
        except KernelError as error:
            if error.errno == errno.ENOENT or (error.errno == errno.EINVAL and found):
                return
            raise
        found.append(_Found(slot, session, incoming=True))
        try:
            keep(session.fileno())  # up to here a SIGKILL closes the only descriptor, which finishes the session
        except KernelFailed as error:  # it can't be put back, but its successor is not far
            notes.append(f"what came over would have been lost if luod had died at its start: {error}")
    _read_incoming(found[-1])


def _newest(found: list[_Found], notes: list[str]) -> _Found | None:
    """The newest whole journal; None where there is none at all.

    Raises ManifestError where none is whole, or where one is of a newer version: then nothing may be touched.
    """
    if not found:
        return None
    problems = [journal.problem for journal in found if journal.problem is not None]
    whole = [journal for journal in found if journal.problem is None]
    for problem in problems:
        if isinstance(problem, NewerVersion) or not whole:
            raise ManifestError(str(problem))
    notes += [f"passed over a journal that is not whole: {problem}" for problem in problems]
    newest = max(whole, key=lambda journal: journal.epoch)
    if len(newest.data.rstrip(b"\0")) > newest.end:
        notes.append(f"passed over a torn record at byte {newest.end} of the journal: it was never acknowledged")
    return newest


def _let_go(journal: _Found, fd_store: FdStore, notes: list[str]) -> None:
    """Let go of a journal that has a successor. Where the kernel doesn't finish it, the next live update drops it."""
    if journal.memfd is not None:
        fd_store.remove(journal.memfd.fileno())
        journal.memfd.close()
    if journal.session is not None:
        if journal.incoming:
            try:
                journal.session.finish()
            except KernelError as error:
                notes.append(f"the kernel keeps a journal that is not needed any more: {error}")
        fd_store.remove(journal.session.fileno())
        journal.session.give_up()


# Sessions and bags


def _sort(
    brought: Brought, manifest: Manifest, fd_store: FdStore, notes: list[str]
) -> tuple[list[Holding], dict[int, Session]]:
    """Give to each recorded session what is its own. What nobody knows stays in `brought`."""
    there = {number: Holding(session) for number, session in manifest.sessions.items()}
    successors: dict[int, Session] = {}
    by_name = {session.kernel_name: session.id for session in manifest.sessions.values()}
    renewing = {session.renewing: session.id for session in manifest.sessions.values()}
    for named in list(brought.sessions):
        name, incoming, kernel = named
        known = there.get(by_name.get(name, -1))
        if known is not None and known.kernel is None and _is_way_of(known.session, incoming=incoming):
            known.kernel = kernel
        elif not incoming and name in renewing:
            successors[renewing[name]] = kernel
        elif not incoming and name.startswith(_OURS):
            fd_store.remove(kernel.fileno())  # it was never acknowledged, or was given up before luod ended
            kernel.give_up()
        else:
            continue
        brought.sessions.remove(named)
    while brought.bags:
        _give_bag(brought.bags.pop(), there, fd_store)
    notes += [
        f"the fd store didn't bring {missing} files of session {holding.session.kernel_name} back"
        for holding in there.values()
        if (missing := _missing(holding))
    ]
    return list(there.values()), successors


def _next_kernel(brought: Brought, boot_id: str, fd_store: FdStore, notes: list[str]) -> "Sealed | None":
    """What is loaded; whatever else is in the fd store of kernels to come is dropped."""
    if not brought.specs:
        return None
    from luod.sealed import newest

    found = newest(brought.specs, boot_id)
    for spec in brought.specs:
        if found is not None and spec.fileno() == found.fds[0]:
            continue
        if found is None and spec.boot_id == boot_id:
            notes.append("the fd store didn't bring all of the next kernel back: load it again")
        fd_store.remove(spec.fileno())
        spec.close()
    brought.specs.clear()
    return found


def _is_way_of(session: Recorded, *, incoming: bool) -> bool:
    """Whether that is what the kernel calls a session in this state."""
    return session.state in ({State.INCOMING} if incoming else {State.OUTGOING, State.CARRIED})


def _give_bag(bag: Bag, there: dict[int, Holding], fd_store: FdStore) -> None:
    """Give a bag to its session. Of two, between which luod ended, the newer one has all that is held."""
    holding = there.get(bag.session)
    if holding is None:
        _drop(bag, fd_store)
    elif holding.bag is None:
        holding.bag = bag
    else:
        held = holding.session.held().keys()
        older, holding.bag = sorted((bag, holding.bag), key=lambda each: len(each.tokens & held))
        _drop(older, fd_store)


def _drop(bag: Bag, fd_store: FdStore) -> None:
    fd_store.remove(bag.fileno())
    bag.close()


def _drop_bags(brought: Brought, fd_store: FdStore) -> None:
    """In a new kernel every file is a new one: what a bag has is of the last one, whatever kept it."""
    while brought.bags:
        _drop(brought.bags.pop(), fd_store)


def _missing(holding: Holding) -> int:
    """How many files should be in a bag and are not."""
    session = holding.session
    if session.mode is not Mode.CUSTODIAL or session.state not in (State.OUTGOING, State.CARRIED):
        return 0
    return len(session.held().keys() - (set() if holding.bag is None else holding.bag.tokens))
