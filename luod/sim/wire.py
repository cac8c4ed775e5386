"""The simulator's messages: a JSON object in one packet of a SOCK_SEQPACKET socket, descriptors beside it.

A request is {"call": NAME, ...}. Its first descriptor is the socket for its own reply, for several processes and
threads may use one device or session at once; what the call itself takes comes after it. A reply is
{"errno": 0, ...}, or the errno of the failure alone.

A session is one end of a socket pair whose other end the simulator holds and bears a name that starts with
`SESSION`: so the last close of its duplicates is noticed, and it can be told from any other socket.
"""

import array
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from luod.fds import FdBundle, OwnedFd

SESSION: Final = b"\0luod.sim/session/"

_PACKET_MAX: Final = 16384
_FDS_MAX: Final = 253
_INT: Final = array.array("i").itemsize


class Message(NamedTuple):
    """A packet that came. `body` is empty where it can't be read, `whole` false where descriptors were lost."""

    body: dict[str, Any]
    fds: FdBundle
    whole: bool


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """A descriptor as a socket, for as long as it is needed. Raises OSError(ENOTSOCK)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
    try:
        yield sock
    finally:
        sock.detach()


def taken(fd: OwnedFd) -> socket.socket:
    """Turn a descriptor into a socket. Raises OSError(ENOTSOCK), and then the caller still owns it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd.fileno())
    fd.hand_on()
    return sock


def send(sock: socket.socket, body: dict[str, Any], fds: Sequence[int] = (), flags: int = 0) -> None:
    """Send one packet, with borrowed descriptors."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([json.dumps(body).encode()], control, flags | socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, flags: int = 0) -> Message | None:
    """Take one packet; None once the other end sends no more."""
    data, control, came, _ = sock.recvmsg(
        _PACKET_MAX, socket.CMSG_SPACE(_FDS_MAX * _INT), flags | socket.MSG_CMSG_CLOEXEC
    )
    fds = FdBundle.received(control)
    if not data and not fds:
        return None
    return Message(_parsed(data), fds, not came & socket.MSG_CTRUNC)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def default_path() -> str:
    """Where the simulator listens if nobody says where."""
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/run", "luod", "sim.sock")
