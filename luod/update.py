r"""The live update, seen from luod: who watches it, who takes part, and how far it has come. No I/O, and thread-safe.

begin -> PREPARING -- all ready --> READY -- seal --> SEALED -- execute --> EXECUTING -- live update
            |                         |   \_____ by systemd _______________/    |
            |                         |                 |                       |
            \_________ abort _________|_________________/                   come back
                        |                                                       |
                       IDLE  <--------------------------------------------------/

Those who take part are asked stage by stage, and answer by the secret that only they know. What becomes of a live
update `departure` decides.
"""

import itertools
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from luod.errors import InvalidParameter, NoUpdate, QuotaExceeded, UpdateAborted, UpdateInProgress, WireError
from luod.lifecycle import PHASES, Phase, Step, Unready, Via
from luod.manifest import Session
from luod.policy import Policy

DEADLINE: Final = 30
"""How long those who take part have, in seconds, where nobody says otherwise."""

STAGE: Final = "stage"
"""The label of a session that says when its watchers are asked: 1 where it is missing, or no number."""

_REASON_MAX: Final = 200
"""How much of a veto's reason is told, in characters."""


class Event(StrEnum):
    """What a watcher is told."""

    WATCHING = "watching"
    PREPARE = "prepare"
    ABORTED = "aborted"
    RESTORED = "restored"
    STOPPING = "stopping"


class Told(NamedTuple):
    """An event, and what is said with it. `deadline_usec` is CLOCK_REALTIME in microseconds."""

    event: Event
    update: int | None = None
    deadline_usec: int | None = None
    reason: str | None = None


@dataclass(eq=False)
class Watcher:
    """Somebody who is told of live updates. `secret` is how it proves on another connection that it is itself.

    `tell` must not block. `name` is for people. `sessions` are the names it watches; all of its owner's where there are
    none.
    """

    uid: int
    tell: Callable[[Told], None]
    name: str = ""
    sessions: frozenset[str] | None = None
    participate: bool = False
    secret: str = field(default_factory=secrets.token_hex)


class Answer(StrEnum):
    """What somebody who takes part has said."""

    NOT_ASKED = "waits for those before it"
    NONE = "no answer"
    READY = "ready"
    VETO = "refused"
    GONE = "went away"


@dataclass(eq=False)
class Participant:
    """Somebody who takes part in a live update, for these sessions. `reason` is that of a veto."""

    watcher: Watcher
    stage: int
    sessions: Sequence[str] = ()
    answer: Answer = Answer.NOT_ASKED
    reason: str = ""

    def __str__(self) -> str:
        its = f" for {self.sessions[0]}" if len(self.sessions) == 1 else ""
        return f"{self.watcher.name}{its}: {self.said}"

    @property
    def said(self) -> str:
        return f"{self.answer}{f', {self.reason}' if self.reason else ''}"

    @property
    def who(self) -> str:
        """Its session, where it has but one: by that it is known after the live update, too."""
        return self.sessions[0] if len(self.sessions) == 1 else self.watcher.name


@dataclass(eq=False)
class LiveUpdate:
    """One attempt. `deadline_usec` is CLOCK_REALTIME in microseconds. `detail` is what luod is at, for people; `stage`
    is the one that was asked last, and `told` the phase that whoever began it knows of.

    `is_on_its_way`: it goes on without luod. It is over once `error` says why it didn't come to it.
    """

    number: int
    via: Via
    unready: Unready
    deadline_usec: int
    force: bool
    participants: list[Participant] = field(default_factory=list)
    detail: str = ""
    stage: int | None = None
    told: Phase = Phase.IDLE
    is_on_its_way: bool = False
    abort_reason: str | None = None
    error: WireError | None = None

    def of(self, secret: str) -> Participant | None:
        return next((each for each in self.participants if each.watcher.secret == secret), None)

    def not_ready(self) -> list[Participant]:
        return [each for each in self.participants if each.answer is not Answer.READY]


