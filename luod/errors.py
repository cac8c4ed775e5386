"""The error taxonomy: one class here is one error on the wire, its fields the error's parameters.

A client acts on the class and its fields; the text is for people. Errors of Varlink itself are here too,
under their own interface, so that there is one place to look.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from errno import errorcode
from typing import Any, ClassVar

from luod.names import camel


class LuodError(Exception):
    """Base of all that luod and its client library raise of their own."""


@dataclass(eq=False)
class WireError(LuodError):
    """An error that can be answered over Varlink."""

    interface: ClassVar[str]
    text: ClassVar[str]

    @classmethod
    def wire_name(cls) -> str:
        """The error's full Varlink name."""
        return f"{cls.interface}.{cls.__name__}"

    def parameters(self) -> dict[str, Any]:
        """The error's parameters, by their names on the wire."""
        return {camel(field.name): getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        if "errno" in known:
            known["errno"] = errorcode.get(known["errno"], known["errno"])
        return self.text.format(**known)


@dataclass(eq=False)
class VarlinkError(WireError):
    """An error of Varlink itself (https://varlink.org/Service)."""

    interface = "org.varlink.service"


@dataclass(eq=False)
class InterfaceNotFound(VarlinkError):
    text = "there is no interface {interface_!r} here"
    interface_: str

    def parameters(self) -> dict[str, Any]:
        return {"interface": self.interface_}


@dataclass(eq=False)
class MethodNotFound(VarlinkError):
    text = "there is no method {method!r} here"
    method: str


@dataclass(eq=False)
class MethodNotImplemented(VarlinkError):
    text = "method {method!r} is described but not implemented yet"
    method: str


@dataclass(eq=False)
class InvalidParameter(VarlinkError):
    """`parameter` is the path to it (`files[0].token`), or `message` for the message as a whole.

    `reason` goes beyond the standard error; clients that don't know it pass over it.
    """

    text = "{parameter}: {reason}"
    parameter: str
    reason: str = "not valid"


@dataclass(eq=False)
class PermissionDenied(VarlinkError):
    text = "permission denied"


@dataclass(eq=False)
class ExpectedMore(VarlinkError):
    text = "this method answers with several replies: call it with `more`"


@dataclass(eq=False)
class CustodyError(WireError):
    """An error of io.luod.Custody."""

    interface = "io.luod.Custody"


@dataclass(eq=False)
class SessionNotFound(CustodyError):
    text = "there is no session {session!r}"
    session: str


@dataclass(eq=False)
class SessionExists(CustodyError):
    text = "there is a session {session!r} already"
    session: str


@dataclass(eq=False)
class SessionLost(CustodyError):
    text = "session {session!r} is lost: {reason}; discard it to use its name again"
    session: str
    reason: str


@dataclass(eq=False)
class TokenNotFound(CustodyError):
    text = "session {session!r} has no token {token}"
    session: str
    token: int


@dataclass(eq=False)
class TokenInUse(CustodyError):
    text = "session {session!r} has a file with token {token} already"
    session: str
    token: int


@dataclass(eq=False)
class NotPreservable(CustodyError):
    text = "descriptor {file_descriptor_index} can't be preserved: {reason}"
    file_descriptor_index: int
    reason: str


@dataclass(eq=False)
class AlreadyPreserved(CustodyError):
    text = "descriptor {file_descriptor_index} is preserved already, or stands in this message twice"
    file_descriptor_index: int


@dataclass(eq=False)
class WrongDirection(CustodyError):
    text = "session {session!r} is {direction}: that can't be done with it"
    session: str
    direction: str


@dataclass(eq=False)
class WrongMode(CustodyError):
    text = "session {session!r} is {mode}: that can't be done with it"
    session: str
    mode: str


@dataclass(eq=False)
class RetrieveFailed(CustodyError):
    text = "the kernel can't give back token {token} of session {session!r}: {errno}"
    session: str
    token: int
    errno: int


@dataclass(eq=False)
class FinishRefused(CustodyError):
    text = "the kernel refuses to finish session {session!r}: {errno}"
    session: str
    errno: int


@dataclass(eq=False)
class RearmRefused(CustodyError):
    text = "token {token} of session {session!r} can't be preserved again: {reason}"
    session: str
    token: int
    reason: str


@dataclass(eq=False)
class UpdateInProgress(CustodyError):
    text = "live update {update} is in progress"
    update: int


@dataclass(eq=False)
class QuotaExceeded(CustodyError):
    text = "no more than {limit} {quota}"
    quota: str
    limit: int


@dataclass(eq=False)
class RestoreUnavailable(CustodyError):
    text = "this boot can't give anything back: {reason}; do not start afresh"
    reason: str


@dataclass(eq=False)
class KernelFailed(CustodyError):
    text = "the kernel answered {call} with {errno}"
    call: str
    errno: int


@contextmanager
def answered(call: str) -> Iterator[None]:
    """Raise KernelFailed where `call` to the system fails."""
    try:
        yield
    except OSError as error:
        raise KernelFailed(call, error.errno or 0) from None


@dataclass(eq=False)
class UpdateError(WireError):
    """An error of io.luod.Update."""

    interface = "io.luod.Update"


@dataclass(eq=False)
class PreflightFailed(UpdateError):
    text = "preflight failed: {checks}"
    checks: list[str]

    def __str__(self) -> str:
        return self.text.format(checks=", ".join(self.checks))


@dataclass(eq=False)
class BadImage(UpdateError):
    text = "this can't be the next kernel: {reason}"
    reason: str


@dataclass(eq=False)
class NoUpdate(UpdateError):
    text = "there is no such live update in progress"


@dataclass(eq=False)
class UpdateAborted(UpdateError):
    text = "the live update was aborted: {reason}"
    reason: str


def wire_errors() -> Iterator[type[WireError]]:
    """Every error that can stand on the wire."""
    for family in (VarlinkError, CustodyError, UpdateError):
        yield from family.__subclasses__()
