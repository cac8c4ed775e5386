"""What systemd and its services say to each other: sockets handed over, readiness, where the log goes, units.

sd_notify(3), sd_listen_fds(3), systemd.exec(5).
"""

import logging
import os
import re
import socket
from pathlib import Path

from luod.fds import OwnedFd

log = logging.getLogger(__name__)

_FIRST = 3


def listen_fds() -> list[tuple[str, OwnedFd]]:
    """The descriptors that were handed to this process, with their names; close-on-exec from now on.

    The environment is cleared, so they can be taken only once and no child takes them for its own.
    """
    pid, count, names = (os.environ.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    numbers = range(_FIRST, _FIRST + int(count))
    for number in numbers:
        os.set_inheritable(number, False)  # noqa: FBT003 - it has no keyword
    known = names.split(":") if names else []
    known += ["unknown"] * (len(numbers) - len(known))
    return [(name, OwnedFd(number)) for name, number in zip(known, numbers, strict=False)]


def notify(*assignments: str) -> bool:
    """Tell the service manager, for instance `READY=1`. False where there is none to tell, or it can't be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            sock.send("\n".join(assignments).encode())
    except OSError as error:
        log.warning("the service manager at NOTIFY_SOCKET=%s can't be told %s: %s", address, assignments[0], error)
        return False
    return True


def logs_to_journal() -> bool:
    """Whether stderr is the journal, which understands a `<priority>` before each line."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def unit_of(pid: int) -> str | None:
    """The systemd unit that a process belongs to, or None. For people: by then the number may be another's."""
    try:
        cgroup = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    units = re.findall(r"(?<=/)[A-Za-z0-9:_.\\@-]+\.(?:service|scope)(?=/|$)", cgroup, re.MULTILINE)
    return units[-1] if units else None
