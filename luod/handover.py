"""The network on its way over, as far as luod sees to it: luoctl writes it down and sets it up again.

luod itself has no part in netlink, and imports nothing of luod.network.
"""

import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from luod import child
from luod.errors import LuodError
from luod.fds import OwnedFd
from luod.names import NETWORK_REPORT
from luod.systemd import SNAPSHOT_SERVICE, CantAsk, systemctl

PATIENCE: Final = 60.0
"""How long it may take to write the network down, in seconds."""

TOLD_MAX: Final = 20
"""How many reasons are told of each kind."""

_REASON_MAX: Final = 500
"""How much of each, in letters."""

_NUMBER_MAX: Final = 1 << 53

REPORT_MAX: Final = 16 << 20
"""How large a report can be, in bytes."""


class NotWrittenDown(LuodError):
    """The network isn't as it is now in what goes over. The text says why."""


class BadReport(LuodError):
    """The report can't be read. The text says why."""


def write_down_by_unit() -> None:
    """Have the unit take a snapshot of what is configured. Blocks. Raises NotWrittenDown."""
    try:
        said = systemctl("reload", SNAPSHOT_SERVICE, patience=PATIENCE)
    except CantAsk as error:
        raise NotWrittenDown(str(error)) from None
    if said.status:
        why = " ".join(said.err.split()) or f"systemctl reload ended with status {said.status}"
        raise NotWrittenDown(f"{SNAPSHOT_SERVICE}: {why}")


def write_down_by_child(patterns: Sequence[str], socket: Path, runtime_directory: Path) -> None:
    """The same without systemd."""
    to = ["--socket", str(socket), "network", "snapshot", "--runtime-directory", str(runtime_directory)]
    ended = child.run("luod.ctl", *to, "--", *patterns, patience=PATIENCE)
    if ended.status is None:
        raise NotWrittenDown("luoctl network snapshot doesn't end")
    if ended.late:
        raise NotWrittenDown(f"luoctl network snapshot: no end for {PATIENCE:g} s")
    if ended.status:
        last = ended.err.rpartition("\n")[2].removeprefix("luoctl: ")
        raise NotWrittenDown(last or f"luoctl network snapshot ended with status {ended.status}")


def last_report(runtime_directory: Path) -> dict[str, Any] | None:
    """What came of the network that came over, as io.luod.Update.Status has it; None where nothing was set up since the
    host started. Raises BadReport.
    """
    said = report_in(runtime_directory)
    if said is None:
        return None
    try:
        taken, failed, left = said.get("taken"), said["failed"], said["left"]
        told = {
            "takenUSec": None if taken is None else round(taken * 1e6),
            "appliedUSec": round(said["applied"] * 1e6),
            "done": int(said["done"]),
            "equal": int(said["equal"]),
            "failed": len(failed),
            "left": len(left),
            "reasons": [_short(f"{each['what']}: {each['reason']}") for each in islice(failed, TOLD_MAX)],
        }
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise BadReport(f"{NETWORK_REPORT} is no report") from None
    if any(abs(value) > _NUMBER_MAX for value in told.values() if isinstance(value, int)):
        raise BadReport(f"{NETWORK_REPORT} is no report")
    return {name: value for name, value in told.items() if value not in (None, [])}


def _short(reason: str) -> str:
    """What can be sent, and read."""
    return reason[:_REASON_MAX].encode(errors="replace").decode()


def report_in(runtime_directory: Path) -> Any:
    """What is in the report, whatever that is; None where there is none. Never blocks. Raises BadReport."""
    try:
        fd = OwnedFd(
            os.open(runtime_directory / NETWORK_REPORT, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadReport(f"{NETWORK_REPORT}: {error.strerror}") from None
    try:
        with fd, open(fd.fileno(), "rb", closefd=False) as file:
            data = file.read(REPORT_MAX + 1)
    except OSError as error:
        raise BadReport(f"{NETWORK_REPORT}: {error.strerror}") from None
    if data is None or len(data) > REPORT_MAX:
        raise BadReport(f"{NETWORK_REPORT} is no report")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadReport(f"{NETWORK_REPORT} is no JSON") from None
