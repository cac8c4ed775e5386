"""`luod kexec`: the last steps of a live update that doesn't go through PID 1, outside of luod's sandbox.

luod starts it, and says so in the file `leaving`; without that it does nothing. It holds every file system on a disk
still and, if luod is leaving then, goes into the next kernel. Where that fails it lets them go on, and says why in the
file `came-back`. In `held-still` it says for which it does that, for whoever cleans up after a kill: `luod kexec
--undo`.

These files are in luod's runtime directory, which is on no disk: whoever writes to one that is held still waits for
ever. Who reads doesn't, so it is no harm that Python, or an executable, is on one; but Python must write no .pyc.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from luod.fds import OwnedFd
from luod.kernel import filesystems
from luod.kernel.api import KernelError
from luod.kernel.filesystems import FileSystem
from luod.kernel.kexec import reboot_into_the_next_kernel

RUNTIME_DIRECTORY: Final = Path("/run/luod")

LEAVING: Final = "leaving"
HELD_STILL: Final = "held-still"
CAME_BACK: Final = "came-back"

_IN_MEMORY: Final = ("tmpfs", "ramfs")

USAGE: Final = f"""\
usage: luod kexec [--undo] [--runtime-directory DIR]

Hold all file systems still and go into the next kernel, at once: luod starts this, at the end of a live update.

  --undo                   let go on what one that was killed held still
  --runtime-directory DIR  luod's own (default: {RUNTIME_DIRECTORY})
"""


def leave(directory: Path) -> str:
    """Go into the next kernel. Returns why it is still this one; all goes on then. Raises OSError."""
    where = filesystems.mount_of(filesystems.mounts(), directory.resolve())
    if where is None or where.kind not in _IN_MEMORY:
        return f"{directory} is on no tmpfs: where disks are held still, luod could write nothing there"
    os.sync()  # most of what there is to write, while others still may
    try:
        _hold_all_still(directory / HELD_STILL)
        reason = _why_not(directory / LEAVING)
    finally:
        stuck = undo(directory)
    return "; ".join([reason, *stuck])


def _why_not(leaving: Path) -> str:
    if not leaving.exists():  # the luod that left has died, and the next one lets everybody go on
        return "luod isn't leaving any more"
    try:
        reboot_into_the_next_kernel()
    except KernelError as error:
        return str(error)


def _hold_all_still(record: Path) -> None:
    """As far as they let themselves be: what others have written is on its disk as well, as after any sync."""
    with OwnedFd(os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)) as file:
        for system in filesystems.to_hold_still(filesystems.mounts()):
            with _root(system) as root:
                if root is not None:
                    os.write(file.fileno(), f"+{system.device}\n".encode())
                    with contextlib.suppress(OSError):
                        if not filesystems.hold_still(root.fileno()):
                            os.write(file.fileno(), f"-{system.device}\n".encode())  # somebody else lets it go on


def undo(directory: Path) -> list[str]:
    """Let all go on that were held still, the last one first. Which of them don't."""
    stuck = []
    for system in reversed(_held_still(directory / HELD_STILL)):
        with _root(system) as root:
            try:
                if root is not None:
                    filesystems.let_go_on(root.fileno(), writable=system.writable)
            except OSError as error:
                stuck.append(f"{system.point} is still held: {error.strerror}")
    if not stuck:
        (directory / HELD_STILL).unlink(missing_ok=True)
    return stuck


def _held_still(record: Path) -> list[FileSystem]:
    try:
        lines = record.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
    released = {line[1:] for line in lines if line.startswith("-")}
    devices = dict.fromkeys(line[1:] for line in lines if line.startswith("+"))
    there = filesystems.mounts()
    mounts = {
        device: [mount for mount in there if mount.device == device] for device in devices if device not in released
    }
    return [FileSystem(of_one) for of_one in mounts.values() if of_one]


def _root(system: FileSystem) -> contextlib.AbstractContextManager[OwnedFd | None]:
    return filesystems.opened(system) or contextlib.nullcontext()


def main(arguments: Sequence[str]) -> int:
    """Run `luod kexec` with these arguments; the exit status, where there is one."""
    directory, rest, undoing = RUNTIME_DIRECTORY, list(arguments), False
    while rest:
        match rest:
            case ["-h" | "--help", *_]:
                print(USAGE, end="")
                return 0
            case ["--undo", *rest]:
                undoing = True
            case ["--runtime-directory", word, *rest]:
                directory = Path(word)
            case _:
                print(f"luod kexec: what is {rest[0]}?\n{USAGE}", end="", file=sys.stderr)
                return 2
    if undoing:
        return _clean_up(directory)
    if not (directory / LEAVING).exists():
        print(f"luod kexec: luod isn't leaving: there is no {directory / LEAVING}", file=sys.stderr)
        return 2
    try:
        reason = leave(directory)
    except OSError as error:
        reason = str(error)
    _came_back(directory, reason)
    return 1


def _clean_up(directory: Path) -> int:
    """After one that is over, whatever ended it."""
    ended = (directory / LEAVING).exists() and not (directory / CAME_BACK).exists()
    stuck = undo(directory)
    if ended:
        _came_back(directory, "; ".join([f"the last steps were ended half-way{_by_what()}", *stuck]))
    return 1 if stuck else 0


def _by_what() -> str:
    """As systemd says it (systemd.exec(5))."""
    said = [os.environ[key] for key in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS") if key in os.environ]
    return f" ({', '.join(said)})" if said else ""


def _came_back(directory: Path, reason: str) -> None:
    (directory / CAME_BACK).write_text(f"{reason}\n", encoding="utf-8")
    print(f"luod kexec: {reason}", file=sys.stderr)
