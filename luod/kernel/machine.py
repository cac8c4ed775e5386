"""The machine that luod runs on, beside LUO: the kernel that runs, and the next one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from luod.kernel import kexec
from luod.kernel.image import Image
from luod.kernel.running import NotKnown, RunningKernel


class Running(Protocol):
    """The kernel that runs (see `running.RunningKernel`)."""

    def release(self) -> str:
        """As in uname(2)."""
        ...

    def architecture(self) -> str:
        """As in uname(2)."""
        ...

    def command_line(self) -> str:
        """What it was started with."""
        ...

    def live_update_is_on(self) -> bool: ...

    def kho_is_on(self) -> bool | NotKnown: ...

    def an_image_is_loaded(self) -> bool:
        """Whether there is a next kernel, however it was loaded."""
        ...

    def build_id(self) -> str | NotKnown:
        """In hexadecimal."""
        ...

    def image(self, elsewhere: Iterable[Path] = ()) -> Image | NotKnown:
        """The image that it came from, where that is found. Blocks."""
        ...


class Machine(Protocol):
    """A machine. All but `running` blocks, and belongs in a thread."""

    is_simulated: bool

    @property
    def running(self) -> Running: ...

    def load(self, kernel_fd: int, command_line: str, initrd_fd: int | None = None) -> None:
        """Load the next kernel (see `kexec.load`). Raises CommandLineError, and KernelError."""
        ...

    def unload(self) -> None:
        """Take the next kernel back; there may be none. Raises KernelError."""
        ...

    def kexec(self) -> None:
        """Go into the next kernel, at once: what is to be done before is `luod.leave`'s. It comes back only where it
        raises KernelError: then everything goes on.
        """
        ...


class RealMachine:
    """The machine under this process (see `Machine`)."""

    is_simulated = False

    def __init__(self) -> None:
        self.running = RunningKernel()

    def load(self, kernel_fd: int, command_line: str, initrd_fd: int | None = None) -> None:
        kexec.load(kernel_fd, command_line, initrd_fd)

    def unload(self) -> None:
        kexec.unload()

    def kexec(self) -> None:
        kexec.reboot_into_the_next_kernel()
