"""Go into the next kernel, once everything is as it is to be there: at once, or by way of systemd.

At once: file systems are held still and the kernel is told to go, by `luod.leave`, outside of luod's sandbox. Whatever
fails there, all goes on as it was.

By way of systemd: `systemctl kexec` asks logind, which refuses as long as somebody holds a lock that blocks it, and
waits a few seconds for those who hold one that delays it (systemd-inhibit(1)); where there is no logind it asks PID 1.
Then PID 1 stops all services in their order and becomes systemd-shutdown, which ends what is left, unmounts, and
calls reboot(). From PID 1's first step on there is no way back: systemd-shutdown takes a reboot() that returns for one
that can't be had, and restarts the machine by the firmware, without anything that was to come over. What can still fail
then: that no kernel is loaded any more (somebody has unloaded it, or loaded another), that the kernel can't freeze
what is preserved (a file whose handler refuses, no memory), and what hooks in /usr/lib/systemd/system-shutdown/ or an
exitrd do. `systemctl kexec` itself would load a kernel of its own choice where none is loaded, so that is looked at
before.
"""

import time
from pathlib import Path
from typing import Final, NoReturn, Protocol

from luod import child
from luod.errors import LuodError
from luod.kernel.api import KernelError
from luod.kernel.running import RunningKernel
from luod.leave import CAME_BACK, LEAVING
from luod.lifecycle import Via
from luod.systemd import KEXEC_SERVICE, CantAsk, NoAnswer, shutdown_has_begun, systemctl, systemd_runs

PATIENCE: Final = 150.0
"""How long the last steps may take, in seconds; the unit has its own, shorter limit. Much to write takes long."""

DELAY: Final = 60.0
"""How long logind may wait for those who delay it, in seconds, before PID 1 begins (InhibitDelayMaxSec=)."""

_PAUSE: Final = 0.1


class CameBack(LuodError):
    """This is still the old kernel, and all goes on. The text says why."""


class Machine(Protocol):
    """What goes into the next kernel (see `kernel.machine.Machine`)."""

    is_simulated: bool

    def kexec(self) -> None: ...


def depart(via: Via, machine: Machine, runtime_directory: Path) -> None:
    """Go into the next kernel. Blocks, and comes back where PID 1 has begun: it ends this process, sooner or later.

    Raises CameBack where it comes to nothing, and all goes on.
    """
    if via is Via.SYSTEMD:
        _through_systemd(machine)
    elif machine.is_simulated:
        _simulated(machine)
    else:
        _at_once(runtime_directory)


def came_back(runtime_directory: Path) -> str | None:
    """Why the last departure came to nothing, where it did; nobody is leaving any more. For luod's start, too: the one
    before it may have died while it was leaving.
    """
    reason = runtime_directory / CAME_BACK
    try:
        said = reason.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        said = None
    for file in (runtime_directory / LEAVING, reason):
        file.unlink(missing_ok=True)
    return said


def _simulated(machine: Machine) -> NoReturn:
    try:
        machine.kexec()
    except KernelError as error:
        raise CameBack(str(error)) from None
    raise CameBack("the simulated kernel went, and this process is still there")


# At once


def _at_once(directory: Path) -> NoReturn:
    came_back(directory)
    (directory / LEAVING).touch()
    try:
        said = _by_unit() if systemd_runs() else _by_child(directory)
    finally:
        reason = came_back(directory)
    raise CameBack(reason or said)


def _by_unit() -> str:
    """Returns what systemctl says of it."""
    try:
        said = systemctl("start", KEXEC_SERVICE, patience=PATIENCE)
        if said.status == 0:
            return f"{KEXEC_SERVICE} has done nothing: luod has another runtime directory than it"
        problem = said.err.strip()
    except CantAsk as error:
        problem = str(error)
    try:  # the start is over where its process is; this is, where ExecStopPost= is, too
        systemctl("stop", KEXEC_SERVICE)
    except CantAsk as error:
        problem += f"; {error}"
    return problem


def _by_child(directory: Path) -> str:
    """The same without systemd."""
    said = _run(directory)
    _run(directory, "--undo")  # it may have been killed
    return said


def _run(directory: Path, *words: str) -> str:
    ended = child.run("luod", "kexec", *words, "--runtime-directory", str(directory), patience=PATIENCE)
    if ended.status is None:
        return "luod kexec doesn't end"
    return ended.err or f"luod kexec ended with status {ended.status}"


# By way of systemd


def _through_systemd(machine: Machine) -> None:
    if machine.is_simulated:
        raise CameBack("a simulated kernel has no systemd; use direct")
    if not systemd_runs():
        raise CameBack("there is no systemd here; use direct")
    if not RunningKernel().an_image_is_loaded():
        raise CameBack("no kernel is loaded")
    try:
        said = systemctl("kexec")
    except NoAnswer:
        pass  # it may go all the same
    except CantAsk as error:
        raise CameBack(str(error)) from None
    else:
        if said.status:
            raise CameBack(f"systemctl kexec: {said.err.strip()}")
    deadline = time.monotonic() + DELAY
    while not shutdown_has_begun():
        if time.monotonic() > deadline:
            raise CameBack(f"PID 1 was asked, and hasn't begun for {DELAY:g} s; it still may")
        time.sleep(_PAUSE)