class Progress(NamedTuple):
    """How far a live update has come: how many of those who take part are ready, and the others."""

    phase: Phase
    ready: int = 0
    waiting: tuple[str, ...] = ()
    detail: str | None = None
    update: int | None = None
    deadline_usec: int | None = None


class Watchers:
    """Those who watch."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._by_secret: dict[str, Watcher] = {}

    def __contains__(self, watcher: Watcher) -> bool:
        return watcher.secret in self._by_secret

    def add(self, watcher: Watcher) -> None:
        """Raises QuotaExceeded."""
        most = self._policy.limits.watchers_per_owner
        if sum(other.uid == watcher.uid for other in self._by_secret.values()) >= most:
            raise QuotaExceeded("watchers", most)
        self._by_secret[watcher.secret] = watcher

    def remove(self, watcher: Watcher) -> None:
        del self._by_secret[watcher.secret]

    def find(self, uid: int, secret: str) -> Watcher:
        """Raises InvalidParameter for who doesn't watch."""
        watcher = self._by_secret.get(secret)
        if watcher is None or watcher.uid != uid:
            raise InvalidParameter("watcher", "there is no such watcher of yours")
        return watcher

    def participants(self) -> list[Watcher]:
        return [watcher for watcher in list(self._by_secret.values()) if watcher.participate]

    def tell_all(self, told: Told) -> None:
        for watcher in list(self._by_secret.values()):
            watcher.tell(told)


