"""What luod makes of the image of a kernel, which may be anything."""

import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import images
from images import arm64_image, bzimage, elf, handler, memory, pack, zboot
from luod.fds import OwnedFd
from luod.kernel.api import ImageError
from luod.kernel.compatible import Abi
from luod.kernel.image import FILE_MAX, KERNEL_MAX, Image, Kind, read_image
from luod.kernel.unpack import LOOK_BACK, MIB, PIECE, Packing

ROOT = Path(__file__).parents[2]
ABI = Abi(frozenset({"kho-v4"}), frozenset({"luo-v5"}), frozenset({"memfd-v2", "vfio-pci-v1"}))


def read(content):
    with images.file(content) as fd:
        return read_image(fd.fileno())


def abi_of(beside, **what):
    return read(elf(memory(beside=beside, **what))).abi


@contextmanager
def refused(reason):
    with pytest.raises(ImageError, match=reason):
        yield


# What is read


@pytest.mark.parametrize("packing", images.PACKINGS)
def test_a_bzimage_is_read_whatever_its_kernel_is_packed_with(packing):
    assert read(bzimage(elf(memory()), packing)) == Image(
        kind=Kind.BZIMAGE,
        architecture="x86_64",
        packing=packing,
        release=images.RELEASE,
        build_ids=frozenset({images.BUILD_ID.hex()}),
        abi=ABI,
        command_line_max=2016,
        page_size=4096,
    )


@pytest.mark.parametrize("packing", [None, *images.PACKINGS])
@pytest.mark.parametrize(
    ("kernel", "kind", "architecture", "page_size"),
    [
        (elf(memory()), Kind.VMLINUX, "x86_64", 4096),
        (elf(memory(), images.AARCH64), Kind.VMLINUX, "aarch64", None),
        (arm64_image(memory()), Kind.IMAGE, "aarch64", 4096),
        (arm64_image(memory(), flags=0b100), Kind.IMAGE, "aarch64", 16384),
        (arm64_image(memory(), flags=0b110), Kind.IMAGE, "aarch64", 65536),
        (arm64_image(memory(), flags=0), Kind.IMAGE, "aarch64", None),
    ],
)
def test_a_bare_kernel_is_read_packed_or_not(packing, kernel, kind, architecture, page_size):
    image = read(kernel if packing is None else pack(kernel, packing))
    assert (image.kind, image.architecture, image.packing) == (kind, architecture, packing)
    assert (image.page_size, image.command_line_max) == (page_size, 2047)
    assert (image.release, image.abi) == (images.RELEASE, ABI)


@pytest.mark.parametrize("packing", images.PACKINGS)
def test_a_zboot_image_is_read_for_the_image_in_it(packing):
    image = read(zboot(arm64_image(memory()), packing))
    assert (image.kind, image.architecture, image.packing) == (Kind.ZBOOT, "aarch64", packing)
    assert (image.release, image.abi, image.page_size) == (images.RELEASE, ABI, 4096)


def test_a_kernel_may_be_larger_than_a_piece_and_packed_very_small():
    kernel = elf(memory(beside=bytes(2 * MIB) + handler(b"kvm_vm-v1")))
    for packing in images.PACKINGS:
        assert "kvm_vm-v1" in read(bzimage(kernel, packing)).abi.handlers


def test_where_the_descriptor_is_positioned_does_not_matter_and_stays():
    with images.file(elf(memory())) as fd:
        os.lseek(fd.fileno(), 17, os.SEEK_SET)
        assert read_image(fd.fileno()).release == images.RELEASE
        assert os.lseek(fd.fileno(), 0, os.SEEK_CUR) == 17


# Which strings are an ABI's


def test_a_kernel_without_live_updates_has_no_abi():
    assert read(elf(memory(literals=(), handlers=()))).abi == Abi()


