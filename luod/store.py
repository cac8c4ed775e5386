"""The journal's memfd: preserved from its first instant, appended to, switched when it is full.

There are two names for the kernel's session that holds it, taken in turn. A full journal is followed by a new one,
which starts with a snapshot, under the other name; only when the kernel has preserved that one, and the fd store has
it, the old one is given up. So at every instant the kernel holds a whole journal, and any kexec, announced or not,
carries it over.
"""

import mmap
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from luod.errors import answered
from luod.fds import OwnedFd
from luod.kernel.api import Device, Session
from luod.kernel.shared import SharedKernel
from luod.manifest import HEADER, RECORD, Document, Manifest, Record, encode, header
from luod.systemd import FdStore

SLOTS: Final = ("luod-manifest-a", "luod-manifest-b")
"""The kernel names of the sessions that hold a journal, under token 0."""

MIN_BYTES: Final = 1 << 20


class _Open(NamedTuple):
    """An open journal: the kernel's session, and the memory that is preserved in it."""

    session: Session
    memory: mmap.mmap

    def close(self) -> None:
        self.memory.close()
        self.session.give_up()


class Journal:
    """The manifest's journal, in a memfd that the kernel preserves. Not thread-safe: its owner has a lock."""

    def __init__(self, kernel: SharedKernel, fd_store: FdStore, manifest: Manifest, epoch: int = 0) -> None:
        """It is nowhere until `switch` or `go_on`; `epoch` is that of its predecessor, or of the one to go on with."""
        self._kernel = kernel
        self._fd_store = fd_store
        self._manifest = manifest
        self.epoch = epoch
        self._open: _Open | None = None
        self._end = 0
        self._behind = False

    def go_on(self, session: Session, memfd: OwnedFd, end: int) -> None:
        """Go on where another luod has ended, `end` bytes into the memory. Both are this journal's from now on."""
        with memfd, answered("mmap"):
            self._open = _Open(session, mmap.mmap(memfd.fileno(), 0))
            self._fd_store.closing(memfd.fileno())
        self._end = end

    def append(self, record: Record) -> None:
        """Write a record down: once this returns, any live update carries it over.

        Raises KernelError, KernelFailed or QuotaExceeded where a new journal was needed and couldn't be had; then
        nothing was written.
        """
        data = encode(record)
        memory = self._room_for(len(data))
        # Length and checksum last: a reader sees the whole record or none.
        start = self._end + RECORD.size
        memory[start : self._end + len(data)] = data[RECORD.size :]
        memory[self._end : start] = data[: RECORD.size]
        self._end += len(data)

    def room(self) -> int:
        """How many bytes there are until it takes a new memfd."""
        return 0 if self._open is None or self._behind else len(self._open.memory) - self._end

    def _room_for(self, size: int) -> mmap.mmap:
        if self._open is None or self._behind or self._end + size > len(self._open.memory):
            with self._kernel.device() as device:
                self.switch(device, spare=size)
        assert self._open is not None
        return self._open.memory

    def fall_behind(self) -> None:
        """The manifest has changed without a record: the next append starts with a new snapshot."""
        self._behind = True

    def switch(self, device: Device, spare: int = 0) -> None:
        """Start a new journal with a snapshot of the manifest and `spare` bytes of room, and give the old one up.

        Raises as `append`; then the old one is still there.
        """
        snapshot = b"".join(encode(record) for record in self._manifest.snapshot())
        epoch = self.epoch + 1
        size = max(MIN_BYTES, 1 << (2 * (HEADER.size + len(snapshot) + spare)).bit_length())
        with ExitStack() as undo:
            with answered("memfd_create"):
                memfd = undo.enter_context(_memfd(size))
            with answered("mmap"):
                memory = undo.enter_context(mmap.mmap(memfd.fileno(), size))
            memory[HEADER.size : HEADER.size + len(snapshot)] = snapshot
            memory[: HEADER.size] = header(epoch, len(snapshot))
            self._fd_store.remove()  # what couldn't be: the last session of this name
            session = device.create_session(slot_of(epoch))
            undo.callback(session.give_up)
            session.preserve_fd(memfd.fileno(), 0)
            self._fd_store.put(session.fileno(), memfd.fileno())
            undo.pop_all()
            memfd.close()  # the mapping and the kernel hold it
        old, self._open = self._open, _Open(session, memory)
        self.epoch, self._end, self._behind = epoch, HEADER.size + len(snapshot), False
        if old is not None:
            # Before anything is appended: a reader that can't read the new one takes the old one, if it is there.
            self._fd_store.remove(old.session.fileno())
            old.close()

    def give_up(self) -> None:
        """Close the journal. Where nobody else has it open, the kernel no longer holds it."""
        if self._open is not None:
            self._open.close()
        self._open = None


def slot_of(epoch: int) -> str:
    """The name for the session of this journal, other than its predecessor's."""
    return SLOTS[(epoch - 1) % len(SLOTS)]


def _memfd(size: int) -> OwnedFd:
    memfd = OwnedFd(os.memfd_create("luod-manifest", os.MFD_CLOEXEC))
    try:
        os.posix_fallocate(memfd.fileno(), 0, size)
    except BaseException:
        memfd.close()
        raise
    return memfd


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
