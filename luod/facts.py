"""The facts that preflight looks at, and how they are gathered: from luod, the kernel, and systemd."""

import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from luod.custody import Custodian
from luod.kernel.api import KernelError
from luod.kernel.image import Image
from luod.kernel.running import NotKnown
from luod.kernel.shared import SharedKernel
from luod.lifecycle import Via
from luod.manifest import Session
from luod.next_kernel import NextKernel
from luod.pause import at_work, why_never
from luod.sealed import Loaded
from luod.systemd import (
    KEXEC_SERVICE,
    NETWORK_SERVICES,
    CantAsk,
    FdStore,
    shown,
    systemd_runs,
    unit_of,
)

EXITRD: Final = "run/initramfs/shutdown"
"""Where it is, systemd-shutdown goes into it, and carries nothing over; luod finds its sessions by name then."""

_NO_SERVICE: Final = NotKnown("luod is no service of systemd's")
_NOT_LOOKED_FOR: Final = NotKnown("nobody has looked")


@dataclass(frozen=True)
class Unit:
    """The service that luod is, as systemd has it. `systemd` is its version.

    `changed`: its files are others by now.
    """

    name: str
    systemd: int
    keeps: bool
    limit: int
    survives: bool
    changed: bool


@dataclass(frozen=True)
class NetworkUnits:
    """Of what hands the network over: whether it will be set up in the next kernel, and can be written down in this."""

    sets_up: bool
    writes_down: bool


@dataclass(frozen=True)
class Facts:
    """All that the checks look at. `asked` are the ids of those sessions whose owner is asked before.

    `holder` is who has the device open. `journal_room` is in bytes, and `journal_needs` what an update may write.
    `goes_at_once`: there is what goes into the next kernel for luod. `unpausable` are units that systemd can't pause,
    and why; `stores` what other services' fd stores have in them. `handover` are the links that are to go over,
    `network_units` what sees to that; None where luod does it itself.
    """

    via: Via
    device: str
    device_error: KernelError | None = None
    holder: str | None = None
    is_simulated: bool = False
    release: str = ""
    running: Image | NotKnown = _NOT_LOOKED_FOR
    running_line: str = ""
    loaded: Loaded | None = None
    any_is_loaded: bool = False
    sessions: Sequence[Session] = ()
    asked: frozenset[int] = frozenset()
    unclear: Sequence[str] = ()
    journal_room: int = 0
    journal_needs: int = 0
    has_systemd: bool = False
    goes_at_once: bool = True
    unit: Unit | NotKnown = _NO_SERVICE
    exitrd: bool = False
    entries: int = 0
    most: int = 0
    unpausable: Mapping[str, str] = field(default_factory=dict)
    stores: Mapping[str, int] | NotKnown = field(default_factory=dict)
    handover: Sequence[str] = ()
    network_units: NetworkUnits | NotKnown | None = None


@dataclass(frozen=True)
class Sources:
    """Where the facts come from. `asked` says whether a session's owner is asked before the machine goes.

    `other_stores` counts what other services have in theirs (`pause.other_stores`), and raises CantAsk.
    """

    device: str
    kernel: SharedKernel
    next_kernel: NextKernel
    custodian: Custodian
    fd_store: FdStore
    unclear: Sequence[str]
    asked: Callable[[Session], bool]
    other_stores: Callable[[], Mapping[str, int]]
    is_service: bool
    handover: Callable[[], Sequence[str]] = tuple
    root: Path = Path("/")


