"""What each method of io.luod.Update does: the live update itself, for operators."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from luod import errors
from luod.custody import Custodian
from luod.fds import OwnedFd
from luod.handover import BadReport, last_report
from luod.interface import update
from luod.later import Later
from luod.lifecycle import Phase, State, Unready
from luod.manifest import Session
from luod.methods import Answer, Answers, Request, answer, restored
from luod.policy import Policy
from luod.recovery import RestoreImpossible
from luod.systemd import FdStore
from luod.update import DEADLINE, LiveUpdate, Participant, Progress, Updates, Watcher, participants

if TYPE_CHECKING:
    from luod.means import Means

NOT_KEPT: Final = "nobody keeps what luod holds when it ends (no fd store): start it by systemd or luod supervise"
NO_MEANS: Final = "there can be no live update by this luod: it failed as it started, its log says how"


class Operations:
    """The methods. Each blocks, and runs in a thread of its caller's."""

    def __init__(
        self,
        there: Custodian | RestoreImpossible,
        policy: Policy,
        updates: Updates,
        means: "Later[Means]",
        device: str,
        runtime_directory: Path,
        fd_store: FdStore,
        unclear: Sequence[str],
        start_afresh: Callable[[], None],
    ) -> None:
        """`unclear` is what the fd store brought back that nobody knows; `start_afresh` lets luod start anew, and begin
        with nothing.
        """
        self._there = there
        self._policy = policy
        self._updates = updates
        self._later = means
        self._device = device
        self._runtime_directory = runtime_directory
        self._fd_store = fd_store
        self._unclear = list(unclear)
        self._start_afresh = start_afresh

    @property
    def _custodian(self) -> Custodian:
        """Raises RestoreUnavailable."""
        return restored(self._there)

    @property
    def _means(self) -> "Means":
        """Raises RestoreUnavailable, and UpdateAborted where this luod has none."""
        _ = self._custodian
        return self._later.get()

    # The next kernel

    def load_kernel(self, request: Request) -> Answers:
        asked: update.LoadKernelParameters = request.parameters
        self._policy.require_operator(request.peer.uid)
        self._require_idle()
        if (asked.command_line is None) == (not asked.reuse_command_line):
            raise errors.InvalidParameter("commandLine", "it is either given, or that of the kernel that runs")

        def given(index: int | None) -> OwnedFd | None:
            return None if index is None else request.fds[index]

        means = self._means
        line = means.machine.running.command_line() if asked.command_line is None else asked.command_line
        loaded = means.next_kernel.load(
            request.fds[asked.kernel_file_descriptor],
            given(asked.initrd_file_descriptor),
            line,
            given(asked.running_file_descriptor),
            require=self._require_idle,  # it may take long to read, and an update may have begun
        )
        return [answer(update.LoadKernelReply(image=loaded.facts()))]

    def unload_kernel(self, request: Request) -> Answers:
        self._policy.require_operator(request.peer.uid)
        self._require_idle()
        self._means.next_kernel.unload(require=self._require_idle)
        return [Answer()]

    def preflight(self, request: Request) -> Answers:
        asked: update.PreflightParameters = request.parameters
        self._policy.require_operator(request.peer.uid)
        return [answer(update.PreflightReply(checks=self._means.preflight(asked.via or self._means.usual_way)))]

    # The live update

    def begin(self, request: Request) -> LiveUpdate:
        """Begin a live update; others go through with it."""
        asked: update.StartParameters = request.parameters
        self._policy.require_operator(request.peer.uid)
        via = asked.via or self._means.usual_way
        deadline_usec = time.time_ns() // 1000 + (asked.deadline_sec or DEADLINE) * 1_000_000
        return self._updates.begin(via, asked.unready or Unready.ABORT, deadline_usec, force=bool(asked.force))

    def abort(self, request: Request) -> Answers:
        asked: update.AbortParameters = request.parameters
        self._policy.require_operator(request.peer.uid)
        self._updates.abort(asked.reason or "an operator wants it so")
        return [Answer()]

    def progress(self) -> Progress:
        """How far a live update has come. The last one isn't over as long as what came over waits for its owners."""
        progress = self._updates.progress()
        if progress.phase is not Phase.IDLE or isinstance(self._there, RestoreImpossible):
            return progress
        waiting, done = self._there.waiting()
        if not waiting:
            return progress
        return Progress(Phase.RESTORING, done, tuple(f"{name} of uid {uid}" for uid, name in waiting))

    def taking_part(self, watcher: Watcher) -> Participant:
        """A watcher as somebody who takes part."""
        (each,) = participants([watcher], self._means.custodian.sessions())
        return each

    def timeline(self, request: Request) -> Answers:
        asked: update.TimelineParameters = request.parameters
        self._policy.require_operator(request.peer.uid)
        return [answer(update.TimelineReply(**self._means.recorder.report(asked.generation)))]

    def start_afresh(self, request: Request) -> Answers:
        self._policy.require_operator(request.peer.uid)
        if isinstance(self._there, RestoreImpossible):
            if not self._there.nothing_came:
                raise errors.RestoreUnavailable(self._there.reason)
            self._start_afresh()
        return [Answer()]

    # What there is

    def status(self, request: Request) -> Answers:
        device: dict[str, Any] = {"path": self._device, "available": True}
        fd_store = {"entries": len(self._fd_store), "limit": self._fd_store.most, "unclear": self._unclear}
        network, problems = self._network()
        if isinstance(self._there, RestoreImpossible):
            reply = update.StatusReply(
                phase=Phase.UNAVAILABLE,
                generation=0,
                kernel={"release": os.uname().release},
                sessions=0,
                files=0,
                bytes=0,
                device=device | {"available": False, "reason": self._there.reason},
                fd_store=fd_store,
                network=network,
                problems=[f"this boot can't give anything back: {self._there.reason}", *problems],
            )
        else:
            totals, sessions, means = self._there.totals(), self._there.sessions(), self._later.wait()
            loaded = None if means is None else means.next_kernel.loaded
            release = os.uname().release if means is None else means.machine.running.release()
            reply = update.StatusReply(
                phase=self.progress().phase,
                generation=totals.generation,
                kernel={"release": release, "bootId": totals.boot_id},
                image=None if loaded is None else loaded.facts(),
                sessions=totals.sessions,
                files=totals.files,
                bytes=totals.bytes,
                device=device,
                fd_store=fd_store,
                participants=self._participants(sessions, request.peer.uid),
                last_update=None if means is None else means.last_update(),
                network=network,
                problems=[*self._problems(sessions, means, request.peer.uid), *problems] or None,
            )
        return [answer(reply)]

    def manifest(self, request: Request) -> Answers:
        self._policy.require_operator(request.peer.uid)
        document = self._custodian.document().model_dump(mode="json", by_alias=True)
        return [answer(update.ManifestReply(manifest=document))]

    def _require_idle(self) -> None:
        """Raises UpdateInProgress: what was looked at is what must be gone into."""
        current = self._updates.current
        if current is not None:
            raise errors.UpdateInProgress(current.number)

    def _may_know(self, asker: int, owner: int) -> bool:
        """What belongs to all, operators see; others what is theirs."""
        return asker == owner or self._policy.is_operator(asker)

    def _participants(self, sessions: Sequence[Session], asker: int) -> list[dict[str, Any]]:
        watchers = [each for each in self._updates.watchers.participants() if self._may_know(asker, each.uid)]
        return [
            {"name": each.watcher.name, "uid": each.watcher.uid, "stage": each.stage, "sessions": list(each.sessions)}
            for each in participants(watchers, sessions)
        ]

    def _network(self) -> tuple[dict[str, Any] | None, list[str]]:
        """What came of the network that came over, and what is wrong with that."""
        try:
            return last_report(self._runtime_directory), []
        except BadReport as error:
            return None, [f"what came of the network isn't known: {error}"]

    def _problems(self, sessions: Sequence[Session], means: "Means | None", asker: int) -> Iterator[str]:
        """What is wrong, for people."""
        if means is None:
            yield NO_MEANS
        if not self._fd_store.most:
            yield NOT_KEPT
        for what in self._unclear:
            yield f"the fd store brought what nobody knows, and it is kept: {what}"
        for session in sessions:
            if not self._may_know(asker, session.uid):
                continue
            whose = f"session {session.name} of uid {session.uid}"
            if session.state is State.LOST:
                yield f"{whose} is lost: {session.lost}"
            elif session.state is State.CARRIED and not session.is_claimed:
                yield f"nobody has come for {whose} since the last live update; it is preserved for the next one"
