"""What is in a file, and memory that luod takes: from one to the other."""

import errno
import os
import stat
import tempfile
from contextlib import suppress
from typing import Final

from luod.fds import OwnedFd
from luod.memory import new_memory

_AT_ONCE: Final = 64 << 20
"""How many bytes the kernel copies before Ctrl-C is heard."""

_BUFFER: Final = 1 << 20
_NOT_THIS_WAY: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NAME_MAX: Final = 249
"""The longest name of a memfd, in bytes (mm/memfd.c)."""


def memory_of(source: int, name: str) -> OwnedFd:
    """All that can be read from a borrowed descriptor, in memory without holes that is the caller's to close.

    Whoever reads it begins at its start. Raises OSError.
    """
    memory = new_memory(os.fsdecode(os.fsencode(name)[:_NAME_MAX]))
    try:
        copy(source, memory.fileno())
        os.lseek(memory.fileno(), 0, os.SEEK_SET)
    except BaseException:
        memory.close()
        raise
    return memory


def write_to(path: str, memory: int) -> None:
    """Write all of some memory into a file, which appears whole or not at all. Raises OSError.

    What is there and is no regular file is written to as it is.
    """
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with OwnedFd(os.open(path, os.O_WRONLY)) as target:
            copy(memory, target.fileno(), 0)
        return
    path = os.path.realpath(path)  # a link stays one
    number, new = tempfile.mkstemp(prefix=".luoctl-", dir=os.path.dirname(path))
    try:
        with OwnedFd(number) as target:
            copy(memory, target.fileno(), 0)
        os.replace(new, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(new)
        raise


def copy(source: int, target: int, offset: int | None = None) -> None:
    """Copy all that is left, or all from `offset` on: then the position, which others share, stays where it is.

    The kernel does it, where it can for these two. Raises OSError.
    """
    ways = [_by_kernel, _by_hand]
    moved = 1
    while moved:
        try:
            moved = ways[0](source, target, offset)
        except OSError as error:
            if error.errno not in _NOT_THIS_WAY or len(ways) == 1:
                raise
            del ways[0]
        else:
            offset = None if offset is None else offset + moved


def _by_kernel(source: int, target: int, offset: int | None) -> int:
    return os.sendfile(target, source, offset, _AT_ONCE)


def _by_hand(source: int, target: int, offset: int | None) -> int:
    data = os.read(source, _BUFFER) if offset is None else os.pread(source, _BUFFER, offset)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
    return len(data)
