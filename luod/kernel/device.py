"""The real kernel: /dev/liveupdate and its sessions. The only room that calls ioctl on them."""

import fcntl
import os
from typing import Final, Self

from luod.fds import OwnedFd
from luod.kernel import abi
from luod.kernel.api import Call, KernelError, SessionFd

PATH: Final = "/dev/liveupdate"
BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_SESSION: Final = "anon_inode:[luo_session]"


def _ioctl(fd: int, call: Call, request: int, argument: bytearray) -> None:
    try:
        fcntl.ioctl(fd, request, argument, True)  # noqa: FBT003 - mutate_flag has no keyword
    except OSError as error:
        raise KernelError(call, error.errno or 0) from None


class LuoSession(SessionFd):
    """A session of the real kernel (see `kernel.api.Session`)."""

    def preserve_fd(self, fd: int, token: int) -> None:
        argument = bytearray(abi.TOKENED.pack(abi.TOKENED.size, fd, token))
        _ioctl(self.fileno(), Call.PRESERVE_FD, abi.PRESERVE_FD, argument)

    def retrieve_fd(self, token: int) -> OwnedFd:
        argument = bytearray(abi.TOKENED.pack(abi.TOKENED.size, -1, token))
        _ioctl(self.fileno(), Call.RETRIEVE_FD, abi.RETRIEVE_FD, argument)
        return OwnedFd(abi.TOKENED.unpack(argument)[1])

    def finish(self) -> None:
        argument = bytearray(abi.SESSION_FINISH.pack(abi.SESSION_FINISH.size, 0))
        _ioctl(self.fileno(), Call.FINISH, abi.FINISH, argument)

    def get_name(self) -> str:
        argument = bytearray(abi.SESSION_NAME.pack(abi.SESSION_NAME.size, 0, b""))
        _ioctl(self.fileno(), Call.GET_NAME, abi.GET_NAME, argument)
        name: bytes = abi.SESSION_NAME.unpack(argument)[2]
        return os.fsdecode(name.partition(b"\0")[0])


class LuoDevice:
    """The open /dev/liveupdate (see `kernel.api.Device`)."""

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd

    def create_session(self, name: str) -> LuoSession:
        return self._named(Call.CREATE_SESSION, abi.CREATE_SESSION, name)

    def retrieve_session(self, name: str) -> LuoSession:
        return self._named(Call.RETRIEVE_SESSION, abi.RETRIEVE_SESSION, name)

    def _named(self, call: Call, request: int, name: str) -> LuoSession:
        # struct would cut a longer name without a word; the kernel refuses one that fills all 64 bytes.
        argument = bytearray(abi.NAMED.pack(abi.NAMED.size, -1, os.fsencode(name)))
        _ioctl(self._fd.fileno(), call, request, argument)
        return LuoSession(OwnedFd(abi.NAMED.unpack(argument)[1]))

    def close(self) -> None:
        self._fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class LuoKernel:
    """The kernel that this machine runs (see `kernel.api.Kernel`)."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path

    def open(self) -> LuoDevice:
        try:
            return LuoDevice(OwnedFd(os.open(self._path, os.O_RDWR | os.O_CLOEXEC)))
        except OSError as error:
            raise KernelError(Call.OPEN, error.errno or 0) from None

    def recognise(self, fd: int) -> str | None:
        kind, _, name = os.readlink(f"/proc/self/fd/{fd}").partition(" ")
        return name if kind == _SESSION else None

    def adopt(self, fd: OwnedFd) -> LuoSession:
        return LuoSession(fd)

    def boot_id(self) -> str:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
