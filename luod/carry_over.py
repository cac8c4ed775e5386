"""What came over and nobody comes for: preserve it again, before the next live update drops it."""

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from luod.custody import Custodian
from luod.systemd import machine_is_going_down, notify

log = logging.getLogger(__name__)

_PATIENCE: Final = 60
"""How long it may take to carry a session over before the service manager takes luod for hung, in seconds."""


async def carry_over_late(custodian: Custodian, grace: Callable[[], float], changed: Callable[[], trio.Event]) -> None:
    """For ever: what nobody came for in `grace` seconds, and what becomes exposed later. `changed` is set when `grace`
    is another.
    """
    told: set[tuple[int, str]] = set()
    while True:
        with trio.move_on_after(grace()) as waiting:
            await changed().wait()
        if waiting.cancelled_caught:
            for session in custodian.exposed(claimed=False):
                await _carry_over(custodian, session, told, claimed=False)


async def finish_late(custodian: Custodian, patience: Callable[[], float], changed: Callable[[], trio.Event]) -> None:
    """For ever: end what nobody has come for in `patience` seconds; in 0 never. `changed` is set when it is another."""
    while True:
        with trio.move_on_after(patience() or math.inf) as waiting:
            await changed().wait()
        if waiting.cancelled_caught:
            for uid, name in custodian.unclaimed():
                await _finish(custodian, uid, name)


async def _finish(custodian: Custodian, uid: int, name: str) -> None:
    try:
        done = await trio.to_thread.run_sync(custodian.finish_unclaimed, uid, name)
    except Exception as error:
        # Whatever this is, it must not end the process, which holds the sessions.
        log.warning("session %s of uid %d, for which nobody came, can't be finished: %s", name, uid, error)
    else:
        if done:
            log.warning("finished session %s of uid %d: nobody came for it (finish_unclaimed_seconds)", name, uid)


async def carry_over_if_last(custodian: Custodian) -> None:
    """Before the machine goes down, carry over all that the next kexec would drop: owners have had their time."""
    if not custodian.exposed(claimed=True):
        return
    if await trio.to_thread.run_sync(machine_is_going_down):
        await carry_over_all(custodian)


async def carry_over_all(custodian: Custodian) -> None:
    """Carry over all that the next kexec would drop, as far as that goes: what doesn't is still exposed."""
    for session in custodian.exposed(claimed=True):
        await trio.to_thread.run_sync(notify, f"EXTEND_TIMEOUT_USEC={_PATIENCE * 1_000_000}")
        await _carry_over(custodian, session, set(), claimed=True)


async def _carry_over(
    custodian: Custodian, session: tuple[int, str], told: set[tuple[int, str]], *, claimed: bool
) -> None:
    uid, name = session
    try:
        done = await trio.to_thread.run_sync(partial(custodian.carry_over, uid, name, claimed=claimed))
    except Exception as error:
        # Whatever this is, it must not end the process, which holds the sessions.
        if session not in told:
            log.warning("session %s of uid %d is lost with the next live update: %s", name, uid, error)
        told.add(session)
    else:
        if done:
            log.info("carried session %s of uid %d over, for nobody came for it", name, uid)
