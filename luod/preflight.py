"""What a live update would meet now: each check is a function of facts alone, that `luod.facts` gathers. No I/O.

A check fails where something would be lost, or may be and nobody can tell. It says what was found, what an operator can
do about it, and what would be lost.
"""

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from luod.facts import EXITRD, Facts, Unit
from luod.interface.update import Check, Outcome
from luod.kernel.api import Call
from luod.kernel.cmdline import KHO, LIVE_UPDATE, is_on, turns_on_live_update
from luod.kernel.image import Image
from luod.kernel.running import NotKnown
from luod.lifecycle import Mode, State, Via
from luod.manifest import Session
from luod.systemd import CARRIES, KEXEC_SERVICE, NETWORK_SERVICE, SNAPSHOT_SERVICE, SURVIVES

NAMED_MAX: Final = 20
"""How many sessions, or others, are named; the rest is counted."""

_LOAD: Final = "luoctl load KERNEL --reuse-cmdline"
_SHOW: Final = "luoctl load KERNEL --reuse-cmdline --running FILE, with the image that this kernel came from"


class _Found(NamedTuple):
    """What came of a check."""

    outcome: Outcome
    detail: str
    remedy: str | None = None
    loses: Sequence[str] = ()


def _good(detail: str) -> _Found:
    return _Found(Outcome.PASS, detail)


def _doubtful(detail: str, remedy: str | None = None) -> _Found:
    return _Found(Outcome.WARN, detail, remedy)


def _bad(detail: str, remedy: str, loses: Sequence[str] = ()) -> _Found:
    return _Found(Outcome.FAIL, detail, remedy, loses)


def checks(facts: Facts) -> list[Check]:
    """What came of each check, in the order of the table."""
    found = [(name, check(facts)) for name, check in CHECKS.items()]
    return [
        Check(name=name, outcome=outcome, detail=detail, remedy=remedy, loses=list(loses) or None)
        for name, (outcome, detail, remedy, loses) in found
    ]


def all_is_lost(facts: Facts) -> bool:
    """Whether the next kernel takes over nothing for sure: whoever goes there all the same wants it to begin afresh."""
    if facts.loaded is None or turns_on_live_update(facts.loaded.command_line) is False:
        return True
    theirs = facts.loaded.image
    if isinstance(facts.running, NotKnown):
        return not theirs.abi.luo
    ours = facts.running
    return not (ours.abi.kho <= theirs.abi.kho and ours.abi.luo <= theirs.abi.luo and _pages_agree(ours, theirs))


# The device, and the next kernel


def _device(facts: Facts) -> _Found:
    failed = facts.device_error
    if failed is None:
        return _good(f"{facts.device} works, and nobody else holds it")
    if (failed.call, failed.errno) == (Call.OPEN, errno.EBUSY):
        holder = facts.holder or "another process"
        look = f"stop it: `fuser -v {facts.device}` says who it is" if facts.holder is None else "stop it"
        return _bad(f"{holder} holds {facts.device}", look, _everything(facts))
    return _bad(f"{facts.device}: {failed.meaning}", "luoctl status says what this boot can do", _everything(facts))


def _image(facts: Facts) -> _Found:
    loaded = facts.loaded
    if loaded is None and facts.any_is_loaded:
        return _bad(
            "others have loaded the next kernel, and no kernel tells how: by the older kexec_load all would be lost",
            _LOAD,
            _everything(facts),
        )
    if loaded is None:
        return _bad("no kernel is loaded", _LOAD, _everything(facts))
    initrd = "without an initrd" if loaded.initrd_bytes is None else f"with an initrd of {loaded.initrd_bytes} bytes"
    what = f"Linux {loaded.image.release}, a {loaded.image.kind} {initrd}"
    if not facts.any_is_loaded:
        return _doubtful(
            f"{what}: luod has loaded it, but somebody has unloaded it; luod loads it again before it goes"
        )
    return _good(f"{what}, loaded by luod")


