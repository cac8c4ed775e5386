"""The kernel that runs: what it tells of itself, and which image it came from.

In which forms it hands over, no kernel tells whole. debugfs has KHO's and LUO's, where it is mounted
(/sys/kernel/debug/kho), and no file handler's. /proc/kcore has all, and is closed by lockdown, and to a service in a
sandbox. But every kernel tells its build id, a digest of itself (/sys/kernel/notes): what is known of the image with
the same one is known of the kernel, whoever keeps that image, and wherever.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luod.fds import OwnedFd
from luod.kernel.api import ImageError
from luod.kernel.cmdline import KHO, is_on, parameters
from luod.kernel.compatible import build_ids_in
from luod.kernel.image import Image, read_image

IMAGES: Final = (
    "lib/modules/{release}/vmlinuz",
    "boot/vmlinuz-{release}",
    "boot/vmlinux-{release}",
    "boot/Image-{release}",
)
"""Where distributions keep the image of a kernel."""

_LOADED: Final = ("sys/kernel/kexec/loaded", "sys/kernel/kexec_loaded")
"""Its name now, and the one it always had (kernel/kexec_core.c)."""


@dataclass(frozen=True)
class NotKnown:
    """What can't be told, and why."""

    because: str

    def __str__(self) -> str:
        return f"not known, because {self.because}"


class RunningKernel:
    """The kernel of this machine. Its files are under `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def release(self) -> str:
        """As in uname(2)."""
        return self._text("proc/sys/kernel/osrelease")

    def architecture(self) -> str:
        """As in uname(2)."""
        return os.uname().machine

    def command_line(self) -> str:
        """What it was started with."""
        return self._text("proc/cmdline")

    def live_update_is_on(self) -> bool:
        """Whether it made the device. It has turned KHO on then, too (kernel/liveupdate/luo_core.c)."""
        return self._has("sys/class/misc/liveupdate")

    def kho_is_on(self) -> bool | NotKnown:
        """Whether it hands anything over to a kernel that kexec_file_load loads."""
        if self.live_update_is_on() or self._has("sys/kernel/debug/kho"):
            return True
        if is_on(self.command_line(), KHO) is False:
            return False
        return NotKnown("live update is off, and only debugfs would tell (/sys/kernel/debug/kho)")

    def an_image_is_loaded(self) -> bool:
        """Whether there is a next kernel, however it was loaded: `kernel.kexec` says why that isn't the same."""
        return any(self._has(path) and self._text(path) == "1" for path in _LOADED)

    def build_id(self) -> str | NotKnown:
        """Its build id, in hexadecimal."""
        try:
            notes = (self._root / "sys/kernel/notes").read_bytes()
        except OSError as error:
            return NotKnown(f"/sys/kernel/notes can't be read: {error.strerror}")
        return next(build_ids_in(notes), NotKnown("/sys/kernel/notes has no build id in it"))

    def image(self, elsewhere: Iterable[Path] = ()) -> Image | NotKnown:
        """The image that it came from: the one with its build id, of those that distributions keep, that the boot
        loader names (BOOT_IMAGE=) and that are `elsewhere`. Reads one after the other, a second for each.
        """
        build_id = self.build_id()
        if isinstance(build_id, NotKnown):
            return build_id
        tried = []
        for path in dict.fromkeys((*self._kept(), *elsewhere)):
            image = _image_at(path, build_id)
            if isinstance(image, Image):
                return image
            tried.append(f"{path}: {image.because}")
        return NotKnown(f"its image was not found ({'; '.join(tried)})")

    def _kept(self) -> Iterator[Path]:
        release = self.release()
        for pattern in IMAGES:
            yield self._root / pattern.format(release=release)
        for name, value in parameters(self.command_line()):
            if name == "BOOT_IMAGE" and value:
                path = value.rpartition(")")[2].lstrip("/")  # GRUB's names of devices are in parentheses
                yield self._root / path
                yield self._root / "boot" / path

    def _has(self, path: str) -> bool:
        return os.path.exists(self._root / path)  # unlike Path's, it is false where the way there is closed

    def _text(self, path: str) -> str:
        return (self._root / path).read_text(errors="surrogateescape").strip()


def _image_at(path: Path, build_id: str) -> Image | NotKnown:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return NotKnown(error.strerror or str(error))
    with OwnedFd(fd) as file:
        try:
            image = read_image(file.fileno())
        except ImageError as error:
            return NotKnown(str(error))
    return image if build_id in image.build_ids else NotKnown("it is another kernel's")
