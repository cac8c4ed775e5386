"""The next kernel: what luod loads is what it keeps, and what it keeps outlives it; what can't be is refused."""

import errno
import fcntl
import json
import os
import socket
from contextlib import contextmanager, suppress

import pytest

import images
from faults import Faults
from images import arm64_image, bzimage, elf, memory
from luod.errors import BadImage, InvalidParameter, KernelFailed, QuotaExceeded
from luod.fds import OwnedFd
from luod.kernel.api import Call, KernelError
from luod.kernel.image import Image
from luod.kernel.running import NotKnown
from luod.manifest import KERNELS_MAX
from luod.sim import image
from memory import memfd

LINE = "quiet liveupdate=on"


def opened(content):
    return images.file(content)


def load(machine, line=LINE, initrd=None, running=None, content=None, **what):
    """Load an image; the initrd and the running kernel's image are given by their contents."""
    given = [image.bzimage(**what) if content is None else content, initrd, running]
    fds = [None if each is None else opened(each) for each in given]
    try:
        return machine.loader.load(fds[0], fds[1], line, fds[2])
    finally:
        for fd in fds:
            if fd is not None:
                fd.close()


def in_kernel(machine):
    """The line of what the kernel has loaded."""
    loaded = machine.hardware.running.next_kernel()
    return loaded and loaded.command_line


def origin(machine):
    return f"luod.from={machine.recovered.manifest.boot_id}/{machine.recovered.manifest.generation}"


def kept_memory(machine):
    """What the fd store has of next kernels, by the names of the memory."""
    links = [os.readlink(f"/proc/self/fd/{fd}") for _, fd in machine.manager.entries]
    names = [link.removeprefix("/memfd:").removesuffix(" (deleted)") for link in links]
    return sorted(name for name in names if name in ("luod-next", "luod-kernel", "luod-initrd"))


# Loading


def test_what_is_loaded_is_known_and_says_where_it_comes_from(machine):
    loaded = load(machine, initrd=b"initrd", release="7.4.0-next")
    assert machine.loader.loaded == loaded
    assert in_kernel(machine) == loaded.command_line == f"{LINE} {origin(machine)}"
    assert machine.hardware.running.next_kernel().initrd_bytes == 6
    facts = json.loads(json.dumps(loaded.facts()))
    assert facts.pop("loadedUSec") > 1.7e15
    assert facts.pop("buildIds") == sorted(loaded.image.build_ids)
    assert facts == {
        "release": "7.4.0-next",
        "kind": "bzImage",
        "packing": "gzip",
        "architecture": "x86_64",
        "abi": {"kho": ["kho-v4"], "luo": ["luo-v5"], "handlers": ["memfd-v2"]},
        "commandLine": f"{LINE} {origin(machine)}",
        "commandLineMax": 2016,
        "initrdBytes": 6,
        "pageSize": 4096,
    }


def test_a_line_that_is_used_again_loses_its_older_origin(machine):
    loaded = load(machine, f"quiet luod.from={'0' * 8}-0000-4000-8000-{'0' * 12}/3 liveupdate=on -- single")
    assert loaded.command_line == f"quiet liveupdate=on {origin(machine)} -- single"


def test_what_is_loaded_is_a_copy_that_nobody_can_change(kept_machine):
    machine = kept_machine
    with opened(image.bzimage()) as kernel, memfd(b"initrd") as initrd:
        os.lseek(kernel.fileno(), 100, os.SEEK_SET)
        machine.loader.load(kernel, initrd, LINE)
        os.ftruncate(kernel.fileno(), 0)
        assert os.lseek(kernel.fileno(), 0, os.SEEK_CUR) == 100
    machine.loader.load_again()
    for _, fd in machine.manager.entries:
        if "/memfd:luod-kernel" in os.readlink(f"/proc/self/fd/{fd}"):
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"other", 0)


def pipe():
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(writing)
    return OwnedFd(reading)


def a_socket():
    return OwnedFd(socket.socket().detach())


def path_only(flags):
    return OwnedFd(os.open(__file__, flags | os.O_CLOEXEC))


