"""The image of a kernel: what it is, and what it would be able to take over. It is a stranger's, and read as one.

A bzImage (Documentation/arch/x86/boot.rst) has a packed ELF in it, an EFI zboot image (drivers/firmware/efi/libstub/
zboot-header.S) a packed Image (Documentation/arch/arm64/booting.rst); an ELF and an Image also come bare or packed. The
release is the kernel's own: what a bzImage's header says of it, no kernel looks at.
"""

import os
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from luod.kernel.api import ImageError
from luod.kernel.cmdline import COMMAND_LINE_SIZE
from luod.kernel.compatible import HEAD, Abi, look_through
from luod.kernel.unpack import MIB, PIECE, Packing, packing_of, unpack

FILE_MAX: Final = 512 * MIB
KERNEL_MAX: Final = 512 * MIB
"""How large an image may be, and the kernel in it, in bytes: a distribution's is about 15 MiB, and 60 unpacked."""

PATIENCE: Final = 60.0
"""How long it may take to read an image, in seconds: a distribution's takes about one."""

_ELFCOREHDR: Final = 30
"""What kexec_file_load wants free of a bzImage's command line (MAX_ELFCOREHDR_STR_LEN in kexec-bzimage64.c)."""


class Kind(StrEnum):
    """What a kernel comes in. kexec_file_load takes a bzImage on x86, and an Image that isn't packed on arm64."""

    BZIMAGE = "bzImage"
    ZBOOT = "zboot"
    IMAGE = "Image"
    VMLINUX = "vmlinux"


@dataclass(frozen=True)
class Image:
    """What a kernel's image is. `architecture` and `release` are as in uname(2).

    `command_line_max` is in bytes, without the NUL. `page_size`, in bytes, is None where it isn't told; KHO hands over
    only to a kernel with the same (include/linux/kho/abi/block.h). `build_ids` has the kernel's own among others.
    """

    kind: Kind
    architecture: str
    packing: Packing | None
    release: str
    build_ids: frozenset[str]
    abi: Abi
    command_line_max: int
    page_size: int | None

    def facts(self) -> dict[str, Any]:
        """The same as JSON can have it."""
        return {
            "kind": str(self.kind),
            "packing": self.packing and str(self.packing),
            "architecture": self.architecture,
            "release": self.release,
            "buildIds": sorted(self.build_ids),
            "abi": {name: sorted(strings) for name, strings in vars(self.abi).items()},
            "commandLineMax": self.command_line_max,
            "pageSize": self.page_size,
        }

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError where these are no image's."""
        packing = facts.get("packing")
        return cls(
            kind=Kind(facts["kind"]),
            packing=None if packing is None else Packing(packing),
            architecture=facts["architecture"],
            release=facts["release"],
            build_ids=frozenset(facts["buildIds"]),
            abi=Abi(**{name: frozenset(strings) for name, strings in facts["abi"].items()}),
            command_line_max=facts["commandLineMax"],
            page_size=facts.get("pageSize"),
        )


def read_image(fd: int, *, patience: float = PATIENCE) -> Image:
    """Read the image of a kernel behind a borrowed descriptor, whose position doesn't matter and stays.

    Blocks, for `patience` seconds and one read of the file at most; takes as much memory as the packing looks back on
    (`unpack.LOOK_BACK`), and little more. Who can write to the file can still change it afterwards.

    Raises ImageError.
    """
    file = _File(fd, time.monotonic() + patience)
    shell = _shell(file.read(0, HEAD), file.size)
    packing = packing_of(file.read(shell.start, HEAD))
    traits = look_through(file.in_bounds(_kernel_in(file, shell, packing)))
    core = _core(traits.head, traits.size)
    if shell.kind is not None and (core.kind, core.architecture) != _HOLDS[shell.kind]:
        raise ImageError(f"what is packed in this {shell.kind} is of the kind {core.kind}, for {core.architecture}")
    if shell.kind is Kind.BZIMAGE and traits.size != (said := _size_said(file, shell)):
        raise ImageError(f"there are {traits.size} bytes packed in it, where it says {said}")
    if traits.release is None:
        raise ImageError("there is no version of Linux in it")
    return Image(
        kind=shell.kind or core.kind,
        architecture=core.architecture,
        packing=packing,
        release=traits.release,
        build_ids=traits.build_ids,
        abi=traits.abi,
        command_line_max=shell.command_line_max,
        page_size=core.page_size,
    )


