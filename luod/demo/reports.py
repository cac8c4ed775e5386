"""What a client of the demo tells its driver: one JSON object a line, on standard output.

Times are those of the monotonic clock, which is the same in all processes.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

_CHUNK: Final = 1 << 20


class Event(StrEnum):
    """What a client has just done."""

    CONNECTED = "connected"
    PREPARED = "prepared"
    PRESERVED = "preserved"
    RETRIEVED = "retrieved"
    MEASURED = "measured"
    FINISHED = "finished"


class Measured(BaseModel):
    """What can be seen of a file through its descriptor. Size and position are in bytes."""

    model_config = ConfigDict(frozen=True)

    token: int
    sha256: str
    size: int
    position: int
    seals: int

    @classmethod
    def of(cls, token: int, fd: int) -> Self:
        """Measure a file without moving its position."""
        size, digest, offset = os.fstat(fd).st_size, hashlib.sha256(), 0
        while chunk := os.pread(fd, _CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
        position, seals = os.lseek(fd, 0, os.SEEK_CUR), fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        return cls(token=token, sha256=digest.hexdigest(), size=size, position=position, seals=seals)


class Report(BaseModel):
    """What happened, when, and to which files. `failed` says of a token why its file can't be had."""

    event: Event
    at: float
    files: list[Measured] = []
    failed: dict[int, str] = {}


def report(event: Event, files: Iterable[Measured] = (), failed: Mapping[int, str] | None = None) -> None:
    """Tell the driver."""
    told = Report(event=event, at=time.monotonic(), files=list(files), failed=dict(failed or {}))
    print(told.model_dump_json(), flush=True)