def _command_line(facts: Facts) -> _Found:
    if facts.loaded is None:
        return _doubtful("not known, because luod has loaded no kernel")
    line = facts.loaded.command_line
    match turns_on_live_update(line):
        case True:
            return _good(f"it turns live updates on: {LIVE_UPDATE}=on {KHO}=on")
        case False:
            missing = f"{KHO}=on" if is_on(line, LIVE_UPDATE) else f"{LIVE_UPDATE}=on"
            return _bad(
                f"the next kernel's command line lacks {missing}: it would take nothing over",
                _with(facts, f"{LIVE_UPDATE}=on {KHO}=on"),
                _everything(facts),
            )
    if _is_the_same_kernel(facts) and is_on(facts.running_line, KHO) is None:
        return _good(f"it turns live updates on: {LIVE_UPDATE}=on, and this kernel, the same, has KHO on by itself")
    return _bad(
        f"the next kernel's command line doesn't say {KHO}=on, and no image tells whether it is on without",
        _with(facts, f"{KHO}=on"),
        _everything(facts),
    )


def _with(facts: Facts, words: str) -> str:
    reused = facts.loaded is not None and is_on(facts.running_line, LIVE_UPDATE)
    return f'luoctl load KERNEL --cmdline "{"$(cat /proc/cmdline)" if reused else "..."} {words}"'


def _abi(facts: Facts) -> _Found:
    if facts.loaded is None:
        return _doubtful("not known, because luod has loaded no kernel")
    ours, theirs = facts.running, facts.loaded.image
    if not theirs.abi.luo:
        return _bad(
            f"Linux {theirs.release} has no Live Update Orchestrator", f"{_LOAD}, one that has it", _everything(facts)
        )
    if isinstance(ours, NotKnown):
        return _bad(f"in which forms this kernel, {facts.release}, hands over is {ours}", _SHOW, _everything(facts))
    other = f"{_LOAD}, one that knows {_joined(ours.abi.kho | ours.abi.luo)}"
    if ours.architecture != theirs.architecture:
        return _bad(
            f"it is for {theirs.architecture}, and this kernel for {ours.architecture}", other, _everything(facts)
        )
    if missing := ours.abi.kho - theirs.abi.kho:
        why = f"this kernel hands over as {_joined(missing)}, Linux {theirs.release} knows {_joined(theirs.abi.kho)}"
        return _bad(f"{why}: it would take nothing over", other, _everything(facts))
    if missing := ours.abi.luo - theirs.abi.luo:
        why = f"this kernel hands over as {_joined(missing)}, Linux {theirs.release} knows {_joined(theirs.abi.luo)}"
        return _bad(f"{why}: it would panic as it starts", other, _everything(facts))
    if not _pages_agree(ours, theirs):
        sizes = f"{ours.page_size or 'unknown'} and {theirs.page_size or 'unknown'} bytes"
        return _bad(f"their pages differ in size, {sizes}: it would take nothing over", other, _everything(facts))
    return _good(f"both know {_joined(ours.abi.kho | ours.abi.luo)}")


def _handlers(facts: Facts) -> _Found:
    """Which handler a delegated session needs, nobody knows: so the next kernel has to have all."""
    if facts.loaded is None:
        return _doubtful("not known, because luod has loaded no kernel")
    ours, theirs = facts.running, facts.loaded.image
    if isinstance(ours, NotKnown):
        return _bad(f"which handlers this kernel, {facts.release}, has is {ours}", _SHOW, _everything(facts))
    if not ours.abi.handlers:
        return _bad(
            f"which handlers this kernel, {facts.release}, has is not known, because its image doesn't tell",
            "luoctl update --force, where you know",
            _everything(facts),
        )
    if missing := ours.abi.handlers - theirs.abi.handlers:
        return _bad(
            f"Linux {theirs.release} lacks {_joined(missing)}, it has {_joined(theirs.abi.handlers)}: with a file of "
            "that kind it could open nothing of all that came over",
            f"{_LOAD}, one that knows {_joined(ours.abi.handlers)}",
            _everything(facts),
        )
    return _good(f"it has {_joined(ours.abi.handlers)}, all that this kernel has")


def _pages_agree(ours: Image, theirs: Image) -> bool:
    return ours.build_ids == theirs.build_ids or (ours.page_size is not None and ours.page_size == theirs.page_size)


def _is_the_same_kernel(facts: Facts) -> bool:
    if facts.loaded is None or isinstance(facts.running, NotKnown):
        return False
    return facts.loaded.image.build_ids == facts.running.build_ids


# What luod holds, and how it lives until the end


