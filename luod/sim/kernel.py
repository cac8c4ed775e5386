"""The simulated kernel's state and rules, without sockets (kernel/liveupdate/luo_session.c, luo_file.c, luo_core.c).

Every failure is an OSError with the errno that the kernel gives, checked in the kernel's order.
"""

import errno
import os
from typing import Any, Final, NamedTuple, NoReturn

from luod.fds import OwnedFd
from luod.kernel.api import Call, ImageError
from luod.kernel.cmdline import COMMAND_LINE_SIZE, turns_on_live_update
from luod.kernel.compatible import Abi
from luod.kernel.image import Image, Kind, read_image
from luod.kernel.unpack import Packing
from luod.names import KERNEL_NAME_MAX
from luod.sim import image, memfd

FREEZE: Final = "FREEZE"
"""The step of kexec that a fault can strike beside the calls of `kernel.api.Call`: the freeze of one file."""

FAULTY: Final = frozenset([*Call, FREEZE])

COMMAND_LINE: Final = "quiet liveupdate=on kho=on"
"""What the first kernel was started with."""

FIRST: Final = Image(
    kind=Kind.BZIMAGE,
    architecture="x86_64",
    packing=Packing.GZIP,
    release=image.RELEASE,
    build_ids=frozenset({"00" * 20}),
    abi=Abi(*map(frozenset, (image.KHO, image.LUO, image.HANDLERS))),
    command_line_max=COMMAND_LINE_SIZE - 1,
    page_size=4096,
)
"""The first kernel."""

_HANDLER: Final = "memfd-"
"""What the name of the one handler begins with."""


def _refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


def _name(name: str) -> bytes:
    """The name as it stands in the kernel's field of 64 bytes, up to its NUL where there is one."""
    return os.fsencode(name)[: KERNEL_NAME_MAX + 1].partition(b"\0")[0]


class Faults:
    """Failures to come. A fault strikes a call that would have succeeded, and only such calls are counted."""

    def __init__(self) -> None:
        self._planned: list[tuple[str, int, int]] = []

    def plan(self, call: str, number: int, nth: int) -> None:
        """Let the `nth` `call` from now (1 is the next one) fail with the errno `number`."""
        self._planned.append((call, number, nth))

    def clear(self) -> None:
        self._planned.clear()

    def strike(self, call: str) -> None:
        """Count a call, and raise what was planned for it."""
        now = [number for planned, number, nth in self._planned if planned == call and nth == 1]
        self._planned = [
            (planned, number, nth - (planned == call))
            for planned, number, nth in self._planned
            if planned != call or nth > 1
        ]
        if now:
            _refuse(now[0])


class File:
    """A file in a session. `error` is what its RETRIEVE_FD answers for ever, where that failed."""

    __slots__ = ("error", "fd", "inode", "position", "retrieved", "seals", "size", "token")

    def __init__(self, token: int, fd: OwnedFd, size: int, seals: int) -> None:
        self.token = token
        self.fd: OwnedFd | None = fd
        self.inode = memfd.inode(fd.fileno())
        self.size = size
        self.seals = seals
        self.position = 0
        self.retrieved = False
        self.error = 0

    def freeze(self) -> None:
        if self.fd is not None:
            self.position = memfd.freeze(self.fd.fileno())

    def come_over(self) -> None:
        """Turn into the next kernel's file, which nobody has retrieved yet."""
        if self.fd is None:
            return
        with self.fd as old:
            self.fd = None
            try:
                self.fd = memfd.retrieve(old.fileno(), self.size, self.position, self.seals)
                self.inode = memfd.inode(self.fd.fileno())
            except OSError as error:
                self.error = error.errno or errno.EIO

    def close(self) -> None:
        if self.fd is not None:
            self.fd.close()


class Session:
    """A session; an incoming one is `retrieved` as soon as it has a descriptor. Only that tells its direction."""

    __slots__ = ("files", "name", "retrieved")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.files: dict[int, File] = {}
        self.retrieved = False

    def close_files(self) -> None:
        for file in self.files.values():
            file.close()
        self.files.clear()