def test_those_of_sessions_and_of_flbs_are_luos():
    literals = (b"kho-v1", b"luo-v1", b"luo-session-v2", b"luo-flb-v1")
    abi = read(elf(memory(literals=literals))).abi
    assert (abi.kho, abi.luo) == ({"kho-v1"}, {"luo-v1", "luo-session-v2", "luo-flb-v1"})


@pytest.mark.parametrize("name", [b"x-v1", b"iommufd-v12", b"kvm_vcpu-v3", b"a." + b"long" * 10 + b"-v123", b"Kvm-v1"])
@pytest.mark.parametrize("pointer", [images.POINTER, struct.pack("<Q", 0xFFFF800080010000)])
def test_a_handler_is_known_by_where_it_stands_whatever_it_is_called(name, pointer):
    assert abi_of(handler(name, pointer)).handlers - ABI.handlers == {name.decode()}


@pytest.mark.parametrize(
    "text",
    [
        b"\0luo-v6 is not what this kernel knows\0",
        b"\0see kho-v5\0",
        b"\0xkho-v5\0",
        b"\0kho-v\0kho-v5x\0kho-5\0KHO-v5\0luo-file-v5\0luo--v5\0",
        b"\0memblock-v1\0reserve-mem-v1\0operating-points-v2\0",
        handler(b"in-text-v1 "),
        handler(b"5-v1"),
        handler(b"-v1"),
        handler(b"a," * 20 + b"b-v1"),
        handler(b"l" * 45 + b"-v1"),
        handler(b"not-a-kernel-pointer-v1", struct.pack("<Q", 0x7FFF00001000)),
        handler(b"no-pointer-v1", bytes(8)),
        b"1234" + handler(b"not-aligned-v1"),
        handler(b"in-a-list-v1")[:-20] + b"x" * 20 + handler(b"", bytes(8)),
        (images.POINTER + b"in-16-bytes-v1").ljust(24, b"\0") + b"and more",
    ],
)
def test_what_only_looks_like_one_is_none(text):
    assert abi_of(text.ljust((len(text) + 7) // 8 * 8, b"\0") + bytes(64)) == ABI


@pytest.mark.parametrize("packing", [None, Packing.ZSTD])
def test_nothing_is_missed_where_one_piece_ends_and_the_next_begins(packing):
    content = memory()
    for before in range(len(content)):
        kernel = elf(bytes(PIECE - len(elf(b"")) - before) + content)
        image = read(kernel if packing is None else pack(kernel, packing))
        assert (image.release, image.build_ids) == (images.RELEASE, {images.BUILD_ID.hex()})
        assert (image.abi.kho, image.abi.luo) == (ABI.kho, ABI.luo)
        assert image.abi.handlers == (ABI.handlers if before % 8 == 0 else set())


# What is refused


def test_only_a_file_is_read(tmp_path):
    def kind(fd):
        with OwnedFd(fd) as stranger, pytest.raises(ImageError) as caught:
            read_image(stranger.fileno())
        return str(caught.value)

    read_end, write_end = os.pipe()
    os.close(write_end)
    (tmp_path / "file").write_bytes(elf(memory()))
    assert kind(os.open(tmp_path, os.O_RDONLY)) == "it is a directory, not a file"
    assert kind(read_end) == "it is a pipe, not a file"
    assert kind(socket.socket(socket.AF_UNIX).detach()) == "it is a socket, not a file"
    assert kind(os.open("/dev/zero", os.O_RDONLY)) == "it is a character device, not a file"
    assert kind(os.eventfd(0)) == "it is something else, not a file"
    assert kind(os.open(tmp_path / "file", os.O_WRONLY)) == "it can't be read: Bad file descriptor"
    assert kind(os.open(tmp_path / "file", os.O_PATH)) == "it can't be read: Bad file descriptor"
    with refused("it can't be looked at: Bad file descriptor"):
        read_image(-1)


def test_an_image_has_a_size_that_an_image_can_have():
    with images.file(b"") as fd:
        with refused(f"^it has 0 bytes: no image has none, or more than {FILE_MAX}$"):
            read_image(fd.fileno())
        os.truncate(fd.fileno(), FILE_MAX + 1)
        with refused(f"^it has {FILE_MAX + 1} bytes"):
            read_image(fd.fileno())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0", "it is nothing that luod knows as a kernel's image"),
        (b"#!/bin/sh\n", "it is nothing that luod knows"),
        (b"MZ".ljust(4096, b"\0"), "it is nothing that luod knows"),
        (pack(b"an initrd, it may be", Packing.GZIP), "it is nothing that luod knows"),
        (elf(b"a program"), "there is no version of Linux in it"),
        (b"\x7fELF\1\1".ljust(4096, b"\0"), "it is nothing that luod knows"),
        (elf(memory(), images.RISCV), "it is for another machine than x86-64 and arm64: ELF's number 243"),
        (elf(memory())[:-1], "it is cut off: of an ELF of at least 1320 bytes, there are 1319"),
        (bzimage(elf(memory()), protocol=0x207), r"its boot protocol is 2\.07: only 2\.08 tells"),
        (bzimage(elf(memory()))[:0x24F], "it is cut off in its header"),
        (bzimage(elf(memory()))[:2100], r"it is cut off: of a bzImage of at least \d+ bytes, there are 2100"),
        (zboot(arm64_image(memory()))[:15], "it is cut off in its header"),
        (zboot(arm64_image(memory()))[:100], r"it is cut off: of a zboot of at least \d+ bytes, there are 100"),
        (bzimage(b"", payload=b""), "what is in this bzImage is packed with nothing that luod knows"),
        (bzimage(b"", payload=elf(memory())), "what is in this bzImage is packed with nothing that luod knows"),
        (bzimage(b"", payload=b"\x89LZO\x00" + bytes(99)), "it is packed with lzo"),
        (bzimage(b"", payload=b"\xfd7zXZ\x00"), "what is packed in it is cut off"),
        (bzimage(arm64_image(memory())), "what is packed in this bzImage is of the kind Image, for aarch64"),
        (zboot(elf(memory())), "what is packed in this zboot is of the kind vmlinux, for x86_64"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(content, reason):
    with refused(f"^{reason}"):
        read(content)


@pytest.mark.parametrize("packing", images.PACKINGS)
def test_what_is_packed_and_cut_off_is_refused(packing):
    packed = pack(elf(memory(beside=os.urandom(1000))), packing)
    for end in (len(packed) - 1, len(packed) // 2):
        with refused(r"^what is packed in it is cut off$"):
            read(packed[:end])


@pytest.mark.parametrize("packing", images.PACKINGS)
def test_a_bzimage_that_lies_about_the_size_of_its_kernel_is_refused(packing):
    payload = bytearray(pack(elf(memory()), packing))
    if packing is not Packing.GZIP:
        payload += bytes(4)
    payload[-4:] = struct.pack("<I", 1)
    reason = "can't be unpacked: " if packing is Packing.GZIP else "there are 1320 bytes packed in it, where it says 1$"
    with refused(reason):
        read(bzimage(b"", payload=bytes(payload)))


@pytest.mark.parametrize(
    ("packing", "module", "package"),
    [(Packing.ZSTD, images.zstd.__name__, "backports.zstd"), (Packing.LZ4, "lz4.block", "lz4")],
)
def test_where_a_library_is_missing_the_package_is_named_that_brings_it(packing, module, package, monkeypatch):
    image = bzimage(elf(memory()), packing)
    monkeypatch.setitem(sys.modules, module, None)
    with refused(f"^it is packed with {packing}: to read it, install the Python package {package}$"):
        read(image)


def test_a_file_that_ends_before_its_size_is_refused():
    with OwnedFd(os.open("/sys/kernel/fscaps", os.O_RDONLY)) as fd, refused(r"^it became shorter while it was read$"):
        read_image(fd.fileno())


# Bounds


BOMB = """
import resource
from luod.kernel.api import ImageError
from luod.kernel.image import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(0)
except ImageError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_what_unpacks_to_more_than_any_kernel_is_refused_and_takes_no_memory():
    squeezed = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    kernel = squeezed.compress(elf(memory())) + squeezed.flush(zlib.Z_FULL_FLUSH)
    zeros = squeezed.compress(bytes(MIB)) + squeezed.flush(zlib.Z_FULL_FLUSH)
    with images.file(kernel + zeros * (KERNEL_MAX // MIB)) as fd:
        ran = subprocess.run(
            [sys.executable, "-c", BOMB], stdin=fd.fileno(), capture_output=True, text=True, check=True, cwd=ROOT
        )
    reason, kibibytes = ran.stdout.splitlines()
    assert reason == f"more than {KERNEL_MAX} bytes are packed in it, and no kernel has so many"
    assert int(kibibytes) < 16 * 1024


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"\x5d" + struct.pack("<IQ", 8 * LOOK_BACK, 1 << 40) + bytes(100), id="lzma"),
        pytest.param(b"\x28\xb5\x2f\xfd\x00" + bytes([(28 - 10) << 3]) + b"\x01\x00\x00", id="zstd"),
        pytest.param(b"\x02\x21\x4c\x18" + struct.pack("<I", 1 << 31) + bytes(100), id="lz4"),
    ],
)
def test_what_would_take_more_memory_than_a_kernel_does_is_refused(packed):
    with refused("^what is packed in it with .* can't be unpacked: "):
        read(packed)


def test_what_is_full_of_strings_is_refused():
    with refused("^no kernel has so many strings that look like an ABI's$"):
        abi_of(b"".join(handler(b"file-%d-v1" % number) for number in range(2000)))


def test_an_image_that_takes_too_long_is_given_up():
    with images.file(elf(memory(beside=b"a-v1\0" * (8 * MIB)))) as fd:
        began = time.process_time()
        with refused("^it takes too long to read$"):
            read_image(fd.fileno(), patience=0.2)
        assert time.process_time() - began < 2


SAMPLES = (
    elf(memory()),
    arm64_image(memory()),
    *(bzimage(elf(memory()), packing) for packing in images.PACKINGS),
    *(zboot(arm64_image(memory()), packing) for packing in images.PACKINGS),
    *(pack(arm64_image(memory()), packing) for packing in images.PACKINGS),
)


def damaged(image, edits, end):
    """The image up to its end, with other bytes here and there, of which many are in its headers."""
    content = bytearray(image)
    for place, data in edits:
        place %= len(content)
        content[place : place + len(data)] = data
    return bytes(content[: end % (len(content) + 1)])


def read_or_refuse(content):
    try:
        image = read(content)
    except ImageError:
        return
    assert isinstance(image, Image)


places = st.one_of(
    st.integers(0, 1 << 16),
    st.integers(0, 127),
    st.sampled_from([0x1F1, 0x202, 0x206, 0x238, 0x248, 0x24C]),
    st.integers(2048, 2100),
)
edits = st.lists(st.tuples(places, st.binary(min_size=1, max_size=8)), max_size=4)


@settings(max_examples=1000, deadline=5000)
@given(image=st.sampled_from(SAMPLES), edits=edits, end=st.one_of(st.just(-1), st.integers(0, 1 << 16)))
def test_whatever_is_damaged_is_read_or_refused(image, edits, end):
    read_or_refuse(damaged(image, edits, end))


@settings(max_examples=300, deadline=5000)
@given(
    head=st.sampled_from([b"", *(sample[:length] for sample in SAMPLES for length in (4, 64, 600))]), tail=st.binary()
)
def test_whatever_follows_a_head_is_read_or_refused(head, tail):
    read_or_refuse(head + tail)