STRANGE = {
    "a pipe": (pipe, "not a regular file"),
    "a socket": (a_socket, "not a regular file"),
    "a directory": (lambda: OwnedFd(os.open("/", os.O_RDONLY | os.O_CLOEXEC)), "not a regular file"),
    "a device": (lambda: OwnedFd(os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)), "not a regular file"),
    "O_PATH": (lambda: path_only(os.O_PATH), "not open for reading"),
    "empty": (lambda: opened(b""), "is empty"),
}


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.parametrize("role", ["kernel", "initrd"])
def test_a_strange_descriptor_is_refused(machine, role, what):
    make, reason = STRANGE[what]
    load(machine, "first liveupdate=on")
    with make() as strange, opened(image.bzimage()) as kernel, pytest.raises(BadImage, match=f"{role} .*{reason}"):
        machine.loader.load(strange if role == "kernel" else kernel, strange if role == "initrd" else None, LINE)
    assert in_kernel(machine).startswith("first")


def test_what_is_too_large_is_refused(machine, monkeypatch):
    monkeypatch.setattr("luod.sealed.INITRD_MAX", 1 << 20)
    with pytest.raises(BadImage, match="initrd has more than 1 MiB"):
        load(machine, initrd=bytes((1 << 20) + 1))
    load(machine, initrd=bytes(1 << 20))


def test_what_comes_too_slowly_is_refused(machine, monkeypatch):
    monkeypatch.setattr("luod.sealed.PATIENCE", -1.0)
    with pytest.raises(BadImage, match="too long"):
        load(machine)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"nonsense", "nothing that luod knows"),
        (arm64_image(memory()), "it is for aarch64, and this machine is x86_64"),
        (elf(memory()), "this kernel can't load such an image"),
    ],
)
def test_what_is_no_kernel_for_this_machine_is_refused_with_the_reason(machine, content, reason):
    with pytest.raises(BadImage, match=reason):
        load(machine, content=content)
    assert machine.loader.loaded is None


@pytest.mark.parametrize("line", ["x" * 2016, "nul\0", "\ud800", 'quiet "open'])
def test_a_line_that_no_kernel_takes_is_refused(machine, line):
    with pytest.raises(InvalidParameter) as caught:
        load(machine, line)
    assert caught.value.parameter == "commandLine"
    assert in_kernel(machine) is None


def test_a_line_may_be_as_long_as_the_image_takes(machine):
    room = 2016 - len(f" {origin(machine)}")
    load(machine, "x" * room)
    with pytest.raises(InvalidParameter, match="the command line has 2017 bytes, and this kernel takes 2016"):
        load(machine, "x" * (room + 1))
    with pytest.raises(InvalidParameter, match="takes 59"):
        load(machine, content=bzimage(elf(memory()), cmdline_size=90))


# Its life


def test_another_one_takes_its_place(kept_machine):
    machine = kept_machine
    load(machine, "first", initrd=b"initrd")
    assert kept_memory(machine) == ["luod-initrd", "luod-kernel", "luod-next"]
    load(machine, "second")
    assert in_kernel(machine).startswith("second")
    assert kept_memory(machine) == ["luod-kernel", "luod-next"]


def test_it_is_taken_back_and_nothing_of_it_is_left(kept_machine):
    machine = kept_machine
    before = machine.open_descriptors(), machine.manager.names
    load(machine, initrd=b"initrd")
    machine.loader.unload()
    assert machine.loader.loaded is None
    assert in_kernel(machine) is None
    assert (machine.open_descriptors(), machine.manager.names) == before
    machine.loader.unload()


def test_what_others_have_loaded_is_taken_back_too(machine):
    with opened(image.bzimage()) as kernel:
        machine.hardware.load(kernel.fileno(), "others'")
    machine.loader.unload()
    assert in_kernel(machine) is None


def test_what_can_not_be_taken_back_is_still_there(machine):
    load(machine)
    machine.control.fault(Call.KEXEC_UNLOAD, errno.EBUSY)
    with pytest.raises(KernelFailed) as caught:
        machine.loader.unload()
    assert caught.value.errno == errno.EBUSY
    assert machine.loader.loaded is not None


def test_the_same_is_loaded_again_whatever_others_did(machine):
    line = load(machine, initrd=b"initrd").command_line
    with opened(image.bzimage()) as kernel:
        machine.hardware.load(kernel.fileno(), "others'")
    machine.loader.load_again()
    assert in_kernel(machine) == line
    machine.hardware.unload()
    machine.loader.load_again()
    assert machine.hardware.running.next_kernel().initrd_bytes == 6


def test_where_all_is_lost_anyway_the_next_luod_is_to_miss_nothing(machine):
    line = load(machine).command_line
    machine.loader.load_again(expecting=False)
    assert in_kernel(machine) == LINE
    machine.loader.load_again()
    assert in_kernel(machine) == line


