"""What luod asks of a kernel. `kernel.device` answers with the real one, `luod.sim` with a simulated one.

Every call may block and belongs in a thread. Every failure is a `KernelError`; the same errno means
different things for different calls, so an error is the pair of both.
"""

import errno
import os
from enum import StrEnum
from typing import Final, Protocol, Self

from luod.errors import LuodError
from luod.fds import OwnedFd


class Call(StrEnum):
    """The calls of LUO, by the names that errors and fault injection use, and those of kexec."""

    OPEN = "open"
    CREATE_SESSION = "CREATE_SESSION"
    RETRIEVE_SESSION = "RETRIEVE_SESSION"
    PRESERVE_FD = "PRESERVE_FD"
    RETRIEVE_FD = "RETRIEVE_FD"
    FINISH = "FINISH"
    GET_NAME = "GET_NAME"
    KEXEC_LOAD = "kexec_file_load"
    KEXEC_UNLOAD = "kexec_file_load(KEXEC_FILE_UNLOAD)"
    KEXEC = "reboot(LINUX_REBOOT_CMD_KEXEC)"


MEANING: Final[dict[tuple[Call, int], str]] = {
    (Call.OPEN, errno.ENOENT): "this kernel was booted without live update (liveupdate=on) or doesn't have it",
    (Call.OPEN, errno.EBUSY): "another process holds the device",
    (Call.OPEN, errno.EIO): "what the previous kernel handed over can't be read by this one",
    (Call.OPEN, errno.EACCES): "luod has no right to open the device",
    (Call.CREATE_SESSION, errno.EEXIST): "an outgoing session has this name already",
    (Call.CREATE_SESSION, errno.EINVAL): "the name is empty or longer than 63 bytes",
    (Call.CREATE_SESSION, errno.ENOSPC): "this kernel takes no more sessions",
    (Call.RETRIEVE_SESSION, errno.ENOENT): "no session of this name came over",
    (Call.RETRIEVE_SESSION, errno.EINVAL): "this session was retrieved before",
    (Call.PRESERVE_FD, errno.EBADF): "not an open descriptor",
    (Call.PRESERVE_FD, errno.EBUSY): "this file is preserved already",
    (Call.PRESERVE_FD, errno.EEXIST): "this token is taken",
    (Call.PRESERVE_FD, errno.EINVAL): "the session is an incoming one",
    (Call.PRESERVE_FD, errno.ENOENT): "this kernel has no handler for this kind of descriptor",
    (Call.PRESERVE_FD, errno.ENOSPC): "this kernel takes no more files in one session",
    (Call.PRESERVE_FD, errno.ENOMEM): "there is not enough memory to preserve it",
    (Call.PRESERVE_FD, errno.EFBIG): "the file is too large",
    (Call.PRESERVE_FD, errno.EOPNOTSUPP): "the file has seals that this kernel can't preserve",
    (Call.RETRIEVE_FD, errno.ENOENT): "no such token, or the session is finished",
    (Call.RETRIEVE_FD, errno.EINVAL): "the session is an outgoing one",
    (Call.RETRIEVE_FD, errno.ENOMEM): "there was not enough memory for the file: it is gone",
    (Call.RETRIEVE_FD, errno.EIO): "the file's memory couldn't be restored: it is gone",
    (Call.RETRIEVE_FD, errno.EOPNOTSUPP): "the file has seals that this kernel doesn't know: it is gone",
    (Call.FINISH, errno.EBUSY): "a file in it isn't ready to be finished",
    (Call.FINISH, errno.EINVAL): "the session is an outgoing one",
    (Call.GET_NAME, errno.EINVAL): "this kernel is older than 7.1 and can't tell a session's name",
    **{
        (call, errno.ENOTTY): "the descriptor is not a session"
        for call in (Call.PRESERVE_FD, Call.RETRIEVE_FD, Call.FINISH, Call.GET_NAME)
    },
    (Call.KEXEC_LOAD, errno.EBADF): "the image or the initrd is not open for reading",
    (Call.KEXEC_LOAD, errno.EINVAL): "the image or the initrd is empty or no file, or the command line is too long",
    (Call.KEXEC_LOAD, errno.EFBIG): "the image or the initrd is larger than 4 GiB",
    (Call.KEXEC_LOAD, errno.EIO): "the image or the initrd changed while it was read",
    (Call.KEXEC_LOAD, errno.ETXTBSY): "somebody has the image or the initrd open for writing",
    (Call.KEXEC_LOAD, errno.ENOEXEC): "this kernel can't load such an image",
    (Call.KEXEC_LOAD, errno.ENOMEM): "there is not enough memory for it",
    (
        Call.KEXEC_LOAD,
        errno.EADDRNOTAVAIL,
    ): "it doesn't fit into the memory that KHO keeps for the next kernel (kho_scratch=)",
    (Call.KEXEC_LOAD, errno.EKEYREJECTED): "its signature is not valid",
    (Call.KEXEC_LOAD, errno.ENOKEY): "it is signed with a key that this kernel doesn't trust",
    (Call.KEXEC_LOAD, errno.ENODATA): "it is not signed",
    (Call.KEXEC_LOAD, errno.EACCES): "the policy of IMA doesn't allow it",
    **{
        (call, number): meaning
        for call in (Call.KEXEC_LOAD, Call.KEXEC_UNLOAD)
        for number, meaning in {
            errno.EPERM: "luod lacks CAP_SYS_BOOT, or lockdown or a sysctl forbids it (kernel.kexec_load_disabled)",
            errno.EBUSY: "another process is at a kexec call",
            errno.ENOSYS: "this kernel doesn't have the call (CONFIG_KEXEC_FILE)",
        }.items()
    },
    (Call.KEXEC, errno.EPERM): "luod lacks CAP_SYS_BOOT",
    (Call.KEXEC, errno.EBUSY): "another process is at a kexec call",
    (Call.KEXEC, errno.EINVAL): "no kernel is loaded, or luod is in a PID namespace, or this kernel has no kexec",
}
"""What an errno means for a call.

kernel/liveupdate/luo_session.c, luo_file.c, luo_core.c, mm/memfd_luo.c; kernel/kexec_file.c, kernel_read_file.c in fs/,
kexec-bzimage64.c in arch/x86/kernel/, kernel/kexec_core.c, kernel/reboot.c. Any other errno of KEXEC is that of a file
that couldn't be frozen.
"""


