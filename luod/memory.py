"""What luod takes into custody: memory that its owner gives it whole."""

import errno
import fcntl
import os
from dataclasses import dataclass
from typing import Final, NamedTuple

from luod.errors import KernelFailed, NotPreservable, answered
from luod.fds import OwnedFd
from luod.policy import Owner

MFD_EXEC: Final = 0x10
F_SEAL_FUTURE_WRITE: Final = 0x10
F_SEAL_EXEC: Final = 0x20
NO_WRITING: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | F_SEAL_FUTURE_WRITE


@dataclass(frozen=True)
class Given:
    """A file as its owner gives it. The descriptor is number `index` of its message, and the message's to close."""

    index: int
    fd: OwnedFd
    token: int | None = None
    name: str | None = None


class Inode(NamedTuple):
    """What a file is, under whatever descriptor: the kernel preserves it only once."""

    device: int
    number: int


class Memory(NamedTuple):
    """What a memory file is: its inode, its size in bytes, and its seals, which the kernel takes at PRESERVE_FD."""

    inode: Inode
    size: int
    seals: int


def new_memory(name: str, flags: int = os.MFD_ALLOW_SEALING) -> OwnedFd:
    """A memfd that comes back as it went, whatever vm.memfd_noexec says: see `comes_back_read_only`. Raises OSError."""
    try:
        return OwnedFd(os.memfd_create(name, os.MFD_CLOEXEC | flags | MFD_EXEC))
    except OSError as error:
        if error.errno != errno.EINVAL:  # Linux before 6.3 doesn't know MFD_EXEC, and needs none
            raise
        return OwnedFd(os.memfd_create(name, os.MFD_CLOEXEC | flags))


def status_of(fd: OwnedFd) -> os.stat_result:
    """Raises KernelFailed."""
    with answered("fstat"):
        return os.fstat(fd.fileno())


def look_at(fd: OwnedFd) -> Memory:
    """What a descriptor is that luod knows to be memory. Raises KernelFailed."""
    with answered("F_GET_SEALS"):
        seals = fcntl.fcntl(fd.fileno(), fcntl.F_GET_SEALS)
    return _memory(status_of(fd), seals)


def _memory(status: os.stat_result, seals: int) -> Memory:
    return Memory(Inode(status.st_dev, status.st_ino), status.st_size, seals)


def without_memory(status: os.stat_result) -> int:
    """How many bytes of a file the kernel would have to allocate, at luod's cost, to preserve it."""
    return max(0, status.st_size - status.st_blocks * 512)


def comes_back_read_only(seals: int) -> bool:
    """Whether memory with these seals comes back with others, which forbid to write to it and to resize it.

    RETRIEVE_FD seals a new file, which is executable, and F_SEAL_EXEC on such a one brings all seals against
    writing (mm/memfd.c, memfd_add_seals).
    """
    return bool(seals & F_SEAL_EXEC and NO_WRITING & ~seals)


def check(file: Given, owner: Owner) -> Memory:
    """What a stranger's descriptor is. Raises NotPreservable where luod can't or mustn't keep it, and KernelFailed.

    F_GET_SEALS comes first: it reaches no file system, and fails for whatever could make fstat block.
    """
    fd = file.fd.fileno()
    try:
        with answered("F_GET_SEALS"):
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except KernelFailed as failed:
        if failed.errno not in (errno.EINVAL, errno.EBADF):
            raise
        reason = "it is not a memfd; what else the kernel can preserve goes into a delegated session"
        raise NotPreservable(file.index, reason) from None
    with answered("F_GETFL"):
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_ACCMODE != os.O_RDWR:
        raise NotPreservable(file.index, "it is not open for reading and writing")
    status = status_of(file.fd)
    if status.st_uid not in (owner.uid, owner.trusted_uid):
        raise NotPreservable(file.index, f"it belongs to uid {status.st_uid}, not to uid {owner.uid}")
    if comes_back_read_only(seals):
        reason = "it can't be made executable (MFD_NOEXEC_SEAL, or vm.memfd_noexec=1) and would come back read-only"
        raise NotPreservable(file.index, f"{reason}: make it with MFD_EXEC, or seal it against writing first")
    if missing := without_memory(status):
        raise NotPreservable(file.index, f"it is sparse, fallocate it first: {missing} of its bytes have no memory")
    return _memory(status, seals)