def test_without_one_nothing_is_loaded_again(machine):
    with pytest.raises(BadImage, match="luod has loaded none"):
        machine.loader.load_again()


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOKEY, BadImage), (errno.ENOMEM, KernelFailed), (errno.EPERM, KernelFailed)]
)
def test_a_kernel_that_refuses_keeps_what_it_had(kept_machine, number, error):
    machine = kept_machine
    first = load(machine, "first", initrd=b"initrd")
    machine.control.fault(Call.KEXEC_LOAD, number)
    with pytest.raises(error):
        load(machine, "second")
    assert machine.loader.loaded == first
    assert in_kernel(machine) == first.command_line
    assert kept_memory(machine) == ["luod-initrd", "luod-kernel", "luod-next"]


def test_a_full_fd_store_refuses_before_the_kernel_is_asked(kept_machine):
    machine = kept_machine
    machine.manager.most = len(machine.manager.names) + 1
    machine.start_anew()
    with pytest.raises(QuotaExceeded):
        load(machine)
    assert in_kernel(machine) is None
    assert kept_memory(machine) == []


# luod's own end, and the next kernel


def test_a_luod_that_starts_anew_has_what_was_loaded(kept_machine):
    machine = kept_machine
    loaded = load(machine, initrd=b"initrd")
    machine.start_anew()
    assert machine.loader.loaded == loaded
    assert machine.recovered.notes == []
    machine.hardware.unload()
    machine.loader.load_again()
    assert in_kernel(machine) == loaded.command_line
    assert machine.hardware.running.next_kernel().initrd_bytes == 6
    machine.loader.unload()
    assert kept_memory(machine) == []


def test_the_fd_store_may_bring_it_back_in_any_order(kept_machine):
    machine = kept_machine
    loaded = load(machine, initrd=b"initrd")
    machine.manager.entries.reverse()
    machine.start_anew()
    assert machine.loader.loaded == loaded
    assert machine.recovered.unclear.said() == []
    machine.loader.load_again()


def test_what_is_not_whole_is_dropped_and_said(kept_machine):
    machine = kept_machine
    load(machine)
    machine.stop()
    [kernel] = [
        entry for entry in machine.manager.entries if "/memfd:luod-kernel" in os.readlink(f"/proc/self/fd/{entry[1]}")
    ]
    machine.manager.entries.remove(kernel)
    os.close(kernel[1])
    machine.boot()
    assert machine.loader.loaded is None
    assert machine.recovered.notes == ["the fd store didn't bring all of the next kernel back: load it again"]
    assert kept_memory(machine) == []


def test_a_spec_that_nobody_understands_is_kept_and_reported(kept_machine):
    machine = kept_machine
    with opened(b"LUODNEXT{") as broken, opened(b'LUODNEXT{"bootId": "x"}') as other, opened(b"LUODNEXT[]") as none:
        for fd in (broken, other, none):
            machine.fd_store.put(fd.fileno())
    machine.start_anew()
    assert len(machine.recovered.unclear.said()) == 3


def test_a_service_manager_that_carries_its_store_over_brings_nothing_of_it(kept_machine):
    machine = kept_machine
    load(machine, initrd=b"initrd")
    machine.control.kexec()
    machine.stop()
    for name, fd in list(machine.manager.entries):  # each file is a new one, and sessions came back in another way
        machine.manager.entries.remove((name, fd))
        link = os.readlink(f"/proc/self/fd/{fd}")
        if link.startswith("/memfd:luod-") and "manifest" not in link:
            with OwnedFd(fd) as old, opened(os.pread(old.fileno(), 1 << 20, 0)) as new:
                machine.manager.entries.append((name, new.hand_on()))
        else:
            os.close(fd)
    machine.boot()
    assert machine.recovered.unclear.said() == machine.recovered.notes == []
    assert machine.loader.loaded is None
    assert kept_memory(machine) == []
    assert machine.recovered.manifest.generation == 1


def test_of_two_between_which_luod_died_the_newer_one_counts(kept_machine):
    machine = kept_machine
    load(machine, "first")
    for steps in range(20):
        killed = machine.is_unplugged_after(steps, lambda: load(machine, "second"))
        machine.start_anew()
        loaded = machine.loader.loaded.command_line
        assert loaded.startswith(("first", "second"))
        assert kept_memory(machine) == ["luod-kernel", "luod-next"]
        machine.loader.load_again()
        assert in_kernel(machine) == loaded
        if not killed:
            break
        load(machine, "first")
    assert loaded.startswith("second")
    assert steps > 2


