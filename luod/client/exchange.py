"""The protocol of a client, without I/O.

A request is an *exchange*: a generator that yields what to ask, is sent each answer, and returns what it was
for. A `Conversation` turns exchanges into steps (bytes to send, bytes to receive) that a shell does, blocking
or in trio. Whatever ends an exchange early, its descriptors are closed here and the conversation is over where
an answer was still to come.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from errno import EBADF, EPIPE, ETOOMANYREFS
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any, Final, Generic, TypeAlias, TypeVar

from luod.client.failures import Disconnected, RemoteError, refusal
from luod.errors import WireError
from luod.fds import FdBundle
from luod.sockets import DescriptorsLost
from luod.varlink.framing import Framer
from luod.varlink.messages import Call, ProtocolError, Reply

REPLY_BYTES: Final = 64 << 20
"""The longest reply that is read: a manifest grows with what luod holds."""

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Ask:
    """A call, and the borrowed descriptors that go with it."""

    call: Call
    fds: Sequence[int] = ()


@dataclass(frozen=True)
class Answer:
    """A reply that is no error. `continues`: more follow. Whoever is given one closes its descriptors."""

    parameters: dict[str, Any]
    fds: FdBundle
    continues: bool = False


@dataclass(frozen=True)
class Send:
    """A step: send all of `data`, with `fds`."""

    data: bytes
    fds: Sequence[int]


Exchange: TypeAlias = Generator[Ask | None, Answer, T]
"""Yields what to ask, or None for the next answer to it. What it doesn't take of an answer's descriptors is closed."""

Received: TypeAlias = tuple[bytes, FdBundle]
Steps: TypeAlias = Generator[Send | None, Received | None, T]
"""Yields a Send, or None to receive. A step that fails is thrown in: OSError or DescriptorsLost."""


class Conversation:
    """One connection, as far as the protocol goes. `over` says why it is of no use any more."""

    def __init__(self) -> None:
        self.over: str | None = None
        self._framer = Framer(REPLY_BYTES, max_values=REPLY_BYTES)
        self._awaiting = False

    def run(self, exchange: Exchange[T]) -> Steps[T]:
        """The steps of an exchange, into which luod's refusals are thrown. Raises what it does, and Disconnected."""
        if self.over is not None:
            raise Disconnected(self.over)
        done = False
        try:
            ask = next(exchange)
            while True:
                if ask is not None:
                    yield from self._send(ask)
                try:
                    answer = yield from self._answer()
                except (WireError, RemoteError) as refused:
                    ask = exchange.throw(refused)
                    continue
                with answer.fds:
                    ask = exchange.send(answer)
        except StopIteration as end:
            done = True
            value: T = end.value
            return value
        finally:
            exchange.close()
            if self._awaiting and not done:
                self.end("a call on it was broken off")

    def end(self, reason: str) -> str:
        """Nothing more goes over this connection. Returns why, which may have been known before."""
        self.over = self.over or reason
        self._framer.take_fds().close()
        return self.over

    def _send(self, ask: Ask) -> Steps[None]:
        self._awaiting = True
        try:
            yield Send(ask.call.encode(), ask.fds)
        except OSError as error:
            if error.errno in (EBADF, ETOOMANYREFS):  # a descriptor can't be sent, so nothing was
                self._awaiting = False
                raise
            if error.errno != EPIPE:
                raise self._broken(error) from error
            # luod closed the connection: why may be there to be received

    def _answer(self) -> Steps[Answer]:
        try:
            while (message := self._framer.next_message()) is None:
                received = yield None
                assert received is not None
                data, fds = received
                if not data:
                    fds.close()
                    raise EOFError
                self._framer.feed(data, fds)
            try:
                reply = Reply.read(message.body)
            except ProtocolError:
                message.fds.close()
                raise
        except DescriptorsLost as error:
            error.fds.close()
            raise self._broken(error) from error
        except (OSError, EOFError, ProtocolError) as error:
            raise self._broken(error) from error
        self._awaiting = reply.continues
        if reply.error is not None:
            message.fds.close()
            raise refusal(reply.error, reply.parameters)
        return Answer(reply.parameters, message.fds, reply.continues)

    def _broken(self, error: Exception) -> Disconnected:
        match error:
            case EOFError():
                reason = "luod closed it"
            case DescriptorsLost():
                reason = "descriptors of an answer were lost: this process has no room for them (RLIMIT_NOFILE)"
            case ProtocolError():
                reason = f"what came is not Varlink: {error}"
            case _:
                reason = str(error)
        return Disconnected(self.end(reason))


class Stream(Generic[T]):
    """The answers to one call with `more`, each as `read` makes of it."""

    def __init__(self, ask: Ask, read: Callable[[Answer], T]) -> None:
        self.over = False
        self._ask: Ask | None = ask
        self._read = read

    def next(self) -> Exchange[T]:
        ask, self._ask = self._ask, None
        answer = yield ask
        self.over = not answer.continues
        return self._read(answer)


def as_method(run: Method, request: Callable[..., Exchange[Any]]) -> Method:
    """Give a shell's method the words and the signature of the request that it makes."""
    update_wrapper(run, request)
    own = signature(request)
    own = own.replace(
        parameters=[Parameter("self", Parameter.POSITIONAL_ONLY), *own.parameters.values()],
        return_annotation=own.return_annotation.__args__[-1],
    )
    run.__signature__ = own  # type: ignore[attr-defined]
    return run
