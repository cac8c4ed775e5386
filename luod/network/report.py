"""What came of setting a network up again: for luoctl, and in a file of luod's runtime directory for Status."""

from luod.network.model import Record, Time


class Trouble(Record):
    """Something that isn't as it was. `what` names it as ip(8) would."""

    what: str
    reason: str


class Report(Record):
    """`taken`: when the snapshot was; None where it can't be read. `applied`: when this began. `done`: how many things
    were made or set; `equal`: how many were as wanted already. `failed`: what isn't as it was, and should be; `left`:
    what differs and may.
    """

    taken: Time | None = None
    applied: Time
    seconds: float
    done: int
    equal: int
    failed: tuple[Trouble, ...] = ()
    left: tuple[Trouble, ...] = ()
