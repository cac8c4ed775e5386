"""What a kernel's image is packed with, unpacked piece by piece.

No I/O, and no more memory than the packing itself looks back on. Each library is imported when it is needed.
"""

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from luod.kernel.api import ImageError

MIB: Final = 1 << 20

PIECE: Final = MIB // 4
"""How much is read, unpacked and looked at in one go, in bytes."""

LOOK_BACK: Final = 128 * MIB
"""How far back a packing may refer, in bytes: as far as the kernel's own build lets it (scripts/xz_wrap.sh, and zstd22
in scripts/Makefile.lib). So much of what was unpacked is kept in memory.
"""

LZ4_BLOCK: Final = 8 * MIB
"""The most that a block of LZ4's legacy format unpacks to, in bytes (lib/decompress_unlz4.c)."""

_LZ4_BLOCK_PACKED: Final = LZ4_BLOCK + LZ4_BLOCK // 255 + 16
_LZ4_SIZE: Final = struct.Struct("<I")
_LZ4_MAGIC: Final = 0x184C2102

_LZMA_ITSELF: Final = 8 * MIB
"""What LZMA takes beside what it looks back on, generously."""


class Packing(StrEnum):
    """What a kernel can be packed with."""

    GZIP = "gzip"
    BZIP2 = "bzip2"
    LZMA = "lzma"
    XZ = "xz"
    LZO = "lzo"
    LZ4 = "lz4"
    ZSTD = "zstd"


_MAGIC: Final = {
    b"\x1f\x8b\x08": Packing.GZIP,
    b"BZh": Packing.BZIP2,
    b"\x5d\x00\x00": Packing.LZMA,
    b"\xfd7zXZ\x00": Packing.XZ,
    b"\x89LZO\x00": Packing.LZO,
    _LZ4_SIZE.pack(_LZ4_MAGIC): Packing.LZ4,
    b"\x28\xb5\x2f\xfd": Packing.ZSTD,
}
"""What each begins with (lib/decompress.c)."""


def packing_of(head: bytes) -> Packing | None:
    """What is packed that begins like this; None where it isn't packed."""
    return next((packing for magic, packing in _MAGIC.items() if head.startswith(magic)), None)


def unpack(packing: Packing, packed: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack what comes in pieces. What comes out is in pieces of at most PIECE bytes, or LZ4_BLOCK where it was LZ4.

    What follows behind the end of what is packed is left alone. Raises ImageError where it is damaged or cut off, where
    it refers further back than LOOK_BACK, and where it takes a library that isn't installed.
    """
    unpacker = _UNPACKERS[packing]()
    try:
        yield from unpacker.pieces(packed)
    except unpacker.failure as error:
        raise ImageError(f"what is packed in it with {packing} can't be unpacked: {error}") from None


class _Unpacker(NamedTuple):
    """What unpacks pieces, and what it raises where it can't."""

    pieces: Callable[[Iterator[bytes]], Iterator[bytes]]
    failure: type[Exception]


class _Decompressor(Protocol):
    """What the decompressors of bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _with(decompressor: _Decompressor, failure: type[Exception]) -> _Unpacker:
    def pieces(packed: Iterator[bytes]) -> Iterator[bytes]:
        for piece in packed:
            yield decompressor.decompress(piece, PIECE)
            while not (decompressor.eof or decompressor.needs_input):
                yield decompressor.decompress(b"", PIECE)
            if decompressor.eof:
                return
        raise _cut_off()

    return _Unpacker(pieces, failure)


class _Gunzip:
    """zlib, with the manners of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(unpacked) < max_length
        return unpacked


def _bzip2() -> _Unpacker:
    import bz2

    return _with(bz2.BZ2Decompressor(), OSError)


def _lzma(*, alone: bool) -> _Unpacker:
    import lzma

    kind = lzma.FORMAT_ALONE if alone else lzma.FORMAT_XZ
    return _with(lzma.LZMADecompressor(kind, LOOK_BACK + _LZMA_ITSELF), lzma.LZMAError)


def _zstd() -> _Unpacker:
    try:
        if sys.version_info >= (3, 14):
            from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
        else:
            from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
    except ImportError:
        raise _missing(Packing.ZSTD, "backports.zstd") from None

    furthest: dict[int, int] = {DecompressionParameter.window_log_max: LOOK_BACK.bit_length() - 1}
    return _with(ZstdDecompressor(options=furthest), ZstdError)


def _lz4() -> _Unpacker:
    try:
        from lz4.block import LZ4BlockError, decompress
    except ImportError:
        raise _missing(Packing.LZ4, "lz4") from None

    def pieces(packed: Iterator[bytes]) -> Iterator[bytes]:
        """The legacy format: blocks, each behind its size; the magic stands where a size could."""
        waiting = bytearray()
        for piece in packed:
            waiting += piece
            while len(waiting) >= _LZ4_SIZE.size:
                (size,) = _LZ4_SIZE.unpack_from(waiting)
                end = _LZ4_SIZE.size + (0 if size == _LZ4_MAGIC else size)
                if end > _LZ4_SIZE.size + _LZ4_BLOCK_PACKED:
                    raise LZ4BlockError(f"a block of {size} bytes")
                if end > len(waiting):
                    break
                if size != _LZ4_MAGIC:
                    yield decompress(bytes(waiting[_LZ4_SIZE.size : end]), uncompressed_size=LZ4_BLOCK)
                del waiting[:end]
        if waiting:
            raise _cut_off()

    return _Unpacker(pieces, LZ4BlockError)


def _lzo() -> _Unpacker:
    raise ImageError("it is packed with lzo, and no Python package that is kept up unpacks that")


_UNPACKERS: Final[dict[Packing, Callable[[], _Unpacker]]] = {
    Packing.GZIP: lambda: _with(_Gunzip(), zlib.error),
    Packing.BZIP2: _bzip2,
    Packing.LZMA: lambda: _lzma(alone=True),
    Packing.XZ: lambda: _lzma(alone=False),
    Packing.LZO: _lzo,
    Packing.LZ4: _lz4,
    Packing.ZSTD: _zstd,
}


def _missing(packing: Packing, package: str) -> ImageError:
    return ImageError(f"it is packed with {packing}: to read it, install the Python package {package}")


def _cut_off() -> ImageError:
    return ImageError("what is packed in it is cut off")
