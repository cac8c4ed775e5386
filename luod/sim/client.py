"""The client's side of the simulated kernel: `kernel.api` over its socket, and `Control` for what no kernel offers.

A call on what belonged to the kernel before a kexec, or whose simulator is gone, raises KernelError with ENODEV.
"""

import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from luod.fds import OwnedFd
from luod.kernel.api import Call, KernelError, SessionFd
from luod.kernel.cmdline import KHO, check, is_on
from luod.kernel.image import Image
from luod.kernel.running import NotKnown
from luod.names import KERNEL_NAME_MAX
from luod.sim import wire

_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ENODEV)


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _ask(sock: socket.socket, call: str, fds: Sequence[int] = (), **fields: Any) -> wire.Message:
    """Send a request and wait for its reply. Raises OSError with the errno that was answered."""
    ours, theirs = wire.pair()
    with ours:
        with theirs:  # closed before the reply comes: a descriptor in it finds room, and an end is noticed
            wire.send(sock, {"call": call, **fields}, [theirs.fileno(), *fds])
        reply = wire.receive(ours)
    if reply is None:
        raise OSError(errno.ENODEV, "the simulated kernel that this belonged to is gone")
    number = reply.body.get("errno", errno.EPROTO) if reply.whole else errno.EMFILE
    if number:
        reply.fds.close()
        raise OSError(number, os.strerror(number))
    return reply


def _call(sock: socket.socket, call: Call, fds: Sequence[int] = (), **fields: Any) -> wire.Message:
    try:
        return _ask(sock, call, fds, **fields)
    except OSError as error:
        raise KernelError(call, errno.ENODEV if error.errno in _GONE else error.errno or 0) from None


def _read(reply: wire.Message) -> dict[str, Any]:
    """What is in the memory that came with a reply."""
    with reply.fds as fds, open(fds.take_all()[0].hand_on(), "rb") as file:
        file.seek(0)
        body: dict[str, Any] = json.load(file)
    return body


class SimSession(SessionFd):
    """A session of a simulated kernel (see `kernel.api.Session`)."""

    def preserve_fd(self, fd: int, token: int) -> None:
        try:
            fcntl.fcntl(fd, fcntl.F_GETFD)
            fds = [fd]
        except (OSError, ValueError):
            fds = []  # the kernel looks at the token before the descriptor
        self._call(Call.PRESERVE_FD, fds, token=token)

    def retrieve_fd(self, token: int) -> OwnedFd:
        return self._call(Call.RETRIEVE_FD, token=token).fds.take_all()[0]

    def finish(self) -> None:
        self._call(Call.FINISH)

    def get_name(self) -> str:
        name: str = self._call(Call.GET_NAME).body["name"]
        return name

    def _call(self, call: Call, fds: Sequence[int] = (), **fields: Any) -> wire.Message:
        """Call on the session. A descriptor that is none answers ENOTTY, as to an ioctl it doesn't know."""
        try:
            with wire.borrowed(self._fd.fileno()) as sock:
                other_end = sock.getpeername()
                if not isinstance(other_end, bytes) or not other_end.startswith(wire.SESSION):
                    raise KernelError(call, errno.ENOTTY)
                return _call(sock, call, fds, **fields)
        except OSError as error:
            raise KernelError(call, errno.ENODEV if error.errno == errno.ENOTCONN else errno.ENOTTY) from None


class SimDevice:
    """The open device of a simulated kernel (see `kernel.api.Device`)."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def create_session(self, name: str) -> SimSession:
        return self._named(Call.CREATE_SESSION, name)

    def retrieve_session(self, name: str) -> SimSession:
        return self._named(Call.RETRIEVE_SESSION, name)

    def _named(self, call: Call, name: str) -> SimSession:
        try:
            ours, theirs = wire.pair()
        except OSError as error:
            raise KernelError(call, error.errno or 0) from None
        cut = os.fsdecode(os.fsencode(name)[: KERNEL_NAME_MAX + 1])  # as long as the field in the kernel's struct
        try:
            with theirs:
                _call(self._sock, call, [theirs.fileno()], name=cut)
        except BaseException:
            ours.close()
            raise
        return SimSession(OwnedFd(ours.detach()))

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class SimKernel:
    """The simulated kernel behind a socket (see `kernel.api.Kernel`)."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self) -> SimDevice:
        try:
            sock = _connect(self._path)
        except OSError as error:
            raise KernelError(Call.OPEN, error.errno or 0) from None
        try:
            _call(sock, Call.OPEN)
        except BaseException:
            sock.close()
            raise
        return SimDevice(sock)

    def recognise(self, fd: int) -> str | None:
        with OwnedFd.duplicate_of(fd) as copy:
            try:
                return SimSession(copy).get_name()
            except KernelError as error:
                if error.errno not in (errno.ENOTTY, errno.ENODEV):
                    raise
                return None

    def adopt(self, fd: OwnedFd) -> SimSession:
        return SimSession(fd)

    def boot_id(self) -> str:
        """As of the simulated kernel: a new one after each kexec. Raises OSError where none listens."""
        with _connect(self._path) as sock:
            boot_id: str = _ask(sock, "boot_id").body["boot_id"]
            return boot_id


class NextKernel(NamedTuple):
    """The kernel that is loaded: its image, what it is to be started with, and how large its initrd is, in bytes."""

    image: Image
    command_line: str
    initrd_bytes: int | None


