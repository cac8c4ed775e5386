"""What goes wrong between a client and luod. What luod itself refuses is a class of `luod.errors`."""

import errno
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from luod.errors import LuodError, WireError, wire_errors
from luod.names import camel

DEFAULT_SOCKET: Final = "/run/luod/io.luod"

_NOBODY_THERE = {
    errno.ENOENT: "there is no such socket",
    errno.ENOTDIR: "there is no such socket",
    errno.ECONNREFUSED: "nobody listens there",
}
_WIRE_ERRORS = {error.wire_name(): error for error in wire_errors()}


class ClientError(LuodError):
    """Base of all that a client can meet beside luod's own answers and OSError."""


class NotRunning(ClientError):
    """No luod listens at `path`. It says nothing about sessions: they may well be there when luod is."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"luod is not running at {path}: {reason}")
        self.path = path
        self.reason = reason


class Disconnected(ClientError):
    """A call was not answered: it may or may not have been done. The next one goes over a new connection.

    luod ended and didn't come back in time, or the connection was closed here, or what came was no answer.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection to luod is gone: {reason}")
        self.reason = reason


class Unanswered(Disconnected):
    """luod ended in a call. Whoever knows how to tell what became of it may ask again."""


class BadReply(ClientError):
    """luod answered `method` with something that its interface doesn't allow: it is not the luod that we know."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"can't read the answer to {method}: {reason}")
        self.method = method
        self.reason = reason


class RemoteError(ClientError):
    """An error that `luod.errors` doesn't know. `name` and `parameters` are the wire's."""

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        super().__init__(f"{name} {dict(parameters)}" if parameters else name)
        self.name = name
        self.parameters = parameters


def socket_path(path: str | None) -> str:
    """Where luod listens: `path`, else $LUOD_SOCKET, else /run/luod/io.luod."""
    return path or os.environ.get("LUOD_SOCKET") or DEFAULT_SOCKET


def is_absence(error: OSError) -> bool:
    """Whether connect() failed because no luod is there: one may be later."""
    return error.errno in _NOBODY_THERE


def no_connection(path: str, error: OSError) -> NotRunning | OSError:
    """What to raise where connect() to `path` failed: NotRunning, or the error with the path in it."""
    if error.errno in _NOBODY_THERE:
        return NotRunning(path, _NOBODY_THERE[error.errno])
    if error.errno is None:  # Python's own check of the path
        return OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    return OSError(error.errno, error.strerror, path)


def refusal(name: str, parameters: Mapping[str, Any]) -> WireError | RemoteError:
    """The exception for an error reply: parameters that its class doesn't know are passed over."""
    known = _WIRE_ERRORS.get(name)
    if known is None:
        return RemoteError(name, parameters)
    try:
        return known(**{f.name: parameters[camel(f.name)] for f in fields(known) if camel(f.name) in parameters})
    except TypeError:  # one that it needs is missing
        return RemoteError(name, parameters)
