"""What luod leaves with. None of it is needed to serve the first client, so it is imported and made after that."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from luod.config import Config
from luod.custody import Custodian
from luod.facts import Facts, Sources, gather
from luod.flight import Recorder
from luod.going import came_back
from luod.handover import write_down_by_child, write_down_by_unit
from luod.interface.update import Check
from luod.kernel.find import machine_at
from luod.kernel.machine import Machine
from luod.lifecycle import Via
from luod.next_kernel import NextKernel
from luod.origin import Afresh, origin_in
from luod.pause import other_stores, thaw
from luod.preflight import checks
from luod.start import Held
from luod.systemd import FdStore, is_service
from luod.timeline import timeline
from luod.update import Updates, covers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Means:
    """The means of a live update. `usual_way` is taken where nobody says which; `look` gathers what a live update would
    meet now, and blocks. `handover` are the links that are to go over, and `write_network_down` has those written down:
    it blocks, and raises NotWrittenDown.
    """

    custodian: Custodian
    machine: Machine
    next_kernel: NextKernel
    recorder: Recorder
    runtime_directory: Path
    usual_way: Via
    look: Callable[[Via], Facts]
    handover: Callable[[], Sequence[str]]
    write_network_down: Callable[[Sequence[str]], None]

    def last_update(self) -> dict[str, Any] | None:
        """How the last one went, as io.luod.Update.Status has it."""
        generation = self.custodian.totals().generation
        told = timeline(generation, self.recorder.events(generation)) if generation else None
        if told is None or told.left is None:
            return None
        facts = {
            "generation": generation,
            "usec": told.left,
            "via": told.via,
            "blackoutUSec": told.blackout and told.blackout.usec,
        }
        return {name: value for name, value in facts.items() if value is not None}

    def preflight(self, via: Via) -> list[Check]:
        """What came of each check. Blocks."""
        return checks(self.look(via))


def means_of(
    held: Held,
    config: Config,
    fd_store: FdStore,
    updates: Updates,
    recorder: Recorder,
    handover: Callable[[], Sequence[str]],
) -> Means:
    """Make them. What an earlier luod has left half-way on its way out is undone."""
    machine = machine_at(config.device)
    _undo(config.runtime_directory)
    if origin_in(machine.running.command_line()) is not None:
        _expect_nothing_more(config.runtime_directory, held.kernel.boot_id)
    under_systemd = not machine.is_simulated and is_service()
    brought, held.recovered.next_kernel = held.recovered.next_kernel, None
    next_kernel = NextKernel(machine, fd_store, held.holdings, brought)
    sources = Sources(
        config.device,
        held.kernel,
        next_kernel,
        held.custodian,
        fd_store,
        held.unclear,
        asked=lambda session: any(covers(watcher, session) for watcher in updates.watchers.participants()),
        other_stores=other_stores,
        is_service=under_systemd,
        handover=handover,
    )
    by_child = partial(write_down_by_child, socket=config.socket, runtime_directory=config.runtime_directory)
    return Means(
        held.custodian,
        machine,
        next_kernel,
        recorder,
        config.runtime_directory,
        usual_way=Via.SYSTEMD if under_systemd else Via.DIRECT,
        look=lambda via: gather(via, sources),
        handover=handover,
        write_network_down=(lambda _: write_down_by_unit()) if under_systemd else by_child,
    )


def _undo(runtime_directory: Path) -> None:
    if (why := came_back(runtime_directory)) is not None:
        log.warning("a live update came to nothing: %s", why)
    for unit, why in thaw(runtime_directory).items():
        log.error("%s is still paused: %s", unit, why)


def _expect_nothing_more(runtime_directory: Path, boot_id: str) -> None:
    """What there is came over. What a later start lacks was lost in this boot, which is no live update's fault."""
    try:
        Afresh(runtime_directory, boot_id).allow()
    except OSError as error:
        log.warning("where nobody keeps what luod holds, the next start misses what came over: %s", error)
