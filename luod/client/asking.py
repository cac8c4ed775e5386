"""A call as it is sent, and its answer as it is read: what all requests are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from pydantic import ValidationError

from luod.client.exchange import Answer, Ask, Exchange
from luod.client.failures import BadReply
from luod.interface import Method
from luod.interface import model as wire
from luod.varlink.messages import Call

R = TypeVar("R", bound=wire.Reply)

_HARMLESS: Final = frozenset(
    {
        *("Retrieve", "List", "Claim", "Watch", "Status", "Manifest"),
        *("LoadKernel", "UnloadKernel", "Preflight", "Follow", "Timeline"),
    }
)
"""Methods that may be done twice."""


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def question(
    interface: str,
    methods: Mapping[str, Method],
    member: str,
    fds: Sequence[int | HasFileno] = (),
    /,
    *,
    more: bool = False,
    **parameters: Any,
) -> Ask:
    """A call of ours. Raises InvalidParameter as luod would, before anything is sent."""
    given = methods[member].parameters.read({name: value for name, value in parameters.items() if value is not None})
    ask = raw(f"{interface}.{member}", given.wire(), fds, more=more)
    return replace(ask, repeatable=member in _HARMLESS, endless=member == "Watch")


def raw(
    method: str, parameters: Mapping[str, Any] | None, fds: Sequence[int | HasFileno], *, more: bool = False
) -> Ask:
    return Ask(Call(method, dict(parameters or {}), more=more), tuple(map(number, fds)))


def number(fd: int | HasFileno) -> int:
    return fd if isinstance(fd, int) else fd.fileno()


def one(ask: Ask, model: type[R]) -> Exchange[tuple[R, Answer]]:
    answer = yield ask
    return read(ask, answer, model), answer


def read(ask: Ask, answer: Answer, model: type[R]) -> R:
    try:
        return model.model_validate(answer.parameters)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadReply(ask.call.method, f"{where}: {first['msg']}") from None
