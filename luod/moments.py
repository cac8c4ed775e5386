"""When the kernel, PID 1 and this process began, and how far the clock is from the one that runs through a kexec.

All times are CLOCK_REALTIME, in microseconds. A kernel sets that clock from the RTC when it starts, in whole seconds:
two kernels disagree by up to one. The RTC runs on, so its edges of a second tell by how much.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from luod.fds import OwnedFd
from luod.systemd import CantAsk, systemctl

RTC_PATIENCE: Final = 1.1
"""How long to look for the edge of a second, in seconds."""

_RTC: Final = "sys/class/rtc/rtc0/since_epoch"
_PAUSE: Final = 0.001
_SYSTEMCTL_PATIENCE: Final = 10.0

_OF_THIS_BOOT: Final = {"InitRD": "initrd", "Userspace": "userspace"}
_OF_THE_LAST_ONE: Final = {
    "PreviousShutdownStart": "stopping",
    "PreviousShutdownFinish": "stopped",
    "PreviousShutdownLateStart": "shutdown",
    "PreviousShutdownLateFinish": "kexec",
}
"""What systemd knows of the live update, by its names (org.freedesktop.systemd1(5)) and ours. It tells what came before
the kexec where it has carried that over by LUO itself.
"""


class Offset(NamedTuple):
    """CLOCK_REALTIME less the RTC, in microseconds, and how exact that is."""

    offset_usec: int
    within_usec: int


def now() -> int:
    return time.time_ns() // 1000


def since_boot() -> int:
    """CLOCK_REALTIME less the time since the kernel started: when that was."""
    return (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1000


def monotonic_offset() -> int:
    """CLOCK_REALTIME less CLOCK_MONOTONIC."""
    return (time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) // 1000


def process_began(process: str, root: Path = Path("/")) -> int | None:
    """When a process of /proc started, in steps of 10 ms; None where that can't be told."""
    try:
        # The second field is the command's name in parentheses, whatever is in that.
        fields = (root / f"proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        ticks = int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
    return since_boot() + ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")


def rtc_offset(
    root: Path = Path("/"), patience: float = RTC_PATIENCE, is_over: Callable[[], bool] = lambda: False
) -> Offset | None:
    """Wait for an edge of the RTC's seconds; None where there is no RTC, it stands still, or the wait `is_over`."""
    deadline = time.monotonic() + patience
    try:
        with OwnedFd(os.open(root / _RTC, os.O_RDONLY | os.O_CLOEXEC)) as rtc:
            return _edge(rtc.fileno(), lambda: is_over() or time.monotonic() >= deadline)
    except (OSError, ValueError):
        return None


def _edge(rtc: int, is_over: Callable[[], bool]) -> Offset | None:
    last = before = None
    while not is_over():
        asked = now()
        second = int(os.pread(rtc, 32, 0))
        if last is not None and before is not None and second != last:
            # The edge came after the last answer was asked for, and before this one was there.
            after = now()
            return Offset((before + after) // 2 - second * 1_000_000, (after - before) // 2)
        last, before = second, asked
        time.sleep(_PAUSE)
    return None


def systemd_moments(monotonic_before: int | None, root: Path = Path("/")) -> Iterator[tuple[str, int]]:
    """What systemd knows: our names, and when that was, by the clock of the kernel that it was in.

    `monotonic_before` is the `monotonic_offset` of the last kernel.
    """
    if not (root / "run/systemd/system").is_dir():
        return
    names = {f"{name}TimestampMonotonic": name for name in (*_OF_THIS_BOOT, *_OF_THE_LAST_ONE)}
    try:
        said = systemctl("show", f"--property={','.join(names)}", patience=_SYSTEMCTL_PATIENCE)
    except CantAsk:
        return
    here = monotonic_offset()
    for line in said.out.splitlines():
        key, _, value = line.partition("=")
        name = names.get(key)
        if name is None or not value.isdecimal() or not int(value):
            continue
        if name in _OF_THIS_BOOT:
            yield _OF_THIS_BOOT[name], here + int(value)
        elif monotonic_before is not None:
            yield _OF_THE_LAST_ONE[name], monotonic_before + int(value)
