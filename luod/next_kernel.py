"""The next kernel: luod loads it, keeps what it has loaded, and loads the same again right before the machine goes.

luod's copies are in the fd store before the kernel has them, so a luod that starts anew has what the kernel has. What
is to be known of the kernel that runs, after a live update, is in the manifest before that kernel can be gone into.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Protocol

from luod.errors import BadImage, InvalidParameter, KernelFailed
from luod.fds import OwnedFd
from luod.holdings import Holdings
from luod.kernel.api import ImageError, KernelError
from luod.kernel.cmdline import CommandLineError, check
from luod.kernel.image import Image, read_image
from luod.kernel.machine import Machine
from luod.kernel.running import NotKnown
from luod.manifest import Kernel, KernelIs
from luod.memory import status_of
from luod.origin import Origin, with_origin, without_origin
from luod.sealed import Loaded, Sealed, copy_of_initrd, copy_of_kernel

log = logging.getLogger(__name__)

_ABOUT_THE_IMAGE: Final = frozenset(
    {
        *(errno.ENOEXEC, errno.EINVAL, errno.EFBIG, errno.EADDRNOTAVAIL),
        *(errno.EKEYREJECTED, errno.ENOKEY, errno.ENODATA, errno.EACCES),
    }
)
"""What the kernel answers where another image, or initrd, would do."""


class FdStore(Protocol):
    """Where copies of descriptors outlive this process (see `systemd.FdStore`)."""

    def put(self, *fds: int) -> None: ...

    def remove(self, *fds: int) -> None: ...


class NextKernel:
    """The next kernel, and what is known of the one that runs. Thread-safe; all but `loaded` may block for seconds."""

    def __init__(self, machine: Machine, fd_store: FdStore, holdings: Holdings, brought: Sealed | None = None) -> None:
        """`brought` is what an earlier luod has loaded in this boot: it is this one's to close."""
        self._machine = machine
        self._fd_store = fd_store
        self._holdings = holdings
        self._sealed = brought
        self._running: Image | None = None
        self._turn = threading.Lock()
        self._asked = threading.Lock()

    @property
    def loaded(self) -> Loaded | None:
        """What luod has loaded; None where it has loaded nothing, whatever others have."""
        sealed = self._sealed
        return None if sealed is None else sealed.loaded

    @property
    def machine(self) -> Machine:
        return self._machine

    def load(
        self,
        kernel: OwnedFd,
        initrd: OwnedFd | None,
        line: str,
        running: OwnedFd | None = None,
        *,
        require: Callable[[], None] = lambda: None,
    ) -> Loaded:
        """Load a kernel, in place of one that may be loaded; luod.from goes behind the command line.

        The descriptors are a stranger's, and stay the caller's. `running` is the image of the kernel that runs.
        `require` raises where nobody may load one any more, once all was read. Raises BadImage, InvalidParameter, and
        QuotaExceeded, KernelError or KernelFailed where the system or the fd store fails luod: then what was loaded
        before still is.
        """
        with ExitStack() as undo:
            # A stranger's file may block for ever, on a file system that hangs: nobody else is to wait for it.
            learned = None if running is None else self._running_in(running)
            copy = undo.enter_context(copy_of_kernel(kernel.fileno()))
            image = self._image_in(copy)
            line = self._whole_line(line, image)
            initrd_copy = None if initrd is None else undo.enter_context(copy_of_initrd(initrd.fileno()))
            size = None if initrd_copy is None else status_of(initrd_copy).st_size
            with self._turn:
                require()
                if learned is not None:
                    self._remember(learned)
                    self._running = learned
                loaded = Loaded(image, line, size, time.time_ns() // 1000)
                sealed = Sealed.of(loaded, self._holdings.manifest.boot_id, copy, initrd_copy)
                undo.callback(sealed.close)
                self._fd_store.put(*sealed.fds)
                undo.callback(self._fd_store.remove, sealed.fds[0])
                self._remember(image)
                self._give(sealed, line)
                undo.pop_all()
                old, self._sealed = self._sealed, sealed
                self._let_go(old)
                return loaded

    def unload(self, *, require: Callable[[], None] = lambda: None) -> None:
        """Take the next kernel back, whoever has loaded it. Raises KernelFailed, and what `require` raises where nobody
        may: then it is still there.
        """
        with self._turn:
            require()
            try:
                self._machine.unload()
            except KernelError as error:
                raise KernelFailed(error.call, error.errno) from None
            old, self._sealed = self._sealed, None
            self._let_go(old)

    def load_again(self, *, expecting: bool = True) -> None:
        """Load the same once more, right before the machine goes: whatever others have loaded meanwhile is replaced.

        `expecting`: the next luod is to miss what doesn't come over; otherwise it is to begin afresh without a word.
        Raises BadImage where nothing is loaded or the kernel wouldn't have it any more, and KernelFailed.
        """
        with self._turn:
            if self._sealed is None:
                raise BadImage("luod has loaded none")
            line = self._sealed.loaded.command_line
            self._give(self._sealed, line if expecting else without_origin(line))

    def close(self) -> None:
        """Close luod's copies; the fd store and the kernel have theirs."""
        if self._sealed is not None:
            self._sealed.close()

    def running_image(self) -> Image | NotKnown:
        """The image of the kernel that runs: of those that luod has loaded or was shown, the one with its build id;
        else one that is found where distributions keep them.
        """
        with self._asked:
            if self._running is None:
                found = self._find_running()
                if isinstance(found, NotKnown):
                    return found
                self._running = found
            return self._running

    def _find_running(self) -> Image | NotKnown:
        build_id = self._machine.running.build_id()
        if isinstance(build_id, NotKnown):
            return build_id
        loaded = self.loaded
        known = [] if loaded is None else [loaded.image]
        with self._holdings.table:
            known += [Image.of_facts(kernel.facts()) for kernel in self._holdings.manifest.kernels]
        return next((image for image in known if build_id in image.build_ids), None) or self._machine.running.image()

    def _running_in(self, running: OwnedFd) -> Image:
        """The image of the kernel that runs. Raises InvalidParameter where it is another's."""
        try:
            image = read_image(running.fileno())
        except ImageError as error:
            raise InvalidParameter("runningFileDescriptor", str(error)) from None
        build_id = self._machine.running.build_id()
        if isinstance(build_id, NotKnown):
            raise InvalidParameter("runningFileDescriptor", f"whether it is the running kernel's is {build_id}")
        if build_id not in image.build_ids:
            raise InvalidParameter(
                "runningFileDescriptor", "it is another kernel's: its build id is not that of this one"
            )
        return image

    def _remember(self, image: Image) -> None:
        """In the manifest, for the next luod and the next kernel."""
        kernel = Kernel.model_validate(image.facts())
        with self._holdings.table:
            if self._holdings.manifest.kernels[-1:] != [kernel]:
                self._holdings.record(KernelIs(kernel=kernel))

    def _image_in(self, copy: OwnedFd) -> Image:
        try:
            image = read_image(copy.fileno())
        except ImageError as error:
            raise BadImage(str(error)) from None
        here = self._machine.running.architecture()
        if image.architecture != here:
            raise BadImage(f"it is for {image.architecture}, and this machine is {here}")
        return image

    def _whole_line(self, line: str, image: Image) -> str:
        manifest = self._holdings.manifest
        try:
            whole = with_origin(line, Origin(manifest.boot_id, manifest.generation))
            check(whole, image.command_line_max)
        except CommandLineError as error:
            raise InvalidParameter("commandLine", str(error)) from None
        except UnicodeEncodeError:
            raise InvalidParameter("commandLine", "there are characters in it that no text has") from None
        return whole

    def _give(self, sealed: Sealed, line: str) -> None:
        try:
            initrd = None if sealed.initrd is None else sealed.initrd.fileno()
            self._machine.load(sealed.kernel.fileno(), line, initrd)
        except KernelError as error:
            if error.errno in _ABOUT_THE_IMAGE:
                raise BadImage(error.meaning) from None
            raise KernelFailed(error.call, error.errno) from None

    def _let_go(self, old: Sealed | None) -> None:
        if old is not None:
            try:
                self._fd_store.remove(old.fds[0])
            finally:
                old.close()
