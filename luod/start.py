"""What luod takes over when it starts, and what it holds from then on."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from luod.config import Config
from luod.custody import Custodian
from luod.errors import KernelFailed
from luod.fds import FdBundle
from luod.flight import Recorder
from luod.holdings import Holdings
from luod.kernel.api import KernelError
from luod.kernel.device import PATH
from luod.kernel.find import kernel_at
from luod.kernel.shared import SharedKernel
from luod.policy import Policy
from luod.recovery import Recovered, RestoreImpossible, SecondLuod, recover
from luod.renewal import go_on
from luod.systemd import FdStore, Handed

if TYPE_CHECKING:
    from luod.origin import Origin

log = logging.getLogger(__name__)


class StartError(Exception):
    """luod can't start. The text says why, and what to do."""


@dataclass(frozen=True)
class Held:
    """What luod holds, where this boot can restore: closing it lets go of what nobody else has open."""

    kernel: SharedKernel
    holdings: Holdings
    custodian: Custodian
    recovered: Recovered

    @property
    def unclear(self) -> list[str]:
        """What the fd store brought that nobody knows, for people."""
        return self.recovered.unclear.said()

    def give_up(self) -> None:
        self.custodian.give_up_all()
        self.recovered.unclear.kept().close()
        if self.recovered.next_kernel is not None:
            self.recovered.next_kernel.close()


@dataclass(frozen=True)
class Nothing:
    """This boot can't restore."""

    impossible: RestoreImpossible
    allow_afresh: Callable[[], None]
    unclear: list[str] = field(default_factory=list)

    def give_up(self) -> None:
        self.impossible.give_up_all()


def take_over(
    config: Config,
    policy: Policy,
    changed: Callable[[], None],
    recorder: Recorder,
    kept: Sequence[Handed],
    fd_store: FdStore,
) -> Held | Nothing:
    """Take over what there is: `kept` is what the fd store brought. Raises StartError."""
    if config.device != PATH and _is_missing(config.device):
        FdBundle(each.fd for each in kept).close()
        raise StartError(f"{config.device}: there is no such device, nor a simulated kernel")
    try:
        kernel = SharedKernel(kernel_at(config.device))
        recovered = recover(kernel, fd_store, kept, lambda: _expected(config, kernel.boot_id))
    except RestoreImpossible as impossible:
        log.error("this boot can't give anything back: %s", impossible.reason)
        return Nothing(impossible, lambda: _allow_afresh(config.runtime_directory, kernel.boot_id))
    except SecondLuod as error:
        raise StartError(f"{error}: stop it first, or use another --device") from None
    except (KernelError, KernelFailed, OSError) as error:
        raise StartError(f"{config.device}: {error}") from None
    for note in (*recovered.notes, *(f"keeping what is unclear: {what}" for what in recovered.unclear.said())):
        log.warning("%s", note)
    holdings = Holdings(
        kernel,
        recovered.manifest,
        recovered.journal,
        fd_store,
        policy,
        changed=changed,
        there=recovered.there,
        note=recorder.note,
    )
    go_on(holdings, recovered.successors)
    return Held(kernel, holdings, Custodian(holdings), recovered)


def _is_missing(path: str) -> bool:
    """Whether nothing is there; nobody knows where luod mustn't look."""
    try:
        os.stat(path)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _expected(config: Config, boot_id: str) -> "Origin | None":
    """Where this kernel says that it comes from; None where it says nothing, or where nothing is to be missed."""
    from luod.kernel.find import machine_at
    from luod.origin import Afresh, origin_in

    if Afresh(config.runtime_directory, boot_id).is_allowed():
        return None
    return origin_in(machine_at(config.device).running.command_line())


def _allow_afresh(runtime_directory: Path, boot_id: str) -> None:
    from luod.origin import Afresh

    Afresh(runtime_directory, boot_id).allow()
