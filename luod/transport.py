"""Unix stream sockets that carry descriptors: the only sendmsg and recvmsg of the daemon and its clients."""

import array
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from luod.fds import FdBundle, OwnedFd

FDS_MAX: Final = 253
"""SCM_MAX_FD: the most descriptors that one message can carry (include/net/scm.h)."""

_CONTROL_BYTES: Final = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
_CHUNK: Final = 65536
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


def peer_of(sock: socket.socket | trio.socket.SocketType) -> Peer:
    """Who connected this socket."""
    return Peer(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def ancillary(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    """The control message that carries `fds`; none for none."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def received(control: list[tuple[int, int, bytes]], flags: int) -> FdBundle:
    """The descriptors of a recvmsg. Raises DescriptorsLost where some were dropped."""
    fds = FdBundle()
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            for number in numbers:
                fds.add(OwnedFd(number))
    if flags & socket.MSG_CTRUNC:
        raise DescriptorsLost(fds)
    return fds


def receive_blocking(sock: socket.socket) -> tuple[bytes, FdBundle]:
    """Wait for bytes, and the descriptors that came with them; no bytes at the end of the stream."""
    data, control, flags, _ = sock.recvmsg(_CHUNK, _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
    return data, received(control, flags)


def send_blocking(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send all of `data`, and the borrowed `fds` with its first byte."""
    sent = sock.sendmsg([data], ancillary(fds), socket.MSG_NOSIGNAL)
    if sent < len(data):  # a partial sendmsg has sent its descriptors already
        sock.sendall(data[sent:])


class Connection:
    """A connected socket in trio."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    @classmethod
    async def to(cls, path: str) -> "Connection":
        """Connect to the socket at `path`."""
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def peer(self) -> Peer:
        return peer_of(self._sock)

    async def receive(self) -> tuple[bytes, FdBundle]:
        """Wait for bytes, and the descriptors that came with them; no bytes at the end of the stream.

        Raises DescriptorsLost, and OSError where the connection broke.
        """
        data, control, flags, _ = await self._sock.recvmsg(_CHUNK, _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
        return data, received(control, flags)

    async def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send all of `data`, and the borrowed `fds` with its first byte.

        A send that was cancelled or failed may have sent a part: the connection is of no use afterwards.
        """
        sent = await self._sock.sendmsg([data], ancillary(fds), socket.MSG_NOSIGNAL)
        while sent < len(data):  # a partial sendmsg has sent its descriptors already
            sent += await self._sock.send(data[sent:], socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._sock.close()
