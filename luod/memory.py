"""What luod takes into custody: memory that its owner gives it whole."""

import fcntl
import os
from dataclasses import dataclass
from typing import NamedTuple

from luod.errors import NotPreservable
from luod.fds import OwnedFd
from luod.policy import Owner


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


def look_at(fd: OwnedFd) -> Memory:
    """What a descriptor is that luod knows to be memory."""
    status = os.fstat(fd.fileno())
    return Memory(Inode(status.st_dev, status.st_ino), status.st_size, fcntl.fcntl(fd.fileno(), fcntl.F_GET_SEALS))


def without_memory(status: os.stat_result) -> int:
    """How many bytes of a file the kernel would have to allocate, at luod's cost, to preserve it."""
    return max(0, status.st_size - status.st_blocks * 512)


def check(file: Given, owner: Owner) -> Memory:
    """What a stranger's descriptor is. Raises NotPreservable where luod can't or mustn't keep it.

    F_GET_SEALS comes first: it reaches no file system, and fails for whatever could make fstat block.
    """
    fd = file.fd.fileno()
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        reason = "it is not a memfd; what else the kernel can preserve goes into a delegated session"
        raise NotPreservable(file.index, reason) from None
    if flags & os.O_ACCMODE != os.O_RDWR:
        raise NotPreservable(file.index, "it is not open for reading and writing")
    status = os.fstat(fd)
    if status.st_uid not in (owner.uid, owner.trusted_uid):
        raise NotPreservable(file.index, f"it belongs to uid {status.st_uid}, not to uid {owner.uid}")
    if missing := without_memory(status):
        raise NotPreservable(file.index, f"it is sparse, fallocate it first: {missing} of its bytes have no memory")
    return Memory(Inode(status.st_dev, status.st_ino), status.st_size, seals)