class _File:
    """A regular file of a stranger's: it may change meanwhile, and be slow."""

    def __init__(self, fd: int, deadline: float) -> None:
        self._fd = fd
        self._deadline = deadline
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise ImageError(f"it can't be looked at: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"it is {_NO_FILE.get(stat.S_IFMT(status.st_mode), 'something else')}, not a file")
        if not 0 < status.st_size <= FILE_MAX:
            raise ImageError(f"it has {status.st_size} bytes: no image has none, or more than {FILE_MAX}")
        self.size = status.st_size

    def read(self, start: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only where the file ends."""
        return b"".join(self.pieces(start, min(start + size, self.size)))

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """What is between two places in it."""
        while start < end:
            self._hurry()
            try:
                piece = os.pread(self._fd, min(PIECE, end - start), start)
            except OSError as error:
                raise ImageError(f"it can't be read: {error.strerror}") from None
            if not piece:
                raise ImageError("it became shorter while it was read")
            yield piece
            start += len(piece)

    def in_bounds(self, kernel: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces, unless there are too many of them or they come too slowly."""
        size = 0
        for piece in kernel:
            self._hurry()
            size += len(piece)
            if size > KERNEL_MAX:
                raise ImageError(f"more than {KERNEL_MAX} bytes are packed in it, and no kernel has so many")
            yield piece

    def _hurry(self) -> None:
        if time.monotonic() > self._deadline:
            raise ImageError("it takes too long to read")


_NO_FILE: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}

_SIZE: Final = struct.Struct("<I")


class _Shell(NamedTuple):
    """What is around a packed kernel, and where in the file that is. No `kind`: there is nothing around it."""

    kind: Kind | None
    start: int
    end: int
    command_line_max: int = COMMAND_LINE_SIZE - 1


def _shell(head: bytes, size: int) -> _Shell:
    if head[0x202:0x206] == b"HdrS":
        shell = _bzimage(head)
    elif head.startswith(b"MZ") and head[4:8] == b"zimg":
        shell = _zboot(head)
    else:
        return _Shell(None, 0, size)
    if shell.end > size:
        raise ImageError(f"it is cut off: of a {shell.kind} of at least {shell.end} bytes, there are {size}")
    return shell


def _bzimage(head: bytes) -> _Shell:
    """Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"."""
    if len(head) < 0x250:
        raise ImageError("it is cut off in its header")
    version, cmdline_size = struct.unpack_from("<H48xI", head, 0x206)
    if version < 0x208:
        raise ImageError(
            f"its boot protocol is {version >> 8}.{version & 0xFF:02}: only 2.08 tells where the kernel is"
        )
    offset, length = struct.unpack_from("<II", head, 0x248)
    sectors = head[0x1F1] or 4
    start = (1 + sectors) * 512 + offset
    return _Shell(Kind.BZIMAGE, start, start + length, max(0, cmdline_size - _ELFCOREHDR - 1))


def _zboot(head: bytes) -> _Shell:
    """drivers/firmware/efi/libstub/zboot-header.S."""
    if len(head) < 16:
        raise ImageError("it is cut off in its header")
    start, length = struct.unpack_from("<II", head, 8)
    return _Shell(Kind.ZBOOT, start, start + length)


def _kernel_in(file: _File, shell: _Shell, packing: Packing | None) -> Iterator[bytes]:
    if packing is not None:
        size_behind = shell.kind is Kind.BZIMAGE and packing is not Packing.GZIP
        return unpack(packing, file.pieces(shell.start, shell.end - size_behind * _SIZE.size))
    if shell.kind is not None:
        raise ImageError(f"what is in this {shell.kind} is packed with nothing that luod knows")
    return file.pieces(shell.start, shell.end)


def _size_said(file: _File, shell: _Shell) -> int:
    """How large a bzImage says that its kernel is, in the last four bytes of what is packed in it: gzip has them there
    itself, and behind all else the build puts them (arch/x86/boot/compressed/mkpiggy.c).
    """
    said: int = _SIZE.unpack(file.read(shell.end - _SIZE.size, _SIZE.size))[0]
    return said


class _Core(NamedTuple):
    """What the kernel itself is, as its first bytes tell."""

    kind: Kind
    architecture: str
    page_size: int | None


_HOLDS: Final = {Kind.BZIMAGE: (Kind.VMLINUX, "x86_64"), Kind.ZBOOT: (Kind.IMAGE, "aarch64")}

_PAGE_SIZES: Final = {1: 4096, 2: 16384, 3: 65536}
"""Bits 1 and 2 of an Image's flags (Documentation/arch/arm64/booting.rst)."""

_MACHINES: Final = {62: ("x86_64", 4096), 183: ("aarch64", None)}
"""The architectures that KHO is for, by ELF's e_machine, and the size of their pages where there is but one."""


def _core(head: bytes, size: int) -> _Core:
    if head[56:60] == b"ARM\x64":
        return _Core(Kind.IMAGE, "aarch64", _PAGE_SIZES.get(head[24] >> 1 & 3))
    if head.startswith(b"\x7fELF\x02\x01") and len(head) >= 64:
        return _elf(head, size)
    raise ImageError("it is nothing that luod knows as a kernel's image for x86-64 or arm64")


def _elf(head: bytes, size: int) -> _Core:
    """An ELF of 64 bits, little-endian (elf(5)), all of whose segments must be there."""
    machine, table, entry, count = struct.unpack_from("<H12xQ14xHH", head, 18)
    if machine not in _MACHINES:
        raise ImageError(f"it is for another machine than x86-64 and arm64: ELF's number {machine}")
    for start in range(table, min(table + count * entry, len(head) - 55), max(entry, 56)):
        offset, length = struct.unpack_from("<8xQ16xQ", head, start)
        if offset + length > size:
            raise ImageError(f"it is cut off: of an ELF of at least {offset + length} bytes, there are {size}")
    return _Core(Kind.VMLINUX, *_MACHINES[machine])
