"""The simulator's listening socket: one simulator at a path, for its user only."""

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Final

_BACKLOG: Final = 4096


class AlreadyRunning(Exception):
    """Another process listens at this path."""


class Listener:
    """Listen at `path`. The socket of a simulator that is gone is replaced.

    Raises AlreadyRunning, or OSError where it can't listen there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock = _bound(path)
        self._inode = os.stat(path).st_ino
        self._sock.listen(_BACKLOG)
        self._sock.settimeout(0)
        self._hold_spare()

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> socket.socket | None:
        """Take the next connection. Where no descriptor is left for it, it is closed at once."""
        with suppress(BlockingIOError):
            try:
                return self._sock.accept()[0]
            except OSError:
                os.close(self._spare)
                with suppress(OSError):
                    self._sock.accept()[0].close()
                self._hold_spare()
        return None

    def _hold_spare(self) -> None:
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop listening, and remove the socket if it is still ours."""
        self._sock.close()
        os.close(self._spare)
        with suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


def _bound(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = os.umask(0o177)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not stat.S_ISSOCK(os.stat(path).st_mode):
                raise
            _remove_stale(path)
            sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock


def _remove_stale(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:  # a socket of another kind, which somebody holds
                raise
    raise AlreadyRunning(f"another process listens at {path}")