def gather(via: Via, sources: Sources) -> Facts:
    """Look at everything. Blocks for seconds. Raises OSError where the machine can't be looked at."""
    machine, custodian = sources.next_kernel.machine, sources.custodian
    running = machine.running
    failed = _failure_of(sources.kernel)
    sessions = custodian.sessions()
    room, needs = custodian.journal_room()
    asked = frozenset(session.id for session in sessions if sources.asked(session))
    to_pause = {
        session.unit
        for session in sessions
        if session.unit is not None and session.id not in asked and not session.is_of_network
    }
    real, handover = not machine.is_simulated, sources.handover()
    return Facts(
        via=via,
        device=sources.device,
        device_error=failed,
        holder=_holder_of(sources.device) if failed is not None and failed.errno == errno.EBUSY else None,
        is_simulated=machine.is_simulated,
        release=running.release(),
        running=sources.next_kernel.running_image(),
        running_line=running.command_line(),
        loaded=sources.next_kernel.loaded,
        any_is_loaded=running.an_image_is_loaded(),
        sessions=sessions,
        asked=asked,
        unclear=sources.unclear,
        journal_room=room,
        journal_needs=needs,
        has_systemd=real and systemd_runs(),
        goes_at_once=not real or via is Via.SYSTEMD or _can_go_at_once(),
        unit=_our_unit() if real and sources.is_service else _NO_SERVICE,
        exitrd=(sources.root / EXITRD).exists(),
        entries=len(sources.fd_store),
        most=sources.fd_store.most,
        unpausable=_unpausable(at_work(to_pause)) if via is Via.DIRECT else {},
        stores=_stores_of(sources.other_stores) if real and via is Via.DIRECT else {},
        handover=handover,
        network_units=_network_units() if real and sources.is_service and handover else None,
    )


def _failure_of(kernel: SharedKernel) -> KernelError | None:
    try:
        with kernel.device():
            return None
    except KernelError as error:
        return error


def _holder_of(device: str) -> str | None:
    """Which process has it open, as far as luod may look."""
    target = os.path.realpath(device)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) == target for fd in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # it is gone, or another's
    return None


def _our_unit() -> Unit | NotKnown:
    name = unit_of(os.getpid())
    if name is None:
        return NotKnown("the control group of luod is no unit's")
    asked = ("FileDescriptorStorePreserve", "FileDescriptorStoreMax", "SurviveFinalKillSignal", "NeedDaemonReload")
    try:
        version = _shown_of(["Version"]).get("Version", "")
        ours = _shown_of(asked, name)
    except CantAsk as error:
        return NotKnown(str(error))
    number, limit = re.match(r"\d+", version), ours.get("FileDescriptorStoreMax", "")
    if number is None or not limit.isdecimal():
        return NotKnown("systemctl show doesn't tell it")
    return Unit(
        name=name,
        systemd=int(number[0]),
        keeps=ours.get("FileDescriptorStorePreserve") == "yes",
        limit=int(limit),
        survives=ours.get("SurviveFinalKillSignal") == "yes",
        changed=ours.get("NeedDaemonReload") == "yes",
    )


def _can_go_at_once() -> bool:
    """Whether there is what goes into the next kernel for luod; without systemd, luod itself starts it."""
    try:
        return not systemd_runs() or _shown_of(["LoadState"], KEXEC_SERVICE).get("LoadState") == "loaded"
    except CantAsk:
        return False


def _unpausable(units: Sequence[str]) -> dict[str, str]:
    """Which of these can't be paused, and why."""
    never = {unit: why for unit in units if (why := why_never(unit))}
    wanted = [unit for unit in units if unit not in never]
    if not wanted:
        return never
    try:
        can = {unit.get("Id"): unit.get("CanFreeze") for unit in shown(["Id", "CanFreeze"], *wanted)}
    except CantAsk as error:
        return never | dict.fromkeys(wanted, str(error))
    return never | {unit: "it is no unit of systemd's that can be" for unit in wanted if can.get(unit) != "yes"}


def _stores_of(other_stores: Callable[[], Mapping[str, int]]) -> Mapping[str, int] | NotKnown:
    try:
        return other_stores()
    except CantAsk as error:
        return NotKnown(str(error))


def _network_units() -> NetworkUnits | NotKnown:
    try:
        units = {unit["Id"]: unit for unit in shown(["Id", "UnitFileState", "ActiveState"], *NETWORK_SERVICES)}
    except (CantAsk, KeyError) as error:
        return NotKnown(str(error))
    sets_up, writes_down = (units.get(name, {}) for name in NETWORK_SERVICES)
    return NetworkUnits(
        sets_up=sets_up.get("UnitFileState") in ("enabled", "enabled-runtime"),
        writes_down=writes_down.get("ActiveState") in ("active", "reloading"),
    )


def _shown_of(properties: Iterable[str], *unit: str) -> dict[str, str]:
    """These properties of one, as far as they are told. Raises CantAsk."""
    return next(iter(shown(properties, *unit)), {})
