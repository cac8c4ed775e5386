"""What in a kernel's memory tells which kernel it is, and what it can read of what another one hands over. No I/O.

Who hands over writes the name of the form beside it, and changes the name with the form; who takes over compares it
with his own (include/linux/kho/abi/*.h). In Linux 7.3.4 these are, with who writes and who compares them in
kernel/liveupdate/, and what comes of a name that the new kernel doesn't know:

- `kho-v4`: kho_out_fdt_setup(), kho_populate() in kexec_handover.c. It takes nothing over.
- `luo-v5`: luo_state_setup(), luo_early_startup() in luo_core.c. It panics (luo_restore_fail()).
- `memfd-v2` and its like, one for each file handler: luo_file_freeze(), luo_file_deserialize_one() in luo_file.c.
  Every open of the device fails.
- those of FLBs, of which there are none yet: luo_flb_serialize(), luo_flb_retrieve_one() in luo_flb.c. Its files can't
  be retrieved.

The first kernels with LUO also have `luo-session-v…` and `luo-flb-v…`. `memblock-v1` and `reserve-mem-v1` are KHO's,
too, but have nothing to do with sessions (mm/memblock.c).

The names of KHO and LUO are literals, with a NUL before and behind. File handlers and FLBs are structs that begin
alike (include/linux/liveupdate.h): a pointer to functions, 48 bytes with the name, and the head of a list, which is
zero until it is in one. So they are known by where they stand, whatever they are called. Those of modules are not in
an image; and not those of an arm64 kernel whose pointers the linker left out (CONFIG_RELR=n).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from luod.kernel.api import ImageError

HANDLER_STRING: Final = 48
"""LIVEUPDATE_HNDL_COMPAT_LENGTH and LIVEUPDATE_FLB_COMPAT_LENGTH, in bytes (include/linux/kho/abi/luo.h)."""

_LIST_HEAD: Final = 16
_POINTER: Final = 8

_VERSION: Final = re.compile(rb"-v[0-9]{1,4}\0")
_NAME: Final = re.compile(rb"[A-Za-z][\w.-]*\Z")
_LITERAL: Final = re.compile(r"(?P<whose>kho|luo)(-session|-flb)?-v\d+")
_BANNER: Final = re.compile(rb"Linux version ([0-9][!-~]{0,63}) \(")
"""linux_banner (init/version-timestamp.c): the release, as uname has it."""

_BUILD_ID: Final = re.compile(rb"\x04\0\0\0([\x08-\x20])\0\0\0\x03\0\0\0GNU\0")
"""The head of an ELF note with the linker's build id: the sizes of its name and of the id, its kind, its name."""

_SEAM: Final = 256
"""More than anything that is looked for is long, in bytes: what was cut in two is found at the next look."""

HEAD: Final = 4096
"""How much of a kernel's beginning is kept, in bytes: a page, in which its headers lie."""

_MOST: Final = 1000
"""More than any kernel has of anything."""


@dataclass(frozen=True)
class Abi:
    """The forms in which a kernel hands over, and from which it takes over; none of what it doesn't know."""

    kho: frozenset[str] = frozenset()
    luo: frozenset[str] = frozenset()
    handlers: frozenset[str] = frozenset()
    """Of file handlers and FLBs that are built in."""


@dataclass(frozen=True)
class Traits:
    """What was seen of a kernel. `build_ids`, in hexadecimal, are its own and those of what is in it: the vDSO."""

    head: bytes
    size: int
    release: str | None
    build_ids: frozenset[str]
    abi: Abi


def look_through(kernel: Iterator[bytes]) -> Traits:
    """See what there is in a kernel's memory, that comes in pieces.

    Raises ImageError where there is so much that it is no kernel; memory is bounded.
    """
    head, seam, size, release = b"", b"", 0, None
    build_ids: set[str] = set()
    strings: dict[str, set[str]] = {"kho": set(), "luo": set(), "handlers": set()}
    for piece in kernel:
        if size < HEAD:
            head += piece[: HEAD - size]
        window = seam + piece
        if release is None and (banner := _BANNER.search(window)):
            release = banner[1].decode("ascii")
        build_ids.update(build_ids_in(window))
        for whose, string in _strings_in(window, size - len(seam)):
            strings[whose].add(string)
        if len(build_ids) + sum(map(len, strings.values())) > _MOST:
            raise ImageError("no kernel has so many strings that look like an ABI's")
        size += len(piece)
        seam = window[-_SEAM:]
    return Traits(head, size, release, frozenset(build_ids), Abi(*map(frozenset, strings.values())))


def build_ids_in(memory: bytes) -> Iterator[str]:
    """The build ids of all whole ELF notes in it, in hexadecimal."""
    for note in _BUILD_ID.finditer(memory):
        build_id = memory[note.end() : note.end() + note[1][0]]
        if len(build_id) == note[1][0]:
            yield build_id.hex()


def _strings_in(window: bytes, offset: int) -> Iterator[tuple[str, str]]:
    """The strings of ABIs in a part of the memory that begins at `offset`, each with whose it is."""
    for version in _VERSION.finditer(window):
        name = _NAME.search(window, max(0, version.end() - HANDLER_STRING), version.start())
        if name is None:
            continue
        start = name.start()
        string = window[start : version.end() - 1].decode("ascii")
        if window[start - 1 : start] == b"\0":
            if literal := _LITERAL.fullmatch(string):
                yield literal["whose"], string
        elif (offset + start) % _POINTER == 0 and _is_in_handler(window, start, len(string)):
            yield "handlers", string


def _is_in_handler(window: bytes, start: int, length: int) -> bool:
    """Whether a string stands where a file handler has its name: behind a pointer into the kernel, which lies in the
    last 2^48 bytes of all addresses, and before zeros.
    """
    behind = window[start + length : start + HANDLER_STRING + _LIST_HEAD]
    return window[start - _POINTER : start].endswith(b"\xff\xff") and behind == bytes(
        HANDLER_STRING + _LIST_HEAD - length
    )