def _manifest(facts: Facts) -> _Found:
    if facts.unclear:
        what = list(facts.unclear)
        return _bad(
            f"the service manager has kept {_counted(len(what), 'thing')} that luod doesn't know",
            "if nobody misses it: systemctl stop luod.service, then systemctl clean --what=fdstore luod.service, "
            "which loses all that luod holds as well; or luoctl update --force",
            _bounded(what),
        )
    room = f"{facts.journal_room} bytes are free in the journal"
    if facts.journal_room < facts.journal_needs:
        return _doubtful(f"{room}, fewer than the {facts.journal_needs} that it may take: luod makes a larger one then")
    return _good(f"{room}; nothing is unclear")


def _unit(facts: Facts) -> _Found:
    if facts.is_simulated:
        return _good("a simulated kernel") if facts.via is Via.DIRECT else _no_systemd(facts, "a simulated kernel has")
    if facts.via is Via.DIRECT:
        return _unit_at_once(facts)
    if not facts.has_systemd:
        return _no_systemd(facts, "this machine has")
    if isinstance(facts.unit, NotKnown):
        return _bad(
            f"systemd would kill luod before the end: how it keeps what luod holds is {facts.unit}",
            "luoctl install-units, and run luod as luod.service; or luoctl update --via direct",
            _everything(facts),
        )
    return _unit_in_shutdown(facts, facts.unit)


def _no_systemd(facts: Facts, who: str) -> _Found:
    return _bad(f"{who} no systemd", "luoctl update --via direct")


def _unit_at_once(facts: Facts) -> _Found:
    if not facts.goes_at_once:
        return _bad(f"systemd doesn't know {KEXEC_SERVICE}, which goes into the next kernel", "luoctl install-units")
    return _good("luod holds everything until the kernel goes")


def _unit_in_shutdown(facts: Facts, unit: Unit) -> _Found:
    if unit.survives and unit.systemd >= SURVIVES:
        return _good(f"{unit.name} outlives the shutdown (SurviveFinalKillSignal=)")
    if unit.systemd < SURVIVES:
        return _bad(
            f"systemd {unit.systemd} kills luod, and drops what it holds",
            f"luoctl update --via direct; or systemd {SURVIVES}, better {CARRIES}",
            _everything(facts),
        )
    if unit.systemd < CARRIES:
        return _bad(
            f"systemd {unit.systemd} carries no fd store over, and kills {unit.name} before the end",
            "luoctl install-units (SurviveFinalKillSignal=yes); then systemctl restart luod.service",
            _everything(facts),
        )
    if not unit.keeps or not facts.most:
        return _bad(
            f"systemd {unit.systemd} would carry the fd store over, but {unit.name} has none that outlives it",
            "luoctl install-units (FileDescriptorStorePreserve=yes); then systemctl restart luod.service",
            _everything(facts),
        )
    if facts.exitrd:
        return _good(f"the shutdown ends in an exitrd (/{EXITRD}), which holds what systemd kept until the kernel goes")
    return _good(f"systemd {unit.systemd} carries over what luod holds")


def _fd_store(facts: Facts) -> _Found:
    if not facts.most:
        return _doubtful(
            "nobody keeps what luod holds: if luod dies before the end, all is lost", "luod supervise, or luod.service"
        )
    used = f"{facts.entries} of {facts.most} entries are used"
    unit = facts.unit
    lives_on = facts.via is Via.SYSTEMD and isinstance(unit, Unit) and unit.systemd >= CARRIES and not unit.survives
    if not lives_on:
        return _good(used)
    assert isinstance(unit, Unit)
    again = f"systemctl edit {unit.name}: FileDescriptorStoreMax={max(facts.most, facts.entries)}"
    if unit.changed:
        return _bad(
            f"{used}; how many may be in the next boot isn't known, because the files of {unit.name} have changed",
            "systemctl daemon-reload",
            _everything(facts),
        )
    if facts.entries > unit.limit:
        return _bad(
            f"{used}, but in the next boot there may be {unit.limit}: what finds no room is finished, which loses it",
            f"{again}; then systemctl daemon-reload",
            _everything(facts),
        )
    return _good(f"{used}; in the next boot there may be {unit.limit}")


# Owners, and others