# The kernel that runs


@pytest.fixture
def nothing_is_found(monkeypatch):
    monkeypatch.setattr("luod.sim.client.SimRunning.image", lambda running, elsewhere=(): NotKnown("it is not there"))


def test_the_running_kernel_is_known_where_its_image_is_found(machine):
    assert machine.loader.running_image() == machine.hardware.running.image()


@pytest.mark.usefixtures("nothing_is_found")
def test_the_running_kernel_is_not_known_where_nobody_has_seen_its_image(machine):
    load(machine)
    assert str(machine.loader.running_image()) == "not known, because it is not there"


@pytest.mark.usefixtures("nothing_is_found")
def test_a_kernel_that_luod_has_loaded_is_known_in_it(kept_machine):
    machine = kept_machine
    loaded = load(machine, release="7.4.0-next")
    machine.goes_into_what_is_loaded()
    machine.boot()
    assert machine.loader.loaded is None
    assert machine.loader.running_image() == loaded.image
    load(machine, release="7.5.0-another")
    machine.start_anew()
    assert machine.loader.running_image() == loaded.image


@pytest.mark.usefixtures("nothing_is_found")
def test_the_running_kernels_image_can_be_shown(kept_machine):
    machine = kept_machine
    build_id = bytes.fromhex(machine.hardware.running.build_id())
    shown = image.bzimage(build_id=build_id)
    for running, reason in ((b"nonsense", "nothing that luod knows"), (image.bzimage(), "it is another kernel's")):
        with pytest.raises(InvalidParameter, match=reason) as caught:
            load(machine, running=running)
        assert caught.value.parameter == "runningFileDescriptor"
    load(machine, running=shown)
    found = machine.loader.running_image()
    assert isinstance(found, Image)
    machine.start_anew()  # nobody needs to show it again
    assert machine.loader.running_image() == found


def test_only_the_last_kernels_are_known(machine):
    for number in range(KERNELS_MAX + 2):
        load(machine, release=f"7.4.{number}-next")
        load(machine, release=f"7.4.{number}-next")
    known = [f"7.4.{number}-next" for number in range(2, KERNELS_MAX + 2)]
    assert [kernel.release for kernel in machine.recovered.manifest.kernels] == known
    machine.kexec()
    assert [kernel.release for kernel in machine.recovered.manifest.kernels] == known


# Whatever fails


@contextmanager
def refusal():
    with suppress(BadImage, KernelFailed, KernelError, QuotaExceeded, InvalidParameter):
        yield


def test_whatever_call_fails_the_kernel_has_what_luod_says_and_nothing_leaks(kept_machine, monkeypatch, may_warn):
    machine, faults = kept_machine, Faults(monkeypatch)
    load(machine, "first", initrd=b"initrd")
    nothing = machine.open_descriptors()
    for number, nth in faults.each_call([errno.ENOSPC, errno.EMFILE, errno.ENOMEM]):
        given = opened(image.bzimage(release=f"7.4.{nth}")), opened(b"other initrd")
        with given[0], given[1], faults.strike(nth, number), refusal():
            machine.loader.load(*given, "second")
        assert in_kernel(machine) == machine.loader.loaded.command_line
        load(machine, "first", initrd=b"initrd")
        assert machine.open_descriptors() == nothing
    machine.start_anew()
    assert kept_memory(machine) == ["luod-initrd", "luod-kernel", "luod-next"]
    assert machine.recovered.unclear.said() == []


def test_whatever_call_fails_in_a_start_the_next_kernel_is_still_kept(kept_machine, monkeypatch, may_warn):
    machine, faults = kept_machine, Faults(monkeypatch)
    loaded = load(machine, "first", initrd=b"initrd")
    for number, nth in faults.each_call([errno.EMFILE, errno.EIO]):
        machine.stop()
        with faults.strike(nth, number):
            try:
                machine.impossible()
            except (KernelError, KernelFailed, QuotaExceeded):
                machine.fd_store.close()
                machine.kernel.close()
        machine.start_anew()
        assert machine.loader.loaded == loaded
        assert kept_memory(machine) == ["luod-initrd", "luod-kernel", "luod-next"]
        assert machine.recovered.unclear.said() == []
