"""A descriptor of another process."""

import ctypes
import errno
import os
from typing import Final

from luod.ctl.command import Failed
from luod.fds import OwnedFd

_PIDFD_GETFD: Final = 438
"""Its number on all architectures but alpha and mips."""


def descriptor_of(pid: int, number: int) -> OwnedFd:
    """A duplicate of a process's descriptor, the caller's to close: pidfd_getfd(2). Raises Failed."""
    libc = ctypes.CDLL(None, use_errno=True)
    with _opened(pid) as process:
        fd = libc.syscall(ctypes.c_long(_PIDFD_GETFD), process.fileno(), number, 0)
        reason = ctypes.get_errno()
    if fd >= 0:
        return OwnedFd(fd)
    match reason:
        case errno.EBADF:
            raise Failed(f"process {pid} has no descriptor {number}; see ls -l /proc/{pid}/fd")
        case errno.EPERM:
            hint = "; try it as root" if os.geteuid() else ""
            raise Failed(f"process {pid} can't be asked: that takes the right to trace it (CAP_SYS_PTRACE){hint}")
        case errno.ESRCH:
            raise Failed(f"process {pid} has ended")
    raise Failed(f"can't take descriptor {number} of process {pid}: {os.strerror(reason)}")


def _opened(pid: int) -> OwnedFd:
    try:
        return OwnedFd(os.pidfd_open(pid))
    except ProcessLookupError:
        raise Failed(f"there is no process {pid}") from None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise Failed(f"{pid} is a thread: name its process") from None
        raise Failed(f"can't reach process {pid}: {error.strerror}") from None
