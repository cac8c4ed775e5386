"""The live update, seen from luod: who watches it, and who takes part."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from luod.errors import InvalidParameter, NoUpdate, QuotaExceeded
from luod.policy import Policy


class Event(StrEnum):
    """What a watcher is told."""

    WATCHING = "watching"
    RESTORED = "restored"
    STOPPING = "stopping"


@dataclass(eq=False)
class Watcher:
    """Somebody who is told of live updates. `secret` is how it proves on another connection that it is itself.

    `tell` must not block. `sessions` are the names it watches; all of its owner's where there are none.
    """

    uid: int
    tell: Callable[[Event], None]
    sessions: frozenset[str] | None = None
    participate: bool = False
    secret: str = field(default_factory=secrets.token_hex)


class Watchers:
    """Those who watch."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._by_secret: dict[str, Watcher] = {}

    def add(self, watcher: Watcher) -> None:
        """Raises QuotaExceeded."""
        most = self._policy.limits.watchers_per_owner
        if sum(other.uid == watcher.uid for other in self._by_secret.values()) >= most:
            raise QuotaExceeded("watchers", most)
        self._by_secret[watcher.secret] = watcher

    def remove(self, watcher: Watcher) -> None:
        del self._by_secret[watcher.secret]

    def tell_all(self, event: Event) -> None:
        for watcher in self._by_secret.values():
            watcher.tell(event)

    def answer(self, uid: int, secret: str) -> None:
        """Take a watcher's Ready or Veto. Raises InvalidParameter for who doesn't watch, NoUpdate without an update."""
        watcher = self._by_secret.get(secret)
        if watcher is None or watcher.uid != uid:
            raise InvalidParameter("watcher", "there is no such watcher of yours")
        raise NoUpdate
