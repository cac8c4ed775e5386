"""Images of kernels for tests, in all that they come in (see `luod.sim.image`)."""

import bz2
import gzip
import lzma
import os
import struct
import sys

from lz4.block import compress as lz4_block

from luod.fds import OwnedFd
from luod.kernel.unpack import Packing
from luod.sim import image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RELEASE = "7.3.4-test"
BUILD_ID = bytes(range(20))
LITERALS = (b"kho-v4", b"luo-v5")
HANDLERS = (b"memfd-v2", b"vfio-pci-v1")
BLOCK = 1 << 16
X86_64, AARCH64, RISCV = image.X86_64, 183, 243

elf, handler, POINTER = image.elf, image.handler, image.POINTER


def build_id_note(build_id=BUILD_ID):
    return image.build_id_note(build_id)


def banner(release=RELEASE):
    return image.banner(release)


def memory(literals=LITERALS, handlers=HANDLERS, release=RELEASE, build_id=BUILD_ID, beside=b""):
    """What a kernel has in its memory, beside what is given."""
    return image.memory(literals, handlers, release, build_id, beside)


def arm64_image(content, flags=0b1010):
    """An Image, with pages of 4 KiB unless its flags say otherwise."""
    return struct.pack("<II3Q3Q4sI", 0, 0, 0, 1 << 20, flags, 0, 0, 0, b"ARM\x64", 0) + content


def bzimage(kernel, packing=Packing.GZIP, *, protocol=0x20F, payload=None, cmdline_size=2047):
    """A bzImage of the kernel, or with another payload."""
    if payload is None:
        payload = pack(kernel, packing)
        if packing is not Packing.GZIP:
            payload += struct.pack("<I", len(kernel))
    return image.shell(payload, protocol=protocol, cmdline_size=cmdline_size)


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
    Packing.GZIP: lambda data: gzip.compress(data, mtime=0),
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
