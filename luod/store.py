"""The journal's memfd: recovered after a live update, preserved again, appended to, switched when it is full.

There are two names for the kernel's session that holds it, A and B. A full journal is followed by a new one,
which starts with a snapshot, under the other name; only when the kernel has preserved that one is the old one
given up. So at every instant the kernel holds a whole journal, and any kexec, announced or not, carries it over.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from luod.errors import KernelFailed
from luod.fds import OwnedFd
from luod.kernel.api import Call, Device, KernelError, Session
from luod.kernel.shared import SharedKernel
from luod.manifest import (
    HEADER,
    RECORD,
    Document,
    Manifest,
    ManifestError,
    NewerVersion,
    Record,
    encode,
    header,
    read_epoch,
    replay,
)

SLOTS: Final = ("luod-manifest-a", "luod-manifest-b")
"""The kernel names of the sessions that hold a journal, under token 0."""

MIN_BYTES: Final = 1 << 20


class RestoreImpossible(Exception):
    """This boot can't give anything back. `reason` says why.

    `kept` are the sessions that came over and must stay open, for closing them would finish them.
    """

    def __init__(self, reason: str, kept: list[Session] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kept = kept or []

    def give_up_all(self) -> None:
        """Let go of what is kept, as the end of the process would: it is gone then."""
        while self.kept:
            self.kept.pop().give_up()


class SecondLuod(Exception):
    """Another luod holds the journal in this kernel."""


class Journal:
    """The manifest's journal, in a memfd that the kernel preserves. Not thread-safe: its owner has a lock."""

    def __init__(self, kernel: SharedKernel, manifest: Manifest, epoch: int = 0) -> None:
        self._kernel = kernel
        self._manifest = manifest
        self.epoch = epoch
        self._slot = SLOTS[-1]
        self._session: Session | None = None
        self._memory: mmap.mmap | None = None
        self._end = 0
        self._behind = False

    def append(self, record: Record) -> None:
        """Write a record down: once this returns, any live update carries it over.

        Raises KernelError or KernelFailed where a new journal was needed and couldn't be had; then nothing
        was written.
        """
        data = encode(record)
        memory = self.make_room(len(data))
        # Length and checksum last: a reader sees the whole record or none.
        start = self._end + RECORD.size
        memory[start : self._end + len(data)] = data[RECORD.size :]
        memory[self._end : start] = data[: RECORD.size]
        self._end += len(data)

    def make_room(self, size: int = 4096) -> mmap.mmap:
        """Have room for `size` bytes of records, in a new journal if need be. Raises as `append`."""
        memory = self._memory
        if memory is None or self._behind or self._end + size > len(memory):
            with self._kernel.device() as device:
                memory = self.switch(device, spare=size)
        return memory

    def fall_behind(self) -> None:
        """The manifest has changed without a record: the next append starts with a new snapshot."""
        self._behind = True

    def switch(self, device: Device, spare: int = 0) -> mmap.mmap:
        """Start a new journal with a snapshot of the manifest and `spare` bytes of room, and give the old one up.

        Raises KernelError or KernelFailed; then the old one is still there.
        """
        snapshot = b"".join(encode(record) for record in self._manifest.snapshot())
        slot = SLOTS[1 - SLOTS.index(self._slot)]
        size = max(MIN_BYTES, 1 << (2 * (HEADER.size + len(snapshot) + spare)).bit_length())
        with ExitStack() as undo:
            with _answered("memfd_create"):
                memfd = undo.enter_context(_memfd(size))
            with _answered("mmap"):
                memory = undo.enter_context(mmap.mmap(memfd.fileno(), size))
            memory[HEADER.size : HEADER.size + len(snapshot)] = snapshot
            memory[: HEADER.size] = header(self.epoch + 1, len(snapshot))
            session = device.create_session(slot)
            undo.callback(session.give_up)
            session.preserve_fd(memfd.fileno(), 0)
            undo.pop_all()
            memfd.close()  # the mapping and the kernel hold it
        self.give_up()
        self._session, self._memory, self._slot = session, memory, slot
        self._end = HEADER.size + len(snapshot)
        self.epoch += 1
        self._behind = False
        return memory

    def give_up(self) -> None:
        """Close the journal: the kernel no longer holds it."""
        if self._memory is not None and self._session is not None:
            self._memory.close()
            self._session.give_up()
        self._memory = self._session = None


@contextmanager
def _answered(call: str) -> Iterator[None]:
    """Raise KernelFailed where `call` fails."""
    try:
        yield
    except OSError as error:
        raise KernelFailed(call, error.errno or 0) from None


