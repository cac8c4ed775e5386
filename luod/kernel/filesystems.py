"""The file systems of this machine, held still: what is on the disks is whole, and nothing writes to them any more.

A frozen file system has written everything back, and what it would replay after a crash; whoever writes waits, whoever
reads doesn't (freeze_super() in fs/super.c). Some can't be frozen, vfat for one: they are made read-only.
"""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from luod.fds import OwnedFd

MOUNTS: Final = Path("/proc/self/mountinfo")

_FREEZE: Final = 0xC0045877
_THAW: Final = 0xC0045878
"""FIFREEZE, FITHAW (include/uapi/linux/fs.h)."""

_FSCONFIG: Final = 431
_FSPICK: Final = 433
"""The calls' numbers: since Linux 5.2, the same for every architecture."""

_CLOEXEC, _EMPTY_PATH = 0x1, 0x8
_SET_FLAG, _RECONFIGURE = 0, 7
"""FSPICK_*, FSCONFIG_* (include/uapi/linux/mount.h)."""

_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """Where a file system is mounted: a line of mountinfo (proc_pid_mountinfo(5))."""

    number: int
    device: str
    """The file system's own number, "8:1"; the same for each of its mounts."""
    point: str
    kind: str
    source: str
    writable: bool
    """Whether the file system is; this mount of it may still be read-only."""

    @property
    def is_on_disk(self) -> bool:
        """Whether it is one of a block device. Those of several have a number that is none (btrfs)."""
        return not self.device.startswith("0:") or self.source.startswith("/dev/")


class FileSystem(NamedTuple):
    """One, by its mounts."""

    mounts: Sequence[Mount]

    @property
    def device(self) -> str:
        return self.mounts[0].device

    @property
    def point(self) -> str:
        """The place that it is known by: the shortest."""
        return min((mount.point for mount in self.mounts), key=len)

    @property
    def writable(self) -> bool:
        return self.mounts[0].writable


def mounts(path: Path = MOUNTS) -> list[Mount]:
    """All that is mounted, in the order in which it was."""
    return [_mount(line) for line in path.read_bytes().splitlines()]


def _mount(line: bytes) -> Mount:
    here, _, there = line.partition(b" - ")
    number, _, device, _, point, *_ = here.split(b" ")
    kind, source, options = there.split(b" ", 2)
    writable = b"rw" in options.split(b",")
    return Mount(int(number), device.decode(), _plain(point), kind.decode(), _plain(source), writable)


def _plain(text: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), text))


def files_under(device: str, sysfs: Path = Path("/sys")) -> Iterator[str]:
    """The files that a block device has its content in, through whatever lies between: those of loop devices."""
    yield from _files_under((sysfs / "dev" / "block" / device).resolve())


def _files_under(device: Path) -> Iterator[str]:
    whole = device.parent if (device / "partition").exists() else device
    with contextlib.suppress(OSError):
        yield os.fsdecode((whole / "loop" / "backing_file").read_bytes().rstrip(b"\n"))
    for part in sorted((whole / "slaves").glob("*")):
        yield from _files_under(part.resolve())


def to_hold_still(there: Sequence[Mount], files: Callable[[str], Iterable[str]] = files_under) -> list[FileSystem]:
    """The writable file systems that are on disks, in the order in which to hold them still.

    One whose disk is a file comes before the one that has the file: it writes there until it is frozen. Else the
    deepest comes first, and the root last.
    """
    by_device: dict[str, list[Mount]] = {}
    for mount in there:
        if mount.is_on_disk and mount.writable:
            by_device.setdefault(mount.device, []).append(mount)
    found = [FileSystem(of_one) for of_one in by_device.values()]
    hosts = {system.device: {_host(there, file) for file in files(system.device)} for system in found}

    def floor(device: str, seen: frozenset[str] = frozenset()) -> int:
        under = hosts.get(device, set()) - seen
        return max((1 + floor(host, seen | {device}) for host in under), default=0)

    return sorted(found, key=lambda system: (floor(system.device), _depth(system.point)), reverse=True)


def _host(there: Sequence[Mount], file: str) -> str:
    """The device of the file system that has a file."""
    mount = mount_of(there, Path(file))
    return mount.device if mount else ""


def mount_of(there: Sequence[Mount], path: Path) -> Mount | None:
    """Where the file system is mounted that has this path, an absolute one without links: the deepest, the last."""
    above = [(_depth(mount.point), at) for at, mount in enumerate(there) if path.is_relative_to(mount.point)]
    return there[max(above)[1]] if above else None


def _depth(point: str) -> int:
    return len(Path(point).parts)


def opened(system: FileSystem) -> OwnedFd | None:
    """A descriptor of where a file system is mounted; None where something else is mounted over each such place."""
    for mount in sorted(system.mounts, key=lambda mount: len(mount.point)):
        try:
            fd = OwnedFd(os.open(mount.point, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError:
            continue
        if _mounted_as(fd.fileno()) == mount.number:
            return fd
        fd.close()
    return None


def _mounted_as(fd: int) -> int | None:
    found = re.search(r"^mnt_id:\s+(\d+)$", Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) if found else None


def hold_still(fd: int) -> bool:
    """Have the file system of a descriptor write everything back and nothing more. False: somebody else has done so.

    Raises OSError where it can be neither frozen nor made read-only. May take as long as writing back takes.
    """
    try:
        fcntl.ioctl(fd, _FREEZE, 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno != errno.EOPNOTSUPP:
            raise
        _reconfigure(fd, "ro")
    return True


def let_go_on(fd: int, *, writable: bool) -> None:
    """Have it be written to again, whether it holds still or not; `writable` is whether it is now, frozen or not.

    Raises OSError.
    """
    if not writable:
        _reconfigure(fd, "rw")
        return
    try:
        fcntl.ioctl(fd, _THAW, 0)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # it isn't frozen, and can't be
            raise


def _reconfigure(fd: int, flag: str) -> None:
    """Remount the file system, and leave the flags of its mounts as they are, which mount(2) doesn't."""
    with OwnedFd(_syscall(_FSPICK, fd, b"", _CLOEXEC | _EMPTY_PATH)) as picked:
        _syscall(_FSCONFIG, picked.fileno(), _SET_FLAG, flag.encode(), None, 0)
        _syscall(_FSCONFIG, picked.fileno(), _RECONFIGURE, None, None, 0)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """The C library may have no function for it."""
    import ctypes

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    result: int = syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
