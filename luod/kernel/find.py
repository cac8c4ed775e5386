"""Which kernel a path or a descriptor belongs to: the real one, or a simulated one behind a socket."""

import os
import stat

from luod.fds import OwnedFd
from luod.kernel.api import Kernel, Session
from luod.kernel.device import LuoKernel, LuoSession


def kernel_at(path: str) -> Kernel:
    """The kernel whose device is at `path`: a socket is a simulated kernel's."""
    try:
        simulated = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        simulated = False  # opening it gives the reason
    if simulated:
        from luod.sim.client import SimKernel

        return SimKernel(path)
    return LuoKernel(path)


def session_of(fd: OwnedFd) -> Session:
    """The session behind a descriptor that luod lent, for clients with a delegated session."""
    if stat.S_ISSOCK(os.fstat(fd.fileno()).st_mode):
        from luod.sim.client import SimSession

        return SimSession(fd)
    return LuoSession(fd)
