"""What a Unix socket carries beside its bytes, and blocking sockets: all that needs no event loop."""

import array
import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from luod.fds import FdBundle

if TYPE_CHECKING:
    import trio

FDS_MAX: Final = 253
"""SCM_MAX_FD: the most descriptors that one message can carry (include/net/scm.h)."""

CONTROL_BYTES: Final = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
CHUNK: Final = 65536
BACKLOG: Final = 1024

QUEUE_FULL_PAUSE: Final = 0.01
"""How long to wait before the next try to connect where the queue is full, in seconds: nothing tells when it isn't."""

NO_SOCKET: Final = frozenset({errno.ENOTSOCK, errno.EBADF})
"""What making a socket of a descriptor answers where it is none."""

_UCRED: Final = struct.Struct("=iII")


class DescriptorsLost(Exception):
    """The kernel had no room for all descriptors of a message (MSG_CTRUNC), most likely for RLIMIT_NOFILE.

    `fds` are those that arrived all the same: the catcher closes them.
    """

    def __init__(self, fds: FdBundle) -> None:
        super().__init__("not all descriptors of a message arrived")
        self.fds = fds


@dataclass(frozen=True)
class Peer:
    """Who is at the other end, as the kernel knows it (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: "socket.socket | trio.socket.SocketType") -> Peer:
    """Who connected this socket."""
    return Peer(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def ancillary(fds: Sequence[int]) -> "list[tuple[int, int, array.array[int]]]":
    """The control message that carries `fds`; none for none."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def received(control: list[tuple[int, int, bytes]], flags: int) -> FdBundle:
    """The descriptors of a recvmsg. Raises DescriptorsLost where some were dropped."""
    fds = FdBundle.received(control)
    if flags & socket.MSG_CTRUNC:
        raise DescriptorsLost(fds)
    return fds


def receive_blocking(sock: socket.socket) -> tuple[bytes, FdBundle]:
    """Wait for bytes, and the descriptors that came with them; no bytes at the end of the stream."""
    data, control, flags, _ = sock.recvmsg(CHUNK, CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
    return data, received(control, flags)


def send_blocking(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send all of `data`, and the borrowed `fds` with its first byte."""
    sent = sock.sendmsg([data], ancillary(fds), socket.MSG_NOSIGNAL)
    if sent < len(data):  # a partial sendmsg has sent its descriptors already
        sock.sendall(data[sent:])


def address(sock: "socket.socket | trio.socket.SocketType") -> str:
    """Where a Unix socket can be reached; `@` stands before a name that is in no file system."""
    name = sock.getsockname()
    return name if isinstance(name, str) else "@" + os.fsdecode(name[1:])


def listen(path: Path) -> socket.socket:
    """Listen at `path`, for everybody. A socket that nobody listens on is replaced.

    Raises OSError: EADDRINUSE where somebody listens there, EEXIST where something else is there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        sock.bind(os.fspath(path))
        path.chmod(0o666)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def is_over(fd: int) -> bool:
    """Whether a borrowed descriptor is a socket with nothing in it and nobody at its other end: of no use to anybody.

    Not a new one, that was never connected: it has no end yet.
    """
    poll = select.poll()
    poll.register(fd, 0)
    if not any(event & select.POLLHUP for _, event in poll.poll(0)):
        return False
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    finally:
        sock.detach()


def is_listening(fd: int) -> bool:
    """Whether a borrowed descriptor is a Unix stream socket that is there to listen on. Raises OSError."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        if error.errno not in NO_SOCKET:
            raise
        return False
    try:
        kind = sock.family, sock.type, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    finally:
        sock.detach()
    return kind == (socket.AF_UNIX, socket.SOCK_STREAM, 1)


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "something else than a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # somebody who is slow to accept
            pass
    raise OSError(errno.EADDRINUSE, "another luod listens there")
