"""Which kernel a path or a descriptor belongs to: the real one, or a simulated one behind a socket."""

import os
import stat
from typing import TYPE_CHECKING

from luod.fds import OwnedFd
from luod.kernel.api import Kernel, Session
from luod.kernel.device import LuoKernel, LuoSession

if TYPE_CHECKING:
    from luod.kernel.machine import Machine


def kernel_at(path: str) -> Kernel:
    """The kernel whose device is at `path`: a socket is a simulated kernel's."""
    if _is_simulated(path):
        from luod.sim.client import SimKernel

        return SimKernel(path)
    return LuoKernel(path)


def machine_at(device: str) -> "Machine":
    """The machine whose kernel has its device there: a socket is a simulated kernel's."""
    if _is_simulated(device):
        from luod.sim.client import SimMachine

        return SimMachine(device)
    from luod.kernel.machine import RealMachine

    return RealMachine()


def _is_simulated(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False  # opening it gives the reason


def session_of(fd: OwnedFd) -> Session:
    """The session behind a descriptor that luod lent, for clients with a delegated session."""
    if stat.S_ISSOCK(os.fstat(fd.fileno()).st_mode):
        from luod.sim.client import SimSession

        return SimSession(fd)
    return LuoSession(fd)
