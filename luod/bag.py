"""A bag: a session's files in the queue of a socket, each beside its kernel token.

So one descriptor keeps them all, and the service manager can hold it. Reading doesn't empty it (MSG_PEEK), and it
outlives its writer; nothing can be taken out of it, only left out of the next one.

    message: magic, session's id, kernel tokens, with as many descriptors
"""

import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from errno import ECONNRESET, EINVAL, EIO, EMFILE, ENOTCONN
from typing import Final, NamedTuple, Self

from luod.fds import FdBundle, OwnedFd
from luod.sockets import CONTROL_BYTES, FDS_MAX, NO_SOCKET, DescriptorsLost, ancillary, received

_HEAD: Final = struct.Struct("=8sQ")
_MAGIC: Final = b"LUOD bag"
_MESSAGE_MAX: Final = _HEAD.size + 8 * FDS_MAX
_QUEUE_BYTES: Final = 1 << 30
"""The kernel cuts it down to twice net.core.wmem_max."""

_SO_PEEK_OFF: Final = 42


class BagFull(Exception):
    """There is no room for more files in this bag: they need a new one."""


class NotABag(Exception):
    """The descriptor is something else."""


class _Message(NamedTuple):
    """A message in the queue: where it starts, in bytes, and the kernel tokens of its descriptors, in order."""

    offset: int
    tokens: tuple[int, ...]


def pages(tokens: Collection[int]) -> Iterator[list[int]]:
    """Kernel tokens, as many at a time as there can be descriptors in a message."""
    ranked = list(tokens)
    for start in range(0, len(ranked), FDS_MAX):
        yield ranked[start : start + FDS_MAX]


class Bag:
    """The files of one session. Not thread-safe: the session's lock is held."""

    def __init__(self, session: int) -> None:
        """An empty one, for the session of this id. Raises OSError where there is no descriptor left."""
        self.session = session
        self._reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._writer: socket.socket | None = writer
        try:
            writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
        except BaseException:
            self.close()
            raise
        self._messages: list[_Message] = []
        self._end = 0

    @classmethod
    def adopt(cls, fd: OwnedFd) -> Self:
        """Take over a bag that outlived its writer. Raises NotABag, or OSError: then `fd` is still the caller's."""
        try:
            reader = socket.socket(fileno=fd.fileno())
        except OSError as error:
            if error.errno not in NO_SOCKET:  # it may be one
                raise
            raise NotABag from None
        try:
            session, messages, end = _look_into(reader)
        except BaseException:
            reader.detach()
            raise
        fd.hand_on()
        bag = cls.__new__(cls)
        bag.session, bag._messages, bag._end = session, messages, end
        bag._reader, bag._writer = reader, None
        return bag

    def fileno(self) -> int:
        """Borrow the descriptor that keeps the files."""
        return self._reader.fileno()

    @property
    def tokens(self) -> set[int]:
        """The kernel tokens of the files that are in it."""
        return {token for message in self._messages for token in message.tokens}

    def put(self, files: Mapping[int, OwnedFd]) -> None:
        """Put duplicates of `files` in, by kernel token.

        Raises BagFull, for every adopted one, and OSError; some may be in it then.
        """
        for page in pages(files.keys()):
            self._send(tuple(page), [files[token].fileno() for token in page])

    def put_from(self, other: "Bag", tokens: Collection[int]) -> None:
        """Put in what `other` has of these files, in as few messages as can be. Raises as `put`."""
        for page in pages(tokens):
            files = other.get(page)
            with FdBundle(files.values()):
                self.put(files)

    def get(self, tokens: Collection[int]) -> dict[int, OwnedFd]:
        """Duplicates of those of these files that are in it, the caller's to close. Raises OSError."""
        missing = set(tokens)
        found: dict[int, OwnedFd] = {}
        try:
            for message in self._messages:
                if missing.isdisjoint(message.tokens):
                    continue
                with self._peek(message) as fds:
                    if len(fds) != len(message.tokens):
                        raise OSError(EIO, "the descriptors of a bag are gone")
                    for token, fd in zip(message.tokens, fds, strict=True):
                        if token in missing:
                            missing.remove(token)
                            found[token] = OwnedFd(fd.hand_on())
        except BaseException:
            FdBundle(found.values()).close()
            raise
        return found

    def close(self) -> None:
        """Let go of the files, as far as luod is concerned."""
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    def _send(self, tokens: tuple[int, ...], fds: list[int]) -> None:
        if self._writer is None:
            raise BagFull
        data = _HEAD.pack(_MAGIC, self.session) + struct.pack(f"={len(tokens)}Q", *tokens)
        try:
            self._writer.sendmsg([data], ancillary(fds), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise BagFull from None
        self._messages.append(_Message(self._end, tokens))
        self._end += len(data)

    def _peek(self, message: _Message) -> FdBundle:
        self._reader.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, message.offset)
        flags = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        _, control, came, _ = self._reader.recvmsg(_MESSAGE_MAX, CONTROL_BYTES, flags)
        try:
            return received(control, came)
        except DescriptorsLost as lost:
            lost.fds.close()
            raise OSError(EMFILE, os.strerror(EMFILE)) from None


def _look_into(reader: socket.socket) -> tuple[int, list[_Message], int]:
    """Whose bag it is, its messages, and where they end. Raises NotABag; OSError where that can't be told."""
    if (reader.family, reader.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise NotABag
    messages: list[_Message] = []
    sessions: set[int] = set()
    end = 0
    try:
        reader.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
        while data := reader.recv(_MESSAGE_MAX, socket.MSG_PEEK | socket.MSG_DONTWAIT):  # installs no descriptors
            magic, session = _HEAD.unpack_from(data)
            if magic != _MAGIC:
                raise NotABag
            sessions.add(session)
            tokens = struct.unpack_from(f"={(len(data) - _HEAD.size) // 8}Q", data, _HEAD.size)
            messages.append(_Message(end, tokens))
            end += len(data)
    except BlockingIOError:  # no more; its writer is still there
        pass
    except struct.error:
        raise NotABag from None
    except OSError as error:
        if error.errno not in (ENOTCONN, EINVAL, ECONNRESET):  # it may be one
            raise
        raise NotABag from None
    if len(sessions) != 1:
        raise NotABag
    return sessions.pop(), messages, end
