r"""The life of a session and of a file, as tables: what a state is, what leads to the next, what it allows.

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
