"""Who must close which descriptor.

An `OwnedFd` is closed or handed on exactly once, by whoever holds it. One that is forgotten is reported and
left open: the last close of a LUO session's descriptor destroys what it holds, a leak destroys nothing.
"""

import array
import fcntl
import os
import socket
import warnings
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

FIRST_HANDED: Final = 3
"""The number of the first descriptor that is handed to whoever is executed: SD_LISTEN_FDS_START."""


class OwnedFd:
    """A descriptor that somebody must close. A borrowed one is a plain int."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        if fd < 0:
            raise ValueError(f"not a descriptor: {fd}")
        self._fd = fd

    @classmethod
    def duplicate_of(cls, fd: int) -> Self:
        """Duplicate a borrowed descriptor, close-on-exec."""
        return cls(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))

    def fileno(self) -> int:
        """Borrow the descriptor. Raises ValueError once it was closed or handed on."""
        if self._fd < 0:
            raise ValueError("descriptor was closed or handed on")
        return self._fd

    def duplicate(self) -> "OwnedFd":
        return OwnedFd.duplicate_of(self.fileno())

    def hand_on(self) -> int:
        """Give the descriptor, and the duty to close it, to the caller."""
        fd, self._fd = self.fileno(), -1
        return fd

    def close(self) -> None:
        """Close the descriptor. Does nothing the second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"descriptor {self._fd} was never closed", ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        return f"<OwnedFd {self._fd}>" if self._fd >= 0 else "<OwnedFd closed>"


class FdBundle:
    """Descriptors that came together. Whatever nobody took is closed at the end of the `with` block."""

    __slots__ = ("_fds",)

    def __init__(self, fds: Iterable[OwnedFd] = ()) -> None:
        self._fds = list(fds)

    @classmethod
    def received(cls, control: Sequence[tuple[int, int, bytes]]) -> Self:
        """The descriptors that came with a message (SCM_RIGHTS)."""
        numbers = array.array("i")
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
        return cls(OwnedFd(number) for number in numbers)

    def __len__(self) -> int:
        return len(self._fds)

    def __iter__(self) -> Iterator[OwnedFd]:
        return iter(self._fds)

    def __getitem__(self, index: int) -> OwnedFd:
        return self._fds[index]

    def add(self, fd: OwnedFd) -> None:
        self._fds.append(fd)

    def take_all(self) -> list[OwnedFd]:
        """Hand every descriptor on to the caller."""
        fds, self._fds = self._fds, []
        return fds

    def close(self) -> None:
        """Close what is left. One close that fails does not spare the others."""
        fds, self._fds = self._fds, []
        failed: OSError | None = None
        for fd in fds:
            try:
                fd.close()
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hand_over(fds: Sequence[int]) -> None:
    """Have duplicates of these borrowed descriptors from number 3 on, for whoever is executed, and nothing else there.

    What had such a number is closed: after that a process can only be executed, or end.
    """
    out_of_the_way = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_HANDED + len(fds)) for fd in fds]
    for position, fd in enumerate(out_of_the_way):
        os.dup2(fd, FIRST_HANDED + position)


def listen_environment(names: Sequence[str]) -> dict[str, str]:
    """What tells whoever this process becomes of the descriptors that are handed over (sd_listen_fds(3))."""
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
