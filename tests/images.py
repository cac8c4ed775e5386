"""Images of kernels for tests: nothing that could run, and all that luod looks at."""

import bz2
import gzip
import lzma
import os
import struct
import sys

from lz4.block import compress as lz4_block

from luod.fds import OwnedFd
from luod.kernel.unpack import Packing

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RELEASE = "7.3.4-test"
BUILD_ID = bytes(range(20))
LITERALS = (b"kho-v4", b"luo-v5")
HANDLERS = (b"memfd-v2", b"vfio-pci-v1")
POINTER = b"\xa0\xaa\x42\x81\xff\xff\xff\xff"
BLOCK = 1 << 16
X86_64, AARCH64, RISCV = 62, 183, 243


def handler(name, pointer=POINTER):
    """A struct liveupdate_file_handler: its functions, its name, two lists that it isn't in."""
    return pointer + name.ljust(48, b"\0") + bytes(32)


def build_id_note(build_id=BUILD_ID):
    return struct.pack("<III4s", 4, len(build_id), 3, b"GNU") + build_id


def banner(release=RELEASE):
    return f"Linux version {release} (nobody@nowhere) (gcc) #1 SMP\n\0".encode()


def memory(literals=LITERALS, handlers=HANDLERS, release=RELEASE, build_id=BUILD_ID, beside=b""):
    """What a kernel has in its memory, beside what is given."""
    text = b"".join([banner(release), build_id_note(build_id), b"\0", *(name + b"\0" for name in literals)])
    return b"".join([text.ljust(1024, b"\0"), *map(handler, handlers), beside])


def elf(content, machine=X86_64):
    """A vmlinux with one segment that has all of it."""
    header = struct.pack("<4s5B7xHHIQQQI6H", b"\x7fELF", 2, 1, 1, 0, 0, 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 120 + len(content), 120 + len(content), 4096)
    return header + segment + content


def arm64_image(content, flags=0b1010):
    """An Image, with pages of 4 KiB unless its flags say otherwise."""
    return struct.pack("<II3Q3Q4sI", 0, 0, 0, 1 << 20, flags, 0, 0, 0, b"ARM\x64", 0) + content


def bzimage(kernel, packing=Packing.GZIP, *, protocol=0x20F, payload=None, cmdline_size=2047):
    """A bzImage of the kernel, or with another payload."""
    if payload is None:
        payload = pack(kernel, packing)
        if packing is not Packing.GZIP:
            payload += struct.pack("<I", len(kernel))
    setup = bytearray(4 * 512)
    setup[0x1F1] = len(setup) // 512 - 1
    setup[0x202:0x208] = struct.pack("<4sH", b"HdrS", protocol)
    setup[0x238:0x23C] = struct.pack("<I", cmdline_size)
    setup[0x248:0x250] = struct.pack("<II", 16, len(payload))
    return bytes(setup) + bytes(16) + payload + b"behind it"


def zboot(kernel, packing=Packing.GZIP):
    """An EFI zboot image of an Image."""
    payload = pack(kernel, packing)
    header = struct.pack("<4s4sII8x8s", b"MZ", b"zimg", 64, len(payload), packing.encode())
    return header.ljust(64, b"\0") + payload + b"behind it"


def pack(data, packing):
    return _PACK[packing](data)


def _lz4(data):
    """The legacy format, with blocks that are smaller than they could be."""
    blocks = [lz4_block(data[at : at + BLOCK], store_size=False) for at in range(0, len(data), BLOCK)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


_PACK = {
    Packing.GZIP: gzip.compress,
    Packing.BZIP2: bz2.compress,
    Packing.LZMA: lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    Packing.XZ: lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32),
    Packing.LZ4: _lz4,
    Packing.ZSTD: zstd.compress,
}
PACKINGS = tuple(_PACK)


def file(content):
    """A file with this content, open for reading and writing."""
    fd = OwnedFd(os.memfd_create("image", os.MFD_CLOEXEC))
    os.write(fd.fileno(), content)
    return fd
