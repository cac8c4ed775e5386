"""The next kernel as luod keeps it: sealed copies, for the files may change or vanish before they are loaded again.

There are up to three memfds, which the fd store has under one name: the kernel, its initrd, and a spec that says which
of them is what, and of which boot. A service manager hands them back in any order, and one that carries its store over
hands them to the next kernel, to which they are nothing.

    spec: magic, JSON
"""

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Self

from luod.errors import BadImage, answered
from luod.fds import OwnedFd
from luod.kernel.image import FILE_MAX, PATIENCE, Image
from luod.kernel.unpack import MIB
from luod.systemd import Handed

MAGIC: Final = b"LUODNEXT"
INITRD_MAX: Final = 1024 * MIB
"""How large an initrd may be, in bytes: one with every driver has about 200 MiB. luod has it in memory."""

_SPEC_MAX: Final = MIB
_PIECE: Final = MIB
_ALL: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True)
class Loaded:
    """What luod has loaded: `command_line` is the whole of it, `loaded_usec` is CLOCK_REALTIME in microseconds."""

    image: Image
    command_line: str
    initrd_bytes: int | None
    loaded_usec: int

    def facts(self) -> dict[str, Any]:
        """The same for the wire."""
        return {
            **self.image.facts(),
            "commandLine": os.fsencode(self.command_line).decode(errors="replace"),
            "initrdBytes": self.initrd_bytes,
            "loadedUSec": self.loaded_usec,
        }


class NotASpec(Exception):
    """This is no spec, or not one of this version's."""


class Sealed:
    """A next kernel's descriptors: whoever has it must close it. Closing it leaves what the fd store has."""

    def __init__(self, loaded: Loaded, boot_id: str, spec: OwnedFd, kernel: OwnedFd, initrd: OwnedFd | None) -> None:
        """Takes the descriptors over."""
        self.loaded = loaded
        self.boot_id = boot_id
        self._spec = spec
        self.kernel = kernel
        self.initrd = initrd

    @classmethod
    def of(cls, loaded: Loaded, boot_id: str, kernel: OwnedFd, initrd: OwnedFd | None) -> Self:
        """Takes the sealed copies over, unless it raises KernelFailed."""
        body = {
            "bootId": boot_id,
            "kernel": _inode(kernel),
            "initrd": None if initrd is None else _inode(initrd),
            "image": loaded.image.facts(),
            "commandLine": loaded.command_line,
            "initrdBytes": loaded.initrd_bytes,
            "loadedUSec": loaded.loaded_usec,
        }
        spec = _memfd("luod-next")
        try:
            _write(spec, MAGIC + json.dumps(body).encode())
            _seal(spec)
        except BaseException:
            spec.close()
            raise
        return cls(loaded, boot_id, spec, kernel, initrd)

    @property
    def fds(self) -> list[int]:
        """All of them, borrowed, the spec first."""
        return [fd.fileno() for fd in (self._spec, self.kernel, self.initrd) if fd is not None]

    def close(self) -> None:
        for fd in (self._spec, self.kernel, self.initrd):
            if fd is not None:
                fd.close()


