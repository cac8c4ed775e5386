"""The kernel's device, shared: one thread of ours at a time, and patience while another process has it open."""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from luod.fds import OwnedFd
from luod.kernel.api import Device, Kernel, KernelError, Session

PATIENCE: Final = 5.0
"""How long to wait for another process to close the device, in seconds."""

_PAUSE: Final = 0.02


class SharedKernel:
    """A kernel whose device is held only while it is in use, for systemd uses it as well."""

    def __init__(self, kernel: Kernel, patience: float = PATIENCE) -> None:
        self._kernel = kernel
        self._patience = patience
        self._turn = threading.Lock()
        self.boot_id = kernel.boot_id()

    def recognise(self, fd: int) -> str | None:
        """The kernel name of the session behind a borrowed descriptor; None where it is none."""
        return self._kernel.recognise(fd)

    def adopt(self, fd: OwnedFd) -> Session:
        """Make a session of its descriptor, and own it."""
        return self._kernel.adopt(fd)

    @contextmanager
    def device(self) -> Iterator[Device]:
        """Have the device open for the `with` block. Blocks.

        Raises KernelError(OPEN, …); EBUSY only where another process didn't let go of it in time.
        """
        with self._turn:
            device = self._open()
            try:
                yield device
            finally:
                device.close()

    def _open(self) -> Device:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._kernel.open()
            except KernelError as error:
                if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                    raise
            time.sleep(_PAUSE)
