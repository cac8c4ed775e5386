"""Images of kernels that a simulated kernel can go into: nothing that could run, and all that is looked at in one."""

import gzip
import hashlib
import struct
from collections.abc import Iterable
from typing import Final

RELEASE: Final = "7.3.4-simulated"
KHO: Final = ("kho-v4",)
LUO: Final = ("luo-v5",)
HANDLERS: Final = ("memfd-v2",)
"""The forms in which Linux 7.3.4 hands over, and takes over."""

X86_64: Final = 62
"""ELF's number for it."""

POINTER: Final = b"\xa0\xaa\x42\x81\xff\xff\xff\xff"
"""To something in the kernel."""


def bzimage(
    *,
    release: str = RELEASE,
    kho: Iterable[str] = KHO,
    luo: Iterable[str] = LUO,
    handlers: Iterable[str] = HANDLERS,
    build_id: bytes | None = None,
) -> bytes:
    """A bzImage with these strings in it. Without a build id it gets one that tells it from all with others."""
    literals = [name.encode() for name in (*kho, *luo)]
    named = [name.encode() for name in handlers]
    if build_id is None:
        build_id = hashlib.sha1(repr((release, literals, named)).encode(), usedforsecurity=False).digest()
    return shell(gzip.compress(elf(memory(literals, named, release, build_id)), mtime=0))


def handler(name: bytes, pointer: bytes = POINTER) -> bytes:
    """A struct liveupdate_file_handler: its functions, its name, two lists that it isn't in."""
    return pointer + name.ljust(48, b"\0") + bytes(32)


def build_id_note(build_id: bytes) -> bytes:
    """An ELF note with it."""
    return struct.pack("<III4s", 4, len(build_id), 3, b"GNU") + build_id


def banner(release: str) -> bytes:
    """linux_banner (init/version-timestamp.c)."""
    return f"Linux version {release} (nobody@nowhere) (gcc) #1 SMP\n\0".encode()


def memory(
    literals: Iterable[bytes], handlers: Iterable[bytes], release: str, build_id: bytes, beside: bytes = b""
) -> bytes:
    """What a kernel has in its memory, beside what is given."""
    text = b"".join([banner(release), build_id_note(build_id), b"\0", *(name + b"\0" for name in literals)])
    return b"".join([text.ljust(1024, b"\0"), *map(handler, handlers), beside])


def elf(content: bytes, machine: int = X86_64) -> bytes:
    """A vmlinux with one segment that has all of it."""
    header = struct.pack("<4s5B7xHHIQQQI6H", b"\x7fELF", 2, 1, 1, 0, 0, 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 120 + len(content), 120 + len(content), 4096)
    return header + segment + content


def shell(payload: bytes, *, protocol: int = 0x20F, cmdline_size: int = 2047) -> bytes:
    """A bzImage with this in it (Documentation/arch/x86/boot.rst)."""
    setup = bytearray(4 * 512)
    setup[0x1F1] = len(setup) // 512 - 1
    setup[0x202:0x208] = struct.pack("<4sH", b"HdrS", protocol)
    setup[0x238:0x23C] = struct.pack("<I", cmdline_size)
    setup[0x248:0x250] = struct.pack("<II", 16, len(payload))
    return bytes(setup) + bytes(16) + payload + b"behind it"
