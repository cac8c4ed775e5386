"""Who may do what, and how much of it. Pure: no system calls."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from luod.errors import PermissionDenied

Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Limits(BaseModel):
    """What luod grants at most. An owner is a uid; no owner is exempt."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    connections: Count = 512
    connections_per_owner: Count = 128
    descriptors_in_flight_per_owner: Count = 2048
    threads_per_owner: Count = 4
    sessions_per_owner: Count = 4096
    files_per_session: Annotated[Count, Field(le=8000)] = 4096
    """At most as many as one message can name (`varlink.framing`)."""
    files_per_owner: Count = 65536
    watchers_per_owner: Count = 32
    half_message_seconds: Seconds = 10.0
    """How long the rest of a message may take to arrive."""
    slow_reader_seconds: Seconds = 30.0
    """How long a reply may take to be read."""


@dataclass(frozen=True)
class Owner:
    """Whose a session is, and who asks for it. `trusted_uid` may own the descriptors as well."""

    uid: int
    gid: int
    trusted_uid: int


class Policy:
    """Deny by default: everybody has their own sessions; root and luod's own user act for others too.

    `limits` are those in force, and `descriptors` is how many there may be in custody: both can change at any time.
    """

    def __init__(self, own_uid: int, limits: Limits, descriptors: int) -> None:
        self.limits = limits
        self.descriptors = descriptors
        self._operators = {0, own_uid}

    def is_operator(self, uid: int) -> bool:
        return uid in self._operators

    def require_operator(self, uid: int) -> None:
        """Raises PermissionDenied for who may not see or change what belongs to all."""
        if not self.is_operator(uid):
            raise PermissionDenied

    def owner(self, uid: int, gid: int, asked: int | None) -> Owner:
        """Whose sessions a caller means. Raises PermissionDenied where it names another and may not."""
        if asked is None or asked == uid:
            return Owner(uid, gid, uid)
        self.require_operator(uid)
        return Owner(asked, gid, uid)