def _memfd(size: int) -> OwnedFd:
    memfd = OwnedFd(os.memfd_create("luod-manifest", os.MFD_CLOEXEC))
    try:
        os.posix_fallocate(memfd.fileno(), 0, size)
    except BaseException:
        memfd.close()
        raise
    return memfd


@dataclass
class Recovered:
    """What the start found. `notes` are for people."""

    manifest: Manifest
    journal: Journal
    notes: list[str] = field(default_factory=list)


@dataclass
class _Incoming:
    """A journal that came over, as far as it can be read: `manifest` is what its records up to `end` lead to."""

    session: Session
    data: bytes = b""
    epoch: int = -1
    manifest: Manifest = field(default_factory=Manifest)
    end: int = 0
    problem: KernelError | ManifestError | None = None


def recover(kernel: SharedKernel) -> Recovered:
    """Take over what the last kernel left, or begin afresh where it left nothing.

    Raises RestoreImpossible, and SecondLuod or KernelError where nothing came over and no journal can be had.
    """
    found: list[_Incoming] = []
    try:
        with kernel.device() as device:
            for slot in SLOTS:
                _retrieve(device, slot, found)
            if not found:
                device.create_session(SLOTS[1]).give_up()  # no other luod has its journal there
            manifest, notes = _newest(found, kernel.boot_id)
            journal = Journal(kernel, manifest, epoch=max((incoming.epoch for incoming in found), default=0))
            journal.switch(device)
            for incoming in found:
                _let_go(incoming.session, notes)
    except ManifestError as error:
        raise RestoreImpossible(f"the manifest can't be read: {error.reason}", _sessions(found)) from None
    except Exception as error:
        # Whatever this is, it must not end the process while what came over is in its hands.
        if found:
            raise RestoreImpossible(f"the manifest came over, but {error}", _sessions(found)) from error
        if isinstance(error, KernelError):
            match error.call, error.errno:
                case Call.OPEN, number if number != errno.EBUSY:
                    raise RestoreImpossible(error.meaning) from None
                case Call.RETRIEVE_SESSION, errno.EINVAL:
                    raise RestoreImpossible("another process holds the manifest that came over") from None
                case Call.CREATE_SESSION, errno.EEXIST:
                    raise SecondLuod("another luod holds the manifest in this kernel") from None
        raise
    return Recovered(manifest, journal, notes)


def _sessions(found: list[_Incoming]) -> list[Session]:
    return [incoming.session for incoming in found]


def _retrieve(device: Device, slot: str, found: list[_Incoming]) -> None:
    """Add the journal in `slot` to `found`, if there is one. From then on it must not be closed by accident."""
    try:
        incoming = _Incoming(device.retrieve_session(slot))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return
        raise
    found.append(incoming)
    try:
        with incoming.session.retrieve_fd(0) as memfd:
            incoming.data = _read(memfd)
        incoming.epoch = read_epoch(incoming.data)
        incoming.manifest, incoming.end = replay(incoming.data)
    except (KernelError, ManifestError) as error:
        incoming.problem = error


def _read(memfd: OwnedFd) -> bytes:
    size = os.fstat(memfd.fileno()).st_size
    return os.pread(memfd.fileno(), size, 0) if size else b""


def _newest(found: list[_Incoming], boot_id: str) -> tuple[Manifest, list[str]]:
    """The manifest of the newest whole journal, in the new kernel.

    Raises ManifestError where none is whole, or where one is of a newer version: then nothing may be touched.
    """
    if not found:
        return Manifest(boot_id), []
    problems = [incoming.problem for incoming in found if incoming.problem is not None]
    whole = [incoming for incoming in found if incoming.problem is None]
    for problem in problems:
        if isinstance(problem, NewerVersion) or not whole:
            raise ManifestError(str(problem))
    notes = [f"passed over a journal that is not whole: {problem}" for problem in problems]
    newest = max(whole, key=lambda incoming: incoming.epoch)
    if len(newest.data.rstrip(b"\0")) > newest.end:
        notes.append(f"passed over a torn record at byte {newest.end} of the journal: it was never acknowledged")
    newest.manifest.enter_new_kernel(boot_id)
    return newest.manifest, notes


def _let_go(session: Session, notes: list[str]) -> None:
    """Finish a journal that has a successor. Where the kernel doesn't, it is dropped by the next live update."""
    try:
        session.finish()
    except KernelError as error:
        notes.append(f"the kernel keeps a journal that is not needed any more: {error}")
    session.give_up()


class ReadableCopy:
    """/run/luod/manifest.json: what luod holds, for whoever asks while luod is down."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, document: Document) -> None:
        """Replace the copy, whole or not at all. Raises OSError."""
        text = document.model_dump_json(by_alias=True, indent=2)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        new.replace(self._path)
