"""The system calls that load the next kernel and go into it. They may block for seconds, and belong in a thread.

Only kexec_file_load(2) hands over what is preserved (kho_fill_kimage() in kernel/liveupdate/kexec_handover.c). After
the older kexec_load(2) the same reboot goes as well, and loses everything; no kernel tells which of them it was, and
each replaces what the other has loaded. So luod loads the next kernel itself, and again right before it goes.
"""

import errno
import os
import sys
from typing import Final, NoReturn

from luod.kernel.api import Call, KernelError
from luod.kernel.cmdline import check

_KEXEC_FILE_LOAD: Final = {"x86_64": 320, "aarch64": 294}
"""The call's number, by machine (arch/x86/entry/syscalls/syscall_64.tbl; scripts/syscall.tbl)."""

_UNLOAD: Final = 1
_NO_INITRAMFS: Final = 4
"""KEXEC_FILE_UNLOAD, KEXEC_FILE_NO_INITRAMFS (include/uapi/linux/kexec.h)."""

_REBOOT_KEXEC: Final = 0x45584543
"""LINUX_REBOOT_CMD_KEXEC (include/uapi/linux/reboot.h)."""


def load(kernel_fd: int, command_line: str, initrd_fd: int | None = None) -> None:
    """Load the next kernel, in place of one that may be loaded already.

    The descriptors are borrowed and open for reading; nobody may have the files open for writing. The kernel reads them
    whole, from the beginning. Raises CommandLineError, and KernelError: then what was loaded before still is.
    """
    check(command_line)
    line = os.fsencode(command_line) + b"\0"
    if initrd_fd is None:
        _kexec_file_load(Call.KEXEC_LOAD, kernel_fd, -1, line, _NO_INITRAMFS)
    else:
        _kexec_file_load(Call.KEXEC_LOAD, kernel_fd, initrd_fd, line, 0)


def unload() -> None:
    """Take the next kernel back, whoever has loaded it; there may be none. Raises KernelError."""
    _kexec_file_load(Call.KEXEC_UNLOAD, -1, -1, b"", _UNLOAD)


def reboot_into_the_next_kernel() -> NoReturn:
    """Go into the kernel that is loaded, at once: no process is asked or stopped, no disk is synchronised.

    Raises KernelError where it doesn't come to that: everything goes on then, and what is preserved still is.
    """
    import ctypes

    ctypes.CDLL(None, use_errno=True).reboot(_REBOOT_KEXEC)
    raise KernelError(Call.KEXEC, ctypes.get_errno())


def _kexec_file_load(call: Call, kernel_fd: int, initrd_fd: int, line: bytes, flags: int) -> None:
    """The C library has no function for it."""
    import ctypes

    number = _KEXEC_FILE_LOAD.get(os.uname().machine)
    if number is None or sys.maxsize < 2**32:  # a process of 32 bits has other numbers
        raise KernelError(call, errno.ENOSYS)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    arguments = (
        ctypes.c_int(kernel_fd),
        ctypes.c_int(initrd_fd),
        ctypes.c_ulong(len(line)),
        line,
        ctypes.c_ulong(flags),
    )
    if syscall(ctypes.c_long(number), *arguments) != 0:
        raise KernelError(call, ctypes.get_errno())