class Spec:
    """A spec that the fd store brought, and what of its memory was found so far."""

    def __init__(self, name: str, fd: OwnedFd) -> None:
        """Takes it over under the name that it was kept under. Raises NotASpec, and then the caller still has it."""
        self.name = name
        self._body = _body_of(fd)
        try:
            self.boot_id = str(self._body["bootId"])
            self.loaded = Loaded(
                Image.of_facts(self._body["image"]),
                str(self._body["commandLine"]),
                self._body["initrdBytes"],
                int(self._body["loadedUSec"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise NotASpec(str(error)) from None
        self._fd = fd
        self._memory: dict[str, OwnedFd] = {}
        self._strange: list[OwnedFd] = []

    def take(self, fd: OwnedFd) -> None:
        """Memory that was kept with it."""
        inode = _inode(fd)
        for role in ("kernel", "initrd"):
            if inode == self._body.get(role) and role not in self._memory:
                self._memory[role] = fd
                return
        self._strange.append(fd)

    def whole(self, boot_id: str) -> Sealed | None:
        """All of it, if it is of this boot and all there; then it is the caller's, and this is empty."""
        roles = [role for role in ("kernel", "initrd") if self._body.get(role) is not None]
        if self.boot_id != boot_id or self._memory.keys() != set(roles):
            return None
        memory, self._memory = self._memory, {}
        while self._strange:
            self._strange.pop().close()
        return Sealed(self.loaded, boot_id, self._fd, memory["kernel"], memory.get("initrd"))

    def fileno(self) -> int:
        """Borrow the spec, by which the fd store knows all that is kept with it."""
        return self._fd.fileno()

    def close(self) -> None:
        for fd in (self._fd, *self._memory.values(), *self._strange):
            fd.close()


def is_memory(fd: OwnedFd) -> bool:
    """Whether a descriptor that was kept is a regular file, as all of these are."""
    return stat.S_ISREG(os.fstat(fd.fileno()).st_mode)


def _body_of(fd: OwnedFd) -> dict[str, Any]:
    if not is_memory(fd) or os.pread(fd.fileno(), len(MAGIC), 0) != MAGIC:
        raise NotASpec("it doesn't begin as one")
    try:
        body = json.loads(os.pread(fd.fileno(), _SPEC_MAX, len(MAGIC)))
    except (ValueError, RecursionError) as error:
        raise NotASpec(str(error)) from None
    if not isinstance(body, dict):
        raise NotASpec("it is no object")
    return body


# Copies


def copy_of_kernel(fd: int) -> OwnedFd:
    """A sealed copy of a stranger's file, borrowed. Raises BadImage, and KernelFailed."""
    return _copy("kernel", fd, FILE_MAX)


def copy_of_initrd(fd: int) -> OwnedFd:
    """A sealed copy of a stranger's file, borrowed. Raises BadImage, and KernelFailed."""
    return _copy("initrd", fd, INITRD_MAX)


def _copy(what: str, fd: int, most: int) -> OwnedFd:
    deadline = time.monotonic() + PATIENCE
    with answered("fstat"):
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadImage(f"the {what} is not a regular file")
    with ExitStack() as undo:
        copy = undo.enter_context(_memfd(f"luod-{what}"))
        size = 0
        while piece := _read(what, fd, size):
            size += len(piece)
            if size > most:
                raise BadImage(f"the {what} has more than {most // MIB} MiB")
            if time.monotonic() > deadline:
                raise BadImage(f"the {what} takes too long to read")
            _write(copy, piece)
        if not size:
            raise BadImage(f"the {what} is empty")
        _seal(copy)
        undo.pop_all()
        return copy


def _read(what: str, fd: int, start: int) -> bytes:
    try:
        return os.pread(fd, _PIECE, start)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise BadImage(f"the {what} is not open for reading") from None
        raise BadImage(f"the {what} can't be read: {error.strerror}") from None


def _memfd(name: str) -> OwnedFd:
    with answered("memfd_create"):
        return OwnedFd(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))


def _write(fd: OwnedFd, data: bytes) -> None:
    """At the position, all of it."""
    rest = memoryview(data)
    while rest:
        with answered("write"):
            rest = rest[os.write(fd.fileno(), rest) :]


def _seal(fd: OwnedFd) -> None:
    with answered("F_ADD_SEALS"):
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, _ALL)


def _inode(fd: OwnedFd) -> list[int]:
    with answered("fstat"):
        status = os.fstat(fd.fileno())
    return [status.st_dev, status.st_ino]


def specs_among(kept: Iterable[Handed]) -> tuple[list[Spec], list[Handed]]:
    """The specs in what was kept, each with what was kept beside it; and the rest."""
    specs: dict[str, Spec] = {}
    others, rest = [], []
    for entry in kept:
        try:
            specs.setdefault(entry.name, Spec(entry.name, entry.fd))
        except NotASpec:
            others.append(entry)
        else:
            if specs[entry.name].fileno() != entry.fd.fileno():
                others.append(entry)
    for entry in others:
        if entry.name in specs and is_memory(entry.fd):
            specs[entry.name].take(entry.fd)
        else:
            rest.append(entry)
    return list(specs.values()), rest


def newest(specs: Iterable[Spec], boot_id: str) -> Sealed | None:
    """The one of this boot that was loaded last. Of two, between which luod ended, the kernel has either: it is loaded
    again before the machine goes.
    """
    for spec in sorted(specs, key=lambda spec: spec.loaded.loaded_usec, reverse=True):
        if (sealed := spec.whole(boot_id)) is not None:
            return sealed
    return None
