"""The one handler: which files can be preserved, and how they come over (mm/memfd_luo.c)."""

import ctypes
import errno
import fcntl
import os
import stat
from typing import Final

from luod.fds import OwnedFd

F_SEAL_FUTURE_WRITE: Final = 0x10
F_SEAL_EXEC: Final = 0x20
KNOWN_SEALS: Final = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC
)
"""MEMFD_LUO_ALL_SEALS (include/linux/kho/abi/memfd.h)."""

_MFD_EXEC: Final = 0x10
_TMPFS_MAGIC: Final = 0x01021994
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_PAGES_MAX: Final = 2**32 - 1
_POINTERS_MAX: Final = (2**31 - 1) // 8
"""kvmalloc() gives at most INT_MAX bytes, here for a pointer to each page."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _filesystem(fd: int) -> int:
    """The magic of the file system that `fd` is on; os.fstatvfs doesn't tell it."""
    answer = (ctypes.c_long * 32)()  # struct statfs is 120 bytes and starts with f_type
    if _libc.fstatfs(fd, answer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer[0]


def is_path_only(fd: int) -> bool:
    """Whether the descriptor is one that fget() doesn't know: opened with O_PATH."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH)


def can_preserve(fd: int) -> bool:
    """Whether this is a file in memory that has no name: a memfd without huge pages, or an unlinked tmpfs file."""
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and not status.st_nlink and _filesystem(fd) == _TMPFS_MAGIC


def inode(fd: int) -> tuple[int, int]:
    """What tells a file from all others, however often it was opened."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _again(fd: int, flags: int) -> OwnedFd:
    """Open the file anew: the given descriptor may be for reading or writing only."""
    return OwnedFd(os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC))


def preserve(fd: int) -> tuple[int, int]:
    """Take the file's size in bytes and its seals, and allocate its holes.

    Raises OSError with EOPNOTSUPP, EFBIG or ENOMEM, in this order (memfd_luo_preserve).
    """
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    if seals & ~KNOWN_SEALS:
        raise OSError(errno.EOPNOTSUPP, "unknown seals")
    status = os.fstat(fd)
    pages = -(-status.st_size // _PAGE)
    if pages > _PAGES_MAX:
        raise OSError(errno.EFBIG, "too many pages")
    if pages > _POINTERS_MAX:
        raise OSError(errno.ENOMEM, "too many pages to point to")
    if status.st_blocks * 512 < status.st_size:
        with _again(fd, os.O_RDWR) as whole:
            os.posix_fallocate(whole.fileno(), 0, status.st_size)
    return status.st_size, seals


def freeze(fd: int) -> int:
    """Take the file's position in bytes."""
    return os.lseek(fd, 0, os.SEEK_CUR)


def retrieve(fd: int, size: int, position: int, seals: int) -> OwnedFd:
    """Make the next kernel's file, with the content of `fd` as it is now.

    The new file is executable, so F_SEAL_EXEC brings all seals against writing with it (memfd_add_seals).
    """
    with _again(fd, os.O_RDONLY) as source:
        target = _executable_memfd()
        try:
            os.ftruncate(target.fileno(), size)
            offset = 0
            while copied := os.sendfile(target.fileno(), source.fileno(), offset, size - offset):
                offset += copied
            os.lseek(target.fileno(), position, os.SEEK_SET)
            fcntl.fcntl(target.fileno(), fcntl.F_ADD_SEALS, seals)
        except BaseException:
            target.close()
            raise
        return target


def _executable_memfd() -> OwnedFd:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return OwnedFd(os.memfd_create("", flags | _MFD_EXEC))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):  # Linux < 6.3; vm.memfd_noexec=2
            raise
        return OwnedFd(os.memfd_create("", flags))