def _incoming(facts: Facts) -> _Found:
    incoming = [session for session in facts.sessions if session.state is State.INCOMING]
    exposed = [session for session in incoming if session.mode is Mode.DELEGATED]
    ours = len(incoming) - len(exposed)
    carried = f"{_counted(ours, 'session')} that came over luod preserves again before" if ours else ""
    if exposed:
        return _bad(
            f"{_counted(len(exposed), 'delegated session')} that came over only the owner can preserve again",
            "ask the owners to finish them",
            _named(exposed),
        )
    return _good(carried or "nothing that came over is unfinished")


def _owners(facts: Facts) -> _Found:
    if facts.via is Via.SYSTEMD:
        return _good("systemd stops the owners of sessions in their order")
    left = [
        each
        for each in facts.sessions
        if each.state is not State.LOST and each.id not in facts.asked and not each.is_of_network
    ]
    free = [session for session in left if session.unit is None and session.state is State.OUTGOING]
    stuck = [session for session in left if session.unit in facts.unpausable]
    if not free and not stuck:
        return _good("all owners of sessions are asked, or paused")
    said = []
    if free:
        said.append(
            f"nobody is asked, or can be paused, for {', '.join(_named(free))}: what they change last may be torn"
        )
    if stuck:
        units = {session.unit: facts.unpausable[session.unit] for session in stuck if session.unit is not None}
        said.append("; ".join(f"{unit} can't be paused: {why}" for unit, why in units.items()))
        said.append("which ends the update")
    without = ", or --unready proceed" if stuck else ""
    remedy = f"have them take part (Watch with participate), or luoctl update --via systemd{without}"
    return _doubtful("; ".join(said), remedy)


def _stores(facts: Facts) -> _Found:
    if facts.via is Via.SYSTEMD:
        return _good("PID 1 sees to what it keeps for other services")
    if isinstance(facts.stores, NotKnown):
        return _bad(f"what PID 1 keeps for other services is {facts.stores}", "luoctl update --via systemd")
    if facts.stores:
        return _bad(
            f"what PID 1 keeps for {_counted(len(facts.stores), 'other service')} it can't carry over this way",
            "luoctl update --via systemd",
            _bounded([f"{count} kept for {unit}" for unit, count in sorted(facts.stores.items())]),
        )
    return _good("PID 1 keeps nothing for other services")


def _network(facts: Facts) -> _Found:
    if not facts.handover:
        return _good("nothing of the network is to go over")
    links = ", ".join(_bounded(facts.handover))
    units = facts.network_units
    if units is None:
        return _good(f"luod has luoctl write down {links}; in the next kernel, luoctl network apply is to be run")
    if isinstance(units, NotKnown):
        return _doubtful(f"whether {links} can go over is {units}")
    if not units.writes_down:
        return _doubtful(
            f"{SNAPSHOT_SERVICE} isn't active: {links} can't be written down, which ends the update",
            f"systemctl enable --now {NETWORK_SERVICE} {SNAPSHOT_SERVICE}",
        )
    if not units.sets_up:
        return _doubtful(
            f"{NETWORK_SERVICE} isn't enabled: nobody sets up {links} in the next kernel",
            f"systemctl enable {NETWORK_SERVICE}",
        )
    return _good(f"{SNAPSHOT_SERVICE} writes down {links}, and {NETWORK_SERVICE} sets that up")


CHECKS: Final[dict[str, Callable[[Facts], _Found]]] = {
    "device": _device,
    "image": _image,
    "command-line": _command_line,
    "abi": _abi,
    "handlers": _handlers,
    "manifest": _manifest,
    "unit": _unit,
    "fd-store": _fd_store,
    "incoming": _incoming,
    "owners": _owners,
    "stores": _stores,
    "network": _network,
}
"""Every check, by its name."""


def _everything(facts: Facts) -> list[str]:
    """All that there is to lose, a line each."""
    return _named(each for each in facts.sessions if each.state is not State.LOST)


def _named(sessions: Iterable[Session]) -> list[str]:
    return _bounded([f"{session.name} of uid {session.uid}" for session in sessions])


def _bounded(lines: Sequence[str]) -> list[str]:
    over = len(lines) - NAMED_MAX
    return [*lines[:NAMED_MAX], *([f"and {over} more"] if over > 0 else [])]


def _joined(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