class Updates:
    """Live updates, of which there is one at a time, and those who watch them.

    Watchers come, go and are told in one thread; answers come from any. `changed` is called, from any thread, when
    something has changed.
    """

    def __init__(self, policy: Policy, changed: Callable[[], None]) -> None:
        self.watchers = Watchers(policy)
        self._changed = changed
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._phase = Phase.IDLE
        self._current: LiveUpdate | None = None

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def current(self) -> LiveUpdate | None:
        """The one that goes on."""
        return self._current

    def progress(self) -> Progress:
        """How far it has come."""
        with self._lock:
            update = self._current
            if update is None:
                return Progress(Phase.IDLE)
            waiting = update.not_ready()
            return Progress(
                self._phase,
                len(update.participants) - len(waiting),
                tuple(map(str, waiting)),
                update.detail or None,
                update.number,
                update.deadline_usec,
            )

    # Its course

    def begin(self, via: Via, unready: Unready, deadline_usec: int, *, force: bool = False) -> LiveUpdate:
        """Begin one. Raises UpdateInProgress."""
        with self._lock:
            if self._current is not None:
                raise UpdateInProgress(self._current.number)
            self._step(Step.BEGIN)
            update = self._current = LiveUpdate(next(self._numbers), via, unready, deadline_usec, force)
        self._changed()
        return update

    def step(self, step: Step) -> None:
        """Go where a step leads. Raises UpdateAborted where somebody has asked for the end of it."""
        with self._lock:
            self.go_on("")
            self._step(step)
        self._changed()

    def go_on(self, detail: str | None = None) -> None:
        """Say what luod is at. Raises UpdateAborted where somebody has asked for the end of it."""
        with self._lock:
            update = self._current
            if update is not None and update.abort_reason is not None:
                raise UpdateAborted(update.abort_reason)
            if update is not None and detail is not None:
                update.detail = detail
        self._changed()

    def told(self, update: LiveUpdate, phase: Phase) -> None:
        """Whoever began it knows that it is in this phase."""
        update.told = phase
        self._changed()

    def end(self, error: WireError) -> None:
        """It is over, for this reason: everything is as before, and those who were asked are told."""
        with self._lock:
            assert self._current is not None
            update, self._current = self._current, None
            self._step(Step.COME_BACK if self._phase is Phase.EXECUTING else Step.ABORT)
            update.error = error
        reason = error.reason if isinstance(error, UpdateAborted) else str(error)
        for each in update.participants:
            if each.answer is not Answer.NOT_ASKED and each.watcher in self.watchers:
                each.watcher.tell(Told(Event.ABORTED, update.number, reason=reason))
        self._changed()

    def abort(self, reason: str) -> None:
        """Ask for the end of it. Raises NoUpdate; and UpdateInProgress, where there is no way back any more."""
        with self._lock:
            if self._current is None:
                raise NoUpdate
            if self._phase is Phase.EXECUTING:
                raise UpdateInProgress(self._current.number)
            self._current.abort_reason = self._current.abort_reason or reason
        self._changed()

    def _step(self, step: Step) -> None:
        self._phase = PHASES[self._phase, step]

    # Those who take part

    def gather(self, participants: Iterable[Participant]) -> list[int]:
        """Let these take part. Which stages there are, in order."""
        with self._lock:
            assert self._current is not None
            self._current.participants = list(participants)
            return sorted({each.stage for each in self._current.participants})

    def ask(self, stage: int) -> None:
        """Ask those of a stage."""
        with self._lock:
            update = self._current
            assert update is not None
            update.stage = stage
            asked = [each for each in update.participants if each.stage == stage]
            for each in asked:
                each.answer = Answer.NONE if each.watcher in self.watchers else Answer.GONE
        for each in asked:
            each.watcher.tell(Told(Event.PREPARE, update.number, update.deadline_usec))
        self._changed()

    def join(self, late: Participant) -> None:
        """Ask somebody who has begun to watch while others get ready: with those who are asked now."""
        with self._lock:
            update = self._current
            if update is None or update.stage is None or self._phase is not Phase.PREPARING:
                return
            if not late.watcher.participate or update.of(late.watcher.secret) is not None:
                return
            late.stage, late.answer = update.stage, Answer.NONE
            update.participants.append(late)
        late.watcher.tell(Told(Event.PREPARE, update.number, update.deadline_usec))
        self._changed()

    def answer(self, uid: int, number: int, secret: str, veto: str | None = None) -> Participant:
        """Take a watcher's Ready, or its Veto; it may change its mind. Raises InvalidParameter, and NoUpdate."""
        self.watchers.find(uid, secret)
        with self._lock:
            update = self._current
            each = None if update is None or update.number != number else update.of(secret)
            if each is None or each.answer is Answer.NOT_ASKED or self._phase is not Phase.PREPARING:
                raise NoUpdate
            each.answer, each.reason = (Answer.READY, "") if veto is None else (Answer.VETO, _on_one_line(veto))
        self._changed()
        return each

    def leave(self, watcher: Watcher) -> None:
        """A watcher goes. Who takes part and has gone isn't ready, as long as the machine could stay for it."""
        self.watchers.remove(watcher)
        with self._lock:
            each = None if self._current is None else self._current.of(watcher.secret)
            if each is not None and self._phase in (Phase.PREPARING, Phase.READY):
                each.answer = Answer.GONE
        self._changed()


def _on_one_line(reason: str) -> str:
    """A stranger's reason as everybody may be shown it, and the log have it. A veto counts whatever it says."""
    return "".join(letter if letter.isprintable() else " " for letter in reason[:_REASON_MAX])


def participants(watchers: Iterable[Watcher], sessions: Sequence[Session]) -> list[Participant]:
    """These watchers as those who take part: each is asked with the last of all sessions that it watches."""
    made = []
    for watcher in watchers:
        its = [session for session in sessions if covers(watcher, session)]
        stage = max(map(_stage_of, its), default=1)
        made.append(Participant(watcher, stage, [session.called for session in its]))
    return made


def _stage_of(session: Session) -> int:
    """When the watchers of a session are asked."""
    label = session.labels.get(STAGE, "")
    return int(label) if label.isdecimal() and len(label) < 10 else 1


def covers(watcher: Watcher, session: Session) -> bool:
    """Whether a watcher watches a session."""
    return watcher.uid == session.uid and (watcher.sessions is None or session.name in watcher.sessions)