class SimRunning:
    """The simulated kernel that runs (see `kernel.machine.Running`). Each method raises OSError where none listens."""

    def __init__(self, path: str) -> None:
        self._path = path

    def release(self) -> str:
        return self._image().release

    def architecture(self) -> str:
        return self._image().architecture

    def command_line(self) -> str:
        line: str = self._what()["command_line"]
        return line

    def live_update_is_on(self) -> bool:
        is_on: bool = self._what()["live_update"]
        return is_on

    def kho_is_on(self) -> bool | NotKnown:
        return is_on(self.command_line(), KHO) is not False

    def an_image_is_loaded(self) -> bool:
        return self.next_kernel() is not None

    def build_id(self) -> str | NotKnown:
        return min(self._image().build_ids, default=NotKnown("it has none"))

    def image(self, elsewhere: Iterable[Path] = ()) -> Image | NotKnown:
        """A simulated kernel knows itself: nothing is looked for."""
        return self._image()

    def next_kernel(self) -> NextKernel | None:
        """What no real kernel tells."""
        loaded = self._what()["loaded"]
        return loaded and NextKernel(**{**loaded, "image": Image.of_facts(loaded["image"])})

    def _image(self) -> Image:
        return Image.of_facts(self._what()["image"])

    def _what(self) -> dict[str, Any]:
        with _connect(self._path) as sock:
            return _read(_ask(sock, "machine"))


class SimMachine:
    """The machine of the simulated kernel behind a socket (see `kernel.machine.Machine`)."""

    is_simulated = True

    def __init__(self, path: str) -> None:
        self._path = path
        self.running = SimRunning(path)

    def load(self, kernel_fd: int, command_line: str, initrd_fd: int | None = None) -> None:
        check(command_line)
        fds = [kernel_fd] if initrd_fd is None else [kernel_fd, initrd_fd]
        for fd in fds:
            try:
                fcntl.fcntl(fd, fcntl.F_GETFD)
            except (OSError, ValueError):
                raise KernelError(Call.KEXEC_LOAD, errno.EBADF) from None
        self._call(Call.KEXEC_LOAD, fds, command_line=command_line)

    def unload(self) -> None:
        self._call(Call.KEXEC_UNLOAD)

    def kexec(self) -> None:
        self._call(Call.KEXEC)
        power_off()

    def _call(self, call: Call, fds: Sequence[int] = (), **fields: Any) -> None:
        try:
            sock = _connect(self._path)
        except OSError:
            raise KernelError(call, errno.ENODEV) from None
        with sock:
            _call(sock, call, fds, **fields)


def power_off() -> None:
    """End as a process ends whose machine has gone into another kernel."""
    os.kill(os.getpid(), signal.SIGKILL)


class FileState(NamedTuple):
    """A file in a session. `size` is in bytes, as it will be or was handed over."""

    token: int
    size: int
    inode: int
    retrieved: bool


class SessionState(NamedTuple):
    """A session. `direction` is outgoing or incoming; an incoming one is `retrieved` once it was opened."""

    name: str
    direction: str
    retrieved: bool
    files: list[FileState]


class State(NamedTuple):
    """What a simulated kernel holds. `opened` says whether somebody has the device open."""

    boot_id: str
    opened: bool
    sessions: list[SessionState]


class Control:
    """What a test can do to a simulated kernel. It doesn't need the device, and there may be several at once.

    Every call raises OSError: with the errno of what was refused, or because nobody listens at `path`.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def state(self) -> State:
        """What there is, sessions in the order of their making, outgoing ones first."""
        body = _read(self._ask("state"))
        return State(
            body["boot_id"],
            body["opened"],
            [
                SessionState(**{**session, "files": [FileState(**each) for each in session["files"]]})
                for session in body["sessions"]
            ],
        )

    def kexec(self, *, carry: bool = True, open_error: int = 0) -> None:
        """Start the next kernel. Calls that are under way are waited for.

        Without `carry` nothing comes over, as when it can't read what was handed over. With `open_error` every
        open of the next kernel's device fails with this errno: EIO, its predecessor's sessions can't be
        restored; ENOENT, it was booted without liveupdate=on. Raises OSError where a file can't be frozen:
        then nothing has changed.
        """
        self._ask("kexec", carry=carry, number=open_error)

    def fault(self, call: str, number: int, nth: int = 1) -> None:
        """Let the `nth` `call` from now fail with the errno `number`.

        `call` is a `kernel.api.Call` or `kernel.FREEZE`, which counts files. Only calls that would have succeeded
        are counted. RETRIEVE_FD then fails the same way for ever for its token; FINISH also strikes the one that
        is implied in the last close of an incoming session, which then stays in the kernel, out of reach.
        """
        self._ask("fault", of=str(call), number=number, nth=nth)

    def delay(self, call: str, seconds: float) -> None:
        """Let every `call` from now take so much longer: it is carried out, and answered late.

        Other calls on the same session wait for it, and so does kexec; those on other sessions don't.
        """
        self._ask("delay", of=str(call), seconds=seconds)

    def clear_faults(self) -> None:
        """Forget all faults and delays to come."""
        self._ask("clear")

    def _ask(self, call: str, **fields: Any) -> wire.Message:
        with _connect(self.path) as sock:
            return _ask(sock, call, **fields)
