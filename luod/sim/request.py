"""What a request asks for. A field or descriptor that isn't there or isn't valid raises OSError(EINVAL)."""

import errno
import os
import socket
from typing import Any, Final, NoReturn

from luod.fds import OwnedFd
from luod.sim import wire
from luod.sim.kernel import FAULTY

_ERRNO_MAX: Final = 4095
_TOKEN_MAX: Final = 2**64 - 1
_NTH_MAX: Final = 2**31 - 1
_SECONDS_MAX: Final = 3600


def _refuse(field: str) -> NoReturn:
    raise OSError(errno.EINVAL, f"{field} is missing or not valid")


class Request:
    """The fields of a request, and the descriptors that came for it; they stay with whoever made it."""

    def __init__(self, body: dict[str, Any], fds: list[OwnedFd]) -> None:
        self._body = body
        self._fds = fds

    def name(self) -> str:
        value = self._body.get("name")
        if not isinstance(value, str):
            _refuse("name")
        try:
            os.fsencode(value)
        except ValueError:
            _refuse("name")
        return value

    def token(self) -> int:
        return self._integer("token", 0, _TOKEN_MAX)

    def call(self) -> str:
        """The call to fail or to delay."""
        value = self._body.get("of")
        if not isinstance(value, str) or value not in FAULTY:
            _refuse("of")
        return value

    def errno(self, least: int = 0) -> int:
        """An error's number, or 0 for none."""
        return self._integer("number", least, _ERRNO_MAX)

    def nth(self) -> int:
        return self._integer("nth", 1, _NTH_MAX)

    def seconds(self) -> float:
        value = self._body.get("seconds")
        if not isinstance(value, (int, float)) or not 0 <= value <= _SECONDS_MAX:
            _refuse("seconds")
        return float(value)

    def carry(self) -> bool:
        value = self._body.get("carry")
        if not isinstance(value, bool):
            _refuse("carry")
        return value

    def command_line(self) -> str:
        value = self._body.get("command_line")
        if not isinstance(value, str) or "\0" in value:
            _refuse("command_line")
        try:
            os.fsencode(value)
        except ValueError:
            _refuse("command_line")
        return value

    def fd(self, number: int = 0) -> OwnedFd | None:
        """A descriptor that came, if it did. It is closed with the request unless it is handed on."""
        return self._fds[number] if number < len(self._fds) else None

    def sock(self) -> socket.socket:
        """The descriptor that came, as a socket that the caller owns."""
        return wire.taken(self._fds[0]) if self._fds else _refuse("descriptor")

    def _integer(self, field: str, least: int, most: int) -> int:
        value = self._body.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            _refuse(field)
        return value
