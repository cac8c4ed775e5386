"""How luod leaves for the next kernel: ask those who take part, do the last things before, go; and every way back.

What was done on the way out is undone in the reverse order wherever it ends: owners are thawed and may change things
again, and those who were asked are told. Only a reboot that comes to it ends a live update otherwise.
"""

import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, TypeVar

import trio

from luod import errors
from luod.bell import Bell
from luod.carry_over import carry_over_all
from luod.facts import Facts
from luod.going import CameBack, depart
from luod.handover import NotWrittenDown
from luod.interface.update import Outcome
from luod.kernel.api import KernelError
from luod.lifecycle import Phase, State, Step, Unready, Via
from luod.means import Means
from luod.pause import at_work, freeze, thaw
from luod.preflight import all_is_lost, checks
from luod.update import Answer, LiveUpdate, Participant, Updates, Watcher, covers, participants

log = logging.getLogger(__name__)

_TOLD: Final = 0.5
"""How long whoever began it may take to hear that it goes, in seconds."""

_IDLE_TICK: Final = 1.0
_LAST_TICK: Final = 0.002
"""How often the flight recorder is told that luod is alive, in seconds: at most times, and right before the end."""

T = TypeVar("T")


class Departures:
    """Goes through with each live update that is begun, one after the other."""

    def __init__(self, updates: Updates, means: Means, bell: Bell) -> None:
        self._updates = updates
        self._means = means
        self._bell = bell
        self._hasty = trio.Event()

    async def run(self) -> None:
        """For ever. Cancelled, as when luod is stopped, it brings back what it can."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tick)
                heard = 0
                while True:
                    while (update := self._updates.current) is None:
                        heard = await self._bell.wait(heard)
                    nursery.start_soon(_in_thread, self._means.recorder.measure_clock)
                    await self._go_through(update)
        finally:
            self._means.next_kernel.close()

    async def _tick(self) -> None:
        """Let the flight recorder know that luod is alive, often when it may soon be over."""
        while True:
            self._means.recorder.tick()
            with trio.move_on_after(_IDLE_TICK):
                await self._hasty.wait()
                await trio.sleep(_LAST_TICK)

    async def _go_through(self, update: LiveUpdate) -> None:
        """One live update, until it is over. Nothing but a reboot ends it without somebody being told."""
        try:
            await self._leave(update)
        except (errors.PreflightFailed, errors.UpdateAborted) as error:
            self._over(update, error)
        except (errors.WireError, CameBack, KernelError, OSError) as error:
            self._over(update, errors.UpdateAborted(str(error)))
        except trio.Cancelled:
            if not update.is_on_its_way:
                self._over(update, errors.UpdateAborted("luod stops"))
            raise
        except Exception:
            # Whatever this is, it must not end the process, which holds the sessions.
            log.exception("live update %d failed", update.number)
            self._over(update, errors.UpdateAborted("luod failed, its log says how"))

    def _over(self, update: LiveUpdate, error: errors.WireError) -> None:
        log.info("live update %d comes to nothing: %s", update.number, error)
        self._means.recorder.note("aborted", reason=str(error))
        self._updates.end(error)

    # On the way out

    async def _leave(self, update: LiveUpdate) -> None:
        means, updates = self._means, self._updates
        log.info("live update %d begins, by %s", update.number, update.via)
        means.recorder.note("prepare", via=update.via)
        updates.go_on("preflight")
        facts = await self._require_good(update)
        await self._write_network_down(update)
        await self._ask_all(update)
        await self._carry_over(update)
        if update.via is Via.DIRECT:
            updates.go_on("what is written goes to disk")
            await _in_thread(os.sync)
        updates.go_on("the next kernel is loaded again")
        await _in_thread(lambda: means.next_kernel.load_again(expecting=not all_is_lost(facts)))
        means.recorder.note("loaded")
        await self._require_good(update)
        self._require_still_there(update)
        async with AsyncExitStack() as undo:
            if update.via is Via.DIRECT:
                self._hasty.set()
                undo.callback(self._take_time)
                await undo.enter_async_context(self._paused(update))
                await undo.enter_async_context(self._sealed(update))
            updates.step(Step.EXECUTE)
            await self._until_told(update)
            await self._go(update)

    def _take_time(self) -> None:
        self._hasty = trio.Event()

    async def _carry_over(self, update: LiveUpdate) -> None:
        """Preserve again what came over with the last live update. Raises UpdateAborted where it would be lost."""
        self._updates.go_on("what came over is preserved again")
        await carry_over_all(self._means.custodian)
        self._means.recorder.note("carried")
        left = [f"{name} of uid {uid}" for uid, name in self._means.custodian.exposed(claimed=True)]
        if left and not update.force:
            raise errors.UpdateAborted(f"it can't be preserved again: session {', '.join(left)}")

    async def _write_network_down(self, update: LiveUpdate) -> None:
        """While all are still at work, for it takes a second. Raises UpdateAborted where the network would go over as
        it was some time ago, or not at all.
        """
        means = self._means
        links = means.handover()
        if not links:
            return
        self._updates.go_on("the network is written down")
        began = time.monotonic()
        try:
            await self._unless_aborted(update, lambda: means.write_network_down(links))
        except (NotWrittenDown, OSError) as error:
            if not update.force:
                raise errors.UpdateAborted(f"the network can't be written down: {error}") from None
            log.warning("live update %d goes on although the network isn't written down: %s", update.number, error)
        else:
            means.recorder.note("network")
        # Those who take part have as long as they were given, whatever was waited for before they are asked.
        update.deadline_usec += round((time.monotonic() - began) * 1e6)

    async def _unless_aborted(self, update: LiveUpdate, work: Callable[[], None]) -> None:
        """Do what may block for long. Whoever aborts needn't wait for it: it goes on alone, and nobody hears of it.
        Raises UpdateAborted, and what `work` does.
        """
        ended: list[Exception | None] = []

        def do() -> None:
            try:
                work()
                ended.append(None)
            except Exception as error:
                ended.append(error)
            with suppress(trio.RunFinishedError):
                self._bell.ring()

        heard = self._bell.rings
        threading.Thread(target=do, daemon=True).start()
        while not ended and update.abort_reason is None:
            heard = await self._bell.wait(heard)
        self._updates.go_on()  # raises where it is aborted
        if ended[0] is not None:
            raise ended[0]

    async def _require_good(self, update: LiveUpdate) -> Facts:
        """Look at everything. Raises PreflightFailed, unless the operator knows and goes all the same: if anywhere."""
        facts = await _in_thread(lambda: self._means.look(update.via))
        failed = [check.name for check in checks(facts) if check.outcome is Outcome.FAIL]
        if failed and (not update.force or facts.loaded is None):
            raise errors.PreflightFailed(failed)
        for name in failed:
            log.warning("live update %d goes on in spite of a failed check: %s", update.number, name)
        return facts

    async def _until_told(self, update: LiveUpdate) -> None:
        """Whoever began it shall know that it went, and not take the end of luod for a failure."""
        with trio.move_on_after(_TOLD):
            heard = self._bell.rings
            while update.told is not Phase.EXECUTING:
                heard = await self._bell.wait(heard)

    async def _go(self, update: LiveUpdate) -> None:
        """Go; PID 1 goes later, and stops luod before."""
        means = self._means
        means.recorder.note("leaving", via=update.via)
        await _in_thread(lambda: depart(update.via, means.machine, means.runtime_directory))
        update.is_on_its_way = True  # PID 1 has begun, and stops luod as it stops all
        await trio.sleep_forever()

    # Those who take part

    async def _ask_all(self, update: LiveUpdate) -> None:
        """Wait until all are ready, stage by stage. Raises UpdateAborted, where it doesn't go on without them."""
        updates = self._updates
        updates.go_on("those who take part get ready")
        sessions = await _in_thread(self._means.custodian.sessions)
        asked = updates.gather(participants(updates.watchers.participants(), sessions))
        late = update.deadline_usec / 1e6 - time.time()
        with trio.move_on_after(max(0.0, late)):
            for stage in asked:
                updates.ask(stage)
                await self._until_ready(update, stage)
        missing = update.not_ready()
        for each in missing:
            self._means.recorder.note("unready", each.who, reason=each.said)
        if missing and not _goes_on_without(update, missing):
            raise errors.UpdateAborted(f"not ready in time: {'; '.join(map(str, missing))}")
        updates.step(Step.PROCEED if missing else Step.ALL_READY)

    async def _until_ready(self, update: LiveUpdate, stage: int) -> None:
        """Wait for those of a stage, as long as there is hope for it and those before it. Raises UpdateAborted."""
        heard, noted = self._bell.rings, set[str]()
        while True:
            self._updates.go_on()
            those = [each for each in update.participants if each.stage == stage]
            for each in those:
                if each.answer is Answer.READY and each.watcher.secret not in noted:
                    noted.add(each.watcher.secret)
                    self._means.recorder.note("ready", each.who)
            before = [each for each in update.participants if each.stage <= stage]
            never = [each for each in before if each.answer in (Answer.VETO, Answer.GONE)]
            if never and not _goes_on_without(update, never):
                raise errors.UpdateAborted("; ".join(map(str, never)))
            if all(each.answer is not Answer.NONE for each in those):
                return
            heard = await self._bell.wait(heard)

    def _require_still_there(self, update: LiveUpdate) -> None:
        """Raises UpdateAborted where somebody was ready and has gone since, and it doesn't go on without them."""
        gone = [each for each in update.participants if each.answer is Answer.GONE]
        if gone and not _goes_on_without(update, gone):
            raise errors.UpdateAborted("; ".join(map(str, gone)))

    # What is undone where it doesn't come to the reboot

    @asynccontextmanager
    async def _sealed(self, update: LiveUpdate) -> AsyncIterator[None]:
        means = self._means
        try:
            await _in_thread(lambda: means.custodian.seal(update.number))
            means.recorder.note("sealed")
            self._updates.step(Step.SEAL)
            yield
        finally:
            means.custodian.unseal()

    @asynccontextmanager
    async def _paused(self, update: LiveUpdate) -> AsyncIterator[None]:
        """Freeze the units of those owners who aren't ready themselves."""
        ready = [each.watcher for each in update.participants if each.answer is Answer.READY]
        units = await _in_thread(lambda: at_work(self._to_pause(ready)))
        try:
            if units:
                self._updates.go_on(f"paused: {', '.join(units)}")
                self._means.recorder.note("freeze", ", ".join(units))
                failed = await _in_thread(lambda: freeze(units, self._means.runtime_directory))
                for unit, why in failed.items():
                    log.warning("%s can't be paused: %s", unit, why)
                    self._means.recorder.note("unready", unit, reason=why)
                if failed and update.unready is not Unready.PROCEED:
                    raise errors.UpdateAborted("; ".join(f"{unit}: {why}" for unit, why in failed.items()))
            self._means.recorder.note("frozen", ", ".join(units) or None)
            yield
        finally:
            if units:
                with trio.CancelScope(shield=True):
                    for unit, why in (await _in_thread(lambda: thaw(self._means.runtime_directory))).items():
                        log.error("%s is still paused: %s", unit, why)

    def _to_pause(self, ready: Sequence[Watcher]) -> Iterator[str]:
        for session in self._means.custodian.sessions():
            is_at_work = session.state is not State.LOST and not session.is_of_network
            if session.unit and is_at_work and not any(covers(each, session) for each in ready):
                yield session.unit


def _goes_on_without(update: LiveUpdate, those: Iterable[Participant]) -> bool:
    """Whoever refuses is never gone on without, nor by force: that is about what the checks say."""
    return update.unready is Unready.PROCEED and all(each.answer is not Answer.VETO for each in those)


async def _in_thread(work: Callable[[], T]) -> T:
    """Do what may block; once begun it is not abandoned."""
    return await trio.to_thread.run_sync(work)
