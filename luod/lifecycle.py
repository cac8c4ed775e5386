r"""The life of a session, of a file and of a live update, as tables: what a state is, what leads to the next, what it
allows.

create -> OUTGOING -- live update --> INCOMING -- finish --> gone
             |  ^                      |  ^  |
          discard \___ finish, rearm __/  |  \__ live update (nobody finished it) --> LOST -- discard --> gone
                                |         |
                             CARRIED -- live update
"""

from enum import StrEnum
from typing import Final, NamedTuple


class Mode(StrEnum):
    """Who preserves and retrieves the files of a session: luod, or its owner."""

    CUSTODIAL = "custodial"
    DELEGATED = "delegated"


class Direction(StrEnum):
    """Which way a session goes: to the next kernel, or from the last one."""

    OUTGOING = "outgoing"
    INCOMING = "incoming"


class State(StrEnum):
    """What a session is. CARRIED: to its owner an incoming one still, but the kernel preserves it again. LOST: it was
    there, and nothing of it can be given back.
    """

    OUTGOING = "outgoing"
    INCOMING = "incoming"
    CARRIED = "carried"
    LOST = "lost"


class Event(StrEnum):
    """What happens to a session."""

    LIVE_UPDATE = "live update"
    RENEWED = "renewed"
    CARRIED_OVER = "carried over"
    REARMED = "rearmed"
    MISSING = "missing"


NEXT: Final[dict[tuple[State, Event], State]] = {
    (State.OUTGOING, Event.LIVE_UPDATE): State.INCOMING,
    (State.CARRIED, Event.LIVE_UPDATE): State.INCOMING,
    # The kernel drops what is incoming at the next kexec, finished or not.
    (State.INCOMING, Event.LIVE_UPDATE): State.LOST,
    (State.LOST, Event.LIVE_UPDATE): State.LOST,
    # Each of these puts a new session of the kernel behind it, which holds the same files.
    (State.OUTGOING, Event.RENEWED): State.OUTGOING,
    (State.INCOMING, Event.CARRIED_OVER): State.CARRIED,
    (State.INCOMING, Event.REARMED): State.OUTGOING,
    # Here the kernel has it already.
    (State.CARRIED, Event.REARMED): State.OUTGOING,
    (State.OUTGOING, Event.MISSING): State.LOST,
    (State.INCOMING, Event.MISSING): State.LOST,
    (State.CARRIED, Event.MISSING): State.LOST,
}


class FileState(StrEnum):
    """What a file is. TOMBSTONE: the kernel may hold it still, but to its owner it is gone."""

    INTENDED = "intended"
    HELD = "held"
    TOMBSTONE = "tombstone"


class Request(StrEnum):
    """What can be asked for an existing session: all but to carry it over by its owner."""

    PRESERVE = "Preserve"
    UNPRESERVE = "Unpreserve"
    RETRIEVE = "Retrieve"
    FINISH = "Finish"
    REARM = "Finish with rearm"
    CARRY_OVER = "carry over"
    DISCARD = "Discard"
    CLAIM = "Claim"


class Allowed(NamedTuple):
    """In which states and modes a request is served."""

    states: frozenset[State]
    modes: frozenset[Mode]


def _allowed(*states: State, mode: Mode | None = None) -> Allowed:
    return Allowed(frozenset(states), frozenset(Mode) if mode is None else frozenset({mode}))


ALLOWED: Final[dict[Request, Allowed]] = {
    Request.PRESERVE: _allowed(State.OUTGOING, mode=Mode.CUSTODIAL),
    Request.UNPRESERVE: _allowed(State.OUTGOING, mode=Mode.CUSTODIAL),
    Request.RETRIEVE: _allowed(State.OUTGOING, State.INCOMING, State.CARRIED, mode=Mode.CUSTODIAL),
    Request.FINISH: _allowed(State.INCOMING, State.CARRIED),
    Request.REARM: _allowed(State.INCOMING, State.CARRIED, mode=Mode.CUSTODIAL),
    Request.CARRY_OVER: _allowed(State.INCOMING, mode=Mode.CUSTODIAL),
    Request.DISCARD: _allowed(State.OUTGOING, State.LOST),
    Request.CLAIM: _allowed(State.OUTGOING, State.INCOMING, mode=Mode.DELEGATED),
}

CHANGING: Final = frozenset(Request) - {Request.RETRIEVE, Request.CLAIM}
"""What can't be done, as nothing can be created, once everything is sealed for a live update."""


# A live update


class Via(StrEnum):
    """Who goes into the next kernel: PID 1, once it has stopped all services in their order; or luod, at once."""

    SYSTEMD = "systemd"
    DIRECT = "direct"


class Unready(StrEnum):
    """What is done about those who take part and aren't ready in time."""

    ABORT = "abort"
    PROCEED = "proceed"


class Phase(StrEnum):
    """How far a live update has come. UNAVAILABLE and RESTORING are IDLE, and say what of what came over there is."""

    UNAVAILABLE = "unavailable"
    RESTORING = "restoring"
    IDLE = "idle"
    PREPARING = "preparing"
    READY = "ready"
    SEALED = "sealed"
    EXECUTING = "executing"


class Step(StrEnum):
    """What happens to a live update."""

    BEGIN = "begin"
    ALL_READY = "all are ready"
    PROCEED = "go on without those who aren't"
    SEAL = "seal"
    EXECUTE = "execute"
    ABORT = "abort"
    COME_BACK = "come back"


PHASES: Final[dict[tuple[Phase, Step], Phase]] = {
    (Phase.IDLE, Step.BEGIN): Phase.PREPARING,
    (Phase.PREPARING, Step.ALL_READY): Phase.READY,
    (Phase.PREPARING, Step.PROCEED): Phase.READY,
    (Phase.READY, Step.SEAL): Phase.SEALED,
    (Phase.SEALED, Step.EXECUTE): Phase.EXECUTING,
    # PID 1 stops the owners, who may give luod their memory only then: nothing is sealed.
    (Phase.READY, Step.EXECUTE): Phase.EXECUTING,
    (Phase.PREPARING, Step.ABORT): Phase.IDLE,
    (Phase.READY, Step.ABORT): Phase.IDLE,
    (Phase.SEALED, Step.ABORT): Phase.IDLE,
    # The reboot itself failed. Nobody else ends this phase: the next kernel begins in IDLE.
    (Phase.EXECUTING, Step.COME_BACK): Phase.IDLE,
}
