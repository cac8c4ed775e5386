"""A connected Unix socket in trio that carries descriptors. With `sockets`, the only sendmsg and recvmsg."""

import socket
from collections.abc import Sequence

import trio

from luod.fds import FdBundle, OwnedFd
from luod.sockets import CHUNK, CONTROL_BYTES, QUEUE_FULL_PAUSE, Peer, ancillary, peer_of, received


class Connection:
    """A connected socket in trio."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    @classmethod
    async def to(cls, path: str) -> "Connection":
        """Connect to the socket at `path`, and wait while its queue is full."""
        # Not by trio's connect(): it takes the EAGAIN of a full queue for a connection.
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            while True:
                try:
                    sock.connect(path)
                except BlockingIOError:
                    await trio.sleep(QUEUE_FULL_PAUSE)
                else:
                    return cls(trio.socket.from_stdlib_socket(sock))
        except BaseException:
            sock.close()
            raise

    def peer(self) -> Peer:
        return peer_of(self._sock)

    async def receive(self) -> tuple[bytes, FdBundle]:
        """Wait for bytes, and the descriptors that came with them; no bytes at the end of the stream.

        Raises DescriptorsLost, and OSError where the connection broke.
        """
        data, control, flags, _ = await self._sock.recvmsg(CHUNK, CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
        return data, received(control, flags)

    async def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send all of `data`, and the borrowed `fds` with its first byte.

        A send that was cancelled or failed may have sent a part: the connection is of no use afterwards.
        """
        rest = memoryview(data)
        rest = rest[await self._sock.sendmsg([rest], ancillary(fds), socket.MSG_NOSIGNAL) :]
        while rest:  # a partial sendmsg has sent its descriptors already
            rest = rest[await self._sock.send(rest, socket.MSG_NOSIGNAL) :]

    def close(self) -> None:
        self._sock.close()

    def hand_on(self) -> OwnedFd:
        """Give the socket to the caller. Closing it closes the descriptors that nobody received: it may take long."""
        trio.lowlevel.notify_closing(self._sock)
        return OwnedFd(self._sock.detach())