class KernelError(LuodError):
    """A call to the kernel failed. `errno` is what it answered, `meaning` what that says for this call."""

    def __init__(self, call: Call, number: int) -> None:
        self.call = call
        self.errno = number
        self.meaning = MEANING.get((call, number)) or os.strerror(number)
        super().__init__(f"{call}: {errno.errorcode.get(number, number)} ({self.meaning})")


class ImageError(LuodError):
    """What should be the image of a kernel isn't one, or luod can't read it. The text says why."""


class Session(Protocol):
    """An open session. Its descriptor is what keeps it alive; a `with` block ends in `give_up`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def fileno(self) -> int:
        """Borrow the session's descriptor."""
        ...

    def duplicate(self) -> OwnedFd:
        """Duplicate the session's descriptor, to lend it. The session lives until the last copy is closed."""
        ...

    def preserve_fd(self, fd: int, token: int) -> None:
        """Preserve the file behind the borrowed `fd` under `token` (0 .. 2^64-1). Outgoing sessions only."""
        ...

    def retrieve_fd(self, token: int) -> OwnedFd:
        """Get a preserved file back: the same open file each time, until `finish`. Incoming sessions only.

        A failure is for good: the same token fails the same way for ever.
        """
        ...

    def finish(self) -> None:
        """End an incoming session: what nobody retrieved is gone. Succeeds any number of times."""
        ...

    def get_name(self) -> str:
        """The session's name in the kernel."""
        ...

    def give_up(self) -> None:
        """Close this copy of the descriptor. Where it is the last, an outgoing session is unpreserved and
        an incoming one is finished: there is no way back.
        """
        ...


class SessionFd:
    """What every session does with its descriptor, whatever kernel it is of."""

    def __init__(self, fd: OwnedFd) -> None:
        """Takes `fd` over."""
        self._fd = fd

    def fileno(self) -> int:
        return self._fd.fileno()

    def duplicate(self) -> OwnedFd:
        return self._fd.duplicate()

    def give_up(self) -> None:
        self._fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.give_up()


class Device(Protocol):
    """The open device. Exclusive: hold it only while it is in use."""

    def create_session(self, name: str) -> Session:
        """Make an outgoing session. `name` is 1 to 63 bytes and unique among outgoing sessions."""
        ...

    def retrieve_session(self, name: str) -> Session:
        """Get an incoming session. It can be had only once in a boot: whoever loses it loses its files."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Kernel(Protocol):
    """A kernel that may know LUO."""

    def open(self) -> Device:
        """Open the device. Raises KernelError(OPEN, EBUSY) while another process has it open."""
        ...

    def recognise(self, fd: int) -> str | None:
        """The kernel name of the session behind a borrowed descriptor; None where it is no session of this kernel."""
        ...

    def adopt(self, fd: OwnedFd) -> Session:
        """Make a session of its descriptor, which came from elsewhere, and own it."""
        ...

    def boot_id(self) -> str:
        """What tells this boot from every other one."""
        ...


_NO_TOKEN: Final = 2**64 - 1


def came_over(session: Session) -> bool:
    """Whether a session is an incoming one: the kernel doesn't tell, but answers each kind differently."""
    try:
        session.retrieve_fd(_NO_TOKEN).close()
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        return error.errno == errno.ENOENT
    return True
