"""What a call and a reply look like (https://varlink.org/Method-Call)."""

import json
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

_KINDS: Final = {str: "a string", bool: "a boolean", dict: "an object"}


@dataclass(eq=False)
class ProtocolError(Exception):
    """The peer broke Varlink: it is told why, then the connection ends.

    `parameter` is `message`, or the path to the parameter that names a wrong descriptor.
    """

    parameter: str
    reason: str

    def __str__(self) -> str:
        return f"{self.parameter}: {self.reason}"


@dataclass(frozen=True)
class Call:
    """A call of `method`, a member's full name: `io.luod.Custody.List`."""

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    more: bool = False
    oneway: bool = False
    upgrade: bool = False

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """Read a message as a call. Raises ProtocolError where it is none, or has more than one flag set."""
        for name in body.keys() - {"method", "parameters", "more", "oneway", "upgrade"}:
            raise ProtocolError("message", f"has an unknown member {name!r:.40}")
        flags = {name: _member(body, name, bool, default=False) for name in ("more", "oneway", "upgrade")}
        if sum(flags.values()) > 1:
            raise ProtocolError("message", f"is flagged {' and '.join(flag for flag in flags if flags[flag])}")
        return cls(_member(body, "method", str), _member(body, "parameters", dict, default={}), **flags)

    def encode(self) -> bytes:
        """The call on the wire, with its NUL."""
        flags = {name: True for name in ("more", "oneway", "upgrade") if getattr(self, name)}
        return _encode({"method": self.method, "parameters": self.parameters} | flags)


@dataclass(frozen=True)
class Reply:
    """A reply. `error` is an error's full name; `continues`: it isn't the last one to its call."""

    parameters: dict[str, Any] = field(default_factory=dict)
    continues: bool = False
    error: str | None = None

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """Read a message as a reply, passing over members it doesn't know. Raises ProtocolError where it is none."""
        reply = cls(
            _member(body, "parameters", dict, default={}),
            _member(body, "continues", bool, default=False),
            _member(body, "error", str) if body.get("error") is not None else None,
        )
        if reply.error is not None and reply.continues:
            raise ProtocolError("message", "is an error and continues")
        return reply

    def encode(self) -> bytes:
        """The reply on the wire, with its NUL."""
        error = {} if self.error is None else {"error": self.error}
        continues = {"continues": True} if self.continues else {}
        return _encode(error | {"parameters": self.parameters} | continues)


def _member(body: dict[str, Any], name: str, kind: type[T], *, default: T | None = None) -> T:
    """A member of a message; one that is null counts as left out."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise ProtocolError("message", f"has no {name}")
    if not isinstance(value, kind):
        raise ProtocolError("message", f"{name} must be {_KINDS[kind]}")
    return value


def _encode(body: dict[str, Any]) -> bytes:
    """JSON and a NUL. A lone surrogate, which UTF-8 can't carry, becomes `?`."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\0"