class Loaded(NamedTuple):
    """The next kernel: its image, what it is to be started with, and how large its initrd is, in bytes."""

    image: Image
    command_line: str
    initrd_bytes: int | None


class Kernel:
    """A kernel, and after `kexec` the next one."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.image = FIRST
        self.command_line = COMMAND_LINE
        self._loaded: Loaded | None = None
        self._opened = False
        self._open_error = 0
        self._outgoing: dict[bytes, Session] = {}
        self._incoming: dict[bytes, Session] = {}
        self._preserved: set[tuple[int, int]] = set()
        self._boot()

    def _boot(self) -> None:
        with open("/proc/sys/kernel/random/uuid", encoding="ascii") as uuid:
            self.boot_id = uuid.read().strip()

    def open(self) -> None:
        """Open the device: EBUSY while it is open (luo_open)."""
        if self._open_error:
            _refuse(self._open_error)
        if self._opened:
            _refuse(errno.EBUSY)
        self.faults.strike(Call.OPEN)
        self._opened = True

    def close(self) -> None:
        self._opened = False

    def create_session(self, name: str) -> Session:
        """luo_session_create: EINVAL, EEXIST."""
        session = Session(_name(name))
        if not 1 <= len(session.name) <= KERNEL_NAME_MAX:
            _refuse(errno.EINVAL)
        if session.name in self._outgoing:
            _refuse(errno.EEXIST)
        self.faults.strike(Call.CREATE_SESSION)
        self._outgoing[session.name] = session
        return session

    def retrieve_session(self, name: str) -> Session:
        """luo_session_retrieve: ENOENT, EINVAL where it was retrieved before."""
        session = self._incoming.get(_name(name)) or _refuse(errno.ENOENT)
        if session.retrieved:
            _refuse(errno.EINVAL)
        self.faults.strike(Call.RETRIEVE_SESSION)
        session.retrieved = True
        return session

    def preserve_fd(self, session: Session, fd: int | None, token: int) -> None:
        """luo_preserve_file: EINVAL, EEXIST, EBADF, ENOENT, EBUSY, then what the handler says.

        `fd` is borrowed; None stands for a number that isn't open.
        """
        if session.retrieved:
            _refuse(errno.EINVAL)
        if token in session.files:
            _refuse(errno.EEXIST)
        if fd is None or memfd.is_path_only(fd):
            _refuse(errno.EBADF)
        if not memfd.can_preserve(fd):
            _refuse(errno.ENOENT)
        if memfd.inode(fd) in self._preserved:
            _refuse(errno.EBUSY)
        size, seals = memfd.preserve(fd)
        self.faults.strike(Call.PRESERVE_FD)
        file = session.files[token] = File(token, OwnedFd.duplicate_of(fd), size, seals)
        self._preserved.add(file.inode)

    def retrieve_fd(self, session: Session, token: int) -> OwnedFd:
        """luo_retrieve_file: EINVAL, ENOENT; the first failure for a token is its answer for ever."""
        if not session.retrieved:
            _refuse(errno.EINVAL)
        file = session.files.get(token) or _refuse(errno.ENOENT)
        if not file.error and not file.retrieved:
            try:
                self.faults.strike(Call.RETRIEVE_FD)
            except OSError as error:
                file.error = error.errno or errno.EIO
        if file.fd is None or file.error:
            _refuse(file.error)
        file.retrieved = True
        self._preserved.add(file.inode)
        return file.fd.duplicate()

    def finish(self, session: Session) -> None:
        """luo_file_finish: EINVAL. A fault leaves all as it was; a session without files can't fail."""
        if not session.retrieved:
            _refuse(errno.EINVAL)
        if session.files:
            self.faults.strike(Call.FINISH)
            self._let_go(session)

    def get_name(self, session: Session) -> str:
        self.faults.strike(Call.GET_NAME)
        return os.fsdecode(session.name)

    def release(self, session: Session) -> None:
        """The last close (luo_session_release). Where finishing fails, the session stays, out of reach, for ever."""
        if not session.retrieved:
            self._let_go(session)
            del self._outgoing[session.name]
            return
        try:
            self.finish(session)
        except OSError:
            return
        del self._incoming[session.name]

    def _let_go(self, session: Session) -> None:
        self._preserved.difference_update(file.inode for file in session.files.values())
        session.close_files()

    def kexec(self, *, carry: bool = True, open_error: int = 0) -> None:
        """Become the next kernel; every open session and device is the old one's from then on.

        Without `carry` nothing comes over. With `open_error` the next device answers every open with it, and
        nothing comes over either. A file that can't be frozen (OSError) leaves all as it was.
        """
        for session in self._outgoing.values():
            for file in session.files.values():
                self.faults.strike(FREEZE)
                file.freeze()
        going, self._outgoing = self._outgoing, {}
        gone, self._incoming = self._incoming, {}
        for session in gone.values():
            session.close_files()
        for session in going.values():
            if carry and not open_error:
                for file in session.files.values():
                    file.come_over()
            else:
                session.close_files()
        if carry and not open_error:
            self._incoming = going
        self._preserved.clear()
        self._opened = False
        self._open_error = open_error
        self._loaded = None
        self._boot()

    def load(self, kernel: int | None, command_line: str, initrd: int | None) -> None:
        """kexec_file_load: EBADF, ENOEXEC, then what is wrong with the line and the initrd (EINVAL). The descriptors
        are borrowed; None stands for a kernel that isn't open.
        """
        if kernel is None:
            _refuse(errno.EBADF)
        try:
            image = read_image(kernel)
        except ImageError:
            _refuse(errno.ENOEXEC)
        if image.kind is not Kind.BZIMAGE:
            _refuse(errno.ENOEXEC)
        initrd_bytes = None if initrd is None else os.fstat(initrd).st_size
        if initrd_bytes == 0 or len(os.fsencode(command_line)) > image.command_line_max:
            _refuse(errno.EINVAL)
        self.faults.strike(Call.KEXEC_LOAD)
        self._loaded = Loaded(image, command_line, initrd_bytes)

    def unload(self) -> None:
        self.faults.strike(Call.KEXEC_UNLOAD)
        self._loaded = None

    def enter_next(self) -> None:
        """Become the kernel that is loaded, which takes over what it can read: EINVAL where there is none."""
        going = self._loaded or _refuse(errno.EINVAL)
        self.faults.strike(Call.KEXEC)
        ours, theirs = self.image.abi, going.image.abi
        open_error = 0
        if not theirs.luo or turns_on_live_update(going.command_line) is False:
            open_error = errno.ENOENT
        carry = ours.kho <= theirs.kho and ours.luo <= theirs.luo
        if carry and not open_error and any(session.files for session in self._outgoing.values()):
            known = all(name in theirs.handlers for name in ours.handlers if name.startswith(_HANDLER))
            open_error = 0 if known else errno.EIO
        self.kexec(carry=carry, open_error=open_error)
        self.image, self.command_line = going.image, going.command_line

    def machine(self) -> dict[str, Any]:
        """The kernel that runs and the next one, as `client.SimRunning` reads it."""
        loaded = self._loaded
        return {
            "image": self.image.facts(),
            "command_line": self.command_line,
            "live_update": self._open_error != errno.ENOENT,
            "loaded": loaded and {**loaded._asdict(), "image": loaded.image.facts()},
        }

    def state(self) -> dict[str, Any]:
        """What there is, in the form of `client.State`."""
        return {
            "boot_id": self.boot_id,
            "opened": self._opened,
            "sessions": [
                {
                    "name": os.fsdecode(session.name),
                    "direction": direction,
                    "retrieved": session.retrieved,
                    "files": [
                        {"token": file.token, "size": file.size, "inode": file.inode[1], "retrieved": file.retrieved}
                        for file in session.files.values()
                    ],
                }
                for direction, sessions in (("outgoing", self._outgoing), ("incoming", self._incoming))
                for session in sessions.values()
            ],
        }

    def shut_down(self) -> None:
        """Close every descriptor."""
        for session in (*self._outgoing.values(), *self._incoming.values()):
            session.close_files()
