"""Pause services and scopes, by systemd's freezer: what owners do while the machine goes into the next kernel.

systemd does it; luod asks it by `systemctl`, which needs D-Bus for that. What is paused is in the file `frozen` of the
runtime directory: should luod die, its next start lets them go on. Every call blocks and belongs in a thread.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from luod.systemd import KEXEC_SERVICE, SERVICE, CantAsk, shown, systemctl, systemd_analyze, systemd_runs, unit_of

FROZEN: Final = "frozen"

PATIENCE: Final = 10.0
"""How long systemctl may take for all units together, in seconds. Others wait meanwhile."""

NEVER: Final = frozenset({"init.scope", "dbus.service", "dbus-broker.service", SERVICE, KEXEC_SERVICE})
"""Without these nobody could let anything go on."""

_NEVER_CARRIED: Final = ("socket:", "pipe:", "anon_inode:inotify")
"""How the paths of files begin that no kernel takes over: every machine has the journal's sockets, and udev's watch."""

_FAILED: Final = re.compile(r"^Failed to .*unit (\S+): (.*)$", re.MULTILINE)


def at_work(units: Iterable[str]) -> list[str]:
    """Those of these in which anything may run. An owner may have stopped since: nobody writes there."""
    wanted = sorted(set(units))
    if not wanted or not systemd_runs():
        return wanted
    try:
        states = {
            unit["Id"]: unit.get("ActiveState") for unit in shown(["Id", "ActiveState"], *wanted, patience=PATIENCE)
        }
    except CantAsk:
        return wanted
    return [unit for unit in wanted if states.get(unit) not in ("inactive", "failed")]


def freeze(units: Iterable[str], runtime_directory: Path) -> dict[str, str]:
    """Pause all of these. Which of them are not, and why; what is paused then still is.

    Some that are not may be half-way there: whoever doesn't go on without them lets all go on, by `thaw`.
    """
    wanted = list(dict.fromkeys(units))
    failures = {unit: why for unit in wanted if (why := why_never(unit))}
    possible = [unit for unit in wanted if unit not in failures]
    if not possible:
        return failures
    record = runtime_directory / FROZEN
    record.write_text("".join(f"{unit}\n" for unit in dict.fromkeys([*_recorded(record), *possible])))
    return failures | _change("freeze", possible, into="frozen")


def thaw(runtime_directory: Path) -> dict[str, str]:
    """Let all go on that this luod, or one before it, has paused. Which of them don't, and why: they are tried again by
    the next call.
    """
    record = runtime_directory / FROZEN
    units = _recorded(record)
    if not units:
        return {}
    failures = _change("thaw", units, into="running")
    if failures:
        record.write_text("".join(f"{unit}\n" for unit in failures))
    else:
        record.unlink()
    return failures


def why_never(unit: str) -> str | None:
    """Why a unit isn't paused, whatever systemd could do; None where it may be."""
    if unit in NEVER or unit == unit_of(os.getpid()):
        return "luod itself needs it"
    if not unit.endswith((".service", ".scope")):
        return "only services and scopes are paused"
    return None if systemd_runs() else "there is no systemd"


def _recorded(record: Path) -> list[str]:
    try:
        return record.read_text().split()
    except FileNotFoundError:
        return []


def _change(verb: str, units: Sequence[str], *, into: str) -> dict[str, str]:
    """Have systemd change all of these. What counts is how they are afterwards."""
    said = ""
    try:
        said = systemctl(verb, *units, patience=PATIENCE).err
    except CantAsk as error:
        said = str(error)
    why = dict(_FAILED.findall(said))
    try:
        states = {unit["Id"]: unit["FreezerState"] for unit in shown(["Id", "FreezerState"], *units, patience=PATIENCE)}
    except CantAsk as error:
        return {unit: why.get(unit, str(error)) for unit in units}
    left = {unit: state for unit in units if not (state := states.get(unit, "gone")).startswith(into)}
    of_all = "" if why else said.strip()
    return {unit: why.get(unit) or of_all or f"it is {state}" for unit, state in left.items()}


def other_stores() -> dict[str, int]:
    """The services, but luod's, whose file descriptor store is to outlive them, and how much is in it that only PID 1
    itself can carry into the next kernel. Raises CantAsk; without systemd there are none.
    """
    if not systemd_runs():
        return {}
    services = shown(["Id", "FileDescriptorStorePreserve", "NFileDescriptorStore"], "*.service", patience=PATIENCE)
    ours = {SERVICE, unit_of(os.getpid())}
    stores = {
        unit["Id"]: _to_carry(unit["Id"], int(unit["NFileDescriptorStore"]))
        for unit in services
        if unit["Id"] not in ours
        and unit.get("FileDescriptorStorePreserve") == "yes"
        and unit.get("NFileDescriptorStore", "0") != "0"
    }
    return {unit: entries for unit, entries in stores.items() if entries}


def _to_carry(unit: str, entries: int) -> int:
    """How many of a unit's entries a kernel may take over. All, where systemd doesn't say which they are."""
    try:
        paths = [str(entry["path"]) for entry in json.loads(systemd_analyze("--json=short", "fdstore", unit).out)]
    except (CantAsk, ValueError, TypeError, KeyError):
        return entries
    return sum(not path.startswith(_NEVER_CARRIED) for path in paths)
