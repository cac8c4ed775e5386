"""The protocol of a client, without I/O.

A request is an *exchange*: a generator that yields what to ask, is sent each answer, and returns what it was
for. A `Conversation` turns exchanges into steps (connect, bytes to send, bytes to receive) that a shell does, blocking
or in trio. Whatever ends an exchange early, its descriptors are closed here and the connection is over where an answer
was still to come.

luod may end and come back at any time. A call that it can't have had as a whole is asked again on a new connection. Of
one that it had and didn't answer the exchange is told: `Unanswered` is thrown in, unless to ask again is harmless.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from errno import EBADF, ECONNRESET, EPIPE, ETOOMANYREFS
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any, Final, Generic, TypeAlias, TypeVar

from luod.client.failures import Disconnected, NotRunning, RemoteError, Unanswered, is_absence, no_connection, refusal
from luod.errors import QuotaExceeded, WireError
from luod.fds import FdBundle
from luod.sockets import DescriptorsLost
from luod.varlink.framing import Framer
from luod.varlink.messages import Call, ProtocolError, Reply

REPLY_BYTES: Final = 64 << 20
"""The longest reply that is read: a manifest grows with what luod holds."""

PATIENCE: Final = 30.0
"""How long a call waits for luod to come back, in seconds, where nobody says otherwise."""

_ASKED_AGAIN: Final = 20
"""How often an exchange may ask again what luod ended in: it may be this that ends it."""

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_CLOSED_HERE: Final = "it was closed here"
_CLOSED_THERE: Final = "luod closed it"
_FULL: Final = "luod has no room for another connection"

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Ask:
    """A call, and the borrowed descriptors that go with it.

    `repeatable`: to ask it twice does no harm. `endless`: luod ends its connection after the last answer, and then it
    is asked again.
    """

    call: Call
    fds: Sequence[int] = ()
    repeatable: bool = False
    endless: bool = False


@dataclass(frozen=True)
class Answer:
    """A reply that is no error. `continues`: more follow. `is_first`: it is the first to a call, which may have been
    asked again. Whoever is given one closes its descriptors.
    """

    parameters: dict[str, Any]
    fds: FdBundle
    continues: bool = False
    is_first: bool = True


@dataclass(frozen=True)
class Connect:
    """A step: after a pause of so many seconds, connect, in place of the connection that there was."""

    pause: float


@dataclass(frozen=True)
class Send:
    """A step: send all of `data`, with `fds`."""

    data: bytes
    fds: Sequence[int]


Exchange: TypeAlias = Generator[Ask, Answer, T]
"""Yields what to ask, and again for the next answer to it. Descriptors that it doesn't take of an answer are closed."""

Received: TypeAlias = tuple[bytes, FdBundle]
Step: TypeAlias = Connect | Send | None
Steps: TypeAlias = Generator[Step, Received | None, T]
"""Yields a Connect, a Send, or None to receive. A step that fails is thrown in: OSError or DescriptorsLost."""


class _Gone(Exception):
    """luod closed the connection. `asked`: it may have had the whole call by then."""

    def __init__(self, *, asked: bool) -> None:
        self.asked = asked


class _Troubles:
    """What an exchange has met, and how much more it takes."""

    def __init__(self, patience: float) -> None:
        self.pauses = pauses(patience)
        self.unanswered = 0
        self._most = _ASKED_AGAIN if patience else 0

    @property
    def are_too_many(self) -> bool:
        return self.unanswered > self._most


class Conversation:
    """All that is said to luod, on one connection after the other. `over` says why the last one is of no use."""

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        """`path` is that of luod's socket, `patience` how long a call may wait for one that isn't there, in seconds.

        With 0, no call that luod ended in is asked again.
        """
        self.over: str | None = "it was never there"
        self.is_closed = False
        self._path = path
        self._patience = patience
        self._framer = Framer()
        self._open: Ask | None = None
        self._is_begun = False

    def reach(self, pauses: Iterable[float] = (0.0,)) -> Steps[None]:
        """The steps to connect: a try after each pause, until luod is there.

        Raises NotRunning, OSError, and Disconnected where it was closed here.
        """
        failed: OSError | None = None
        for pause in pauses:
            try:
                yield Connect(pause)
            except OSError as error:
                self._end_if_closed()
                if not is_absence(error):
                    raise no_connection(self._path, error) from None
                failed = error
            else:
                self._framer = Framer(REPLY_BYTES, max_values=REPLY_BYTES)
                self.over = None
                self._end_if_closed()
                return
        raise Disconnected(self.end(_CLOSED_THERE)) if failed is None else no_connection(self._path, failed)

    def run(self, exchange: Exchange[T]) -> Steps[T]:
        """The steps of an exchange, into which luod's refusals are thrown. Raises what it does, and as `reach`."""
        troubles = _Troubles(self._patience)
        done = False
        try:
            ask = next(exchange)
            while True:
                try:
                    answer = yield from self._answer_to(ask, troubles)
                except (WireError, RemoteError, Unanswered) as refused:
                    ask = exchange.throw(refused)
                else:
                    with answer.fds:
                        ask = exchange.send(answer)
        except StopIteration as end:
            done = True
            value: T = end.value
            return value
        finally:
            exchange.close()
            if self._open is not None and not (done and self._open.call.more):
                self.end("a call on it was broken off")

    def end(self, reason: str) -> str:
        """Nothing more goes over this connection. Returns why, which may have been known before."""
        self.over = self.over or reason
        self._open = None
        self._framer.take_fds().close()
        return self.over

    def close(self) -> None:
        """Nothing more is said at all, not in a call that is under way either."""
        self.is_closed = True

    def _end_if_closed(self) -> None:
        if self.is_closed:
            self.end(_CLOSED_HERE)
            raise Disconnected(_CLOSED_HERE)

    def _answer_to(self, ask: Ask, troubles: _Troubles) -> Steps[Answer]:
        """The next answer to a call, from whichever luod gives it."""
        while True:
            self._end_if_closed()
            try:
                if self.over is not None:
                    yield from self.reach(troubles.pauses)
                if self._open is not ask:
                    yield from self._send(ask)
                return (yield from self._receive(ask))
            except _Gone as gone:
                self._end_if_closed()
                self.end(_CLOSED_THERE)
                troubles.unanswered += gone.asked
                if troubles.are_too_many:
                    raise Disconnected(_CLOSED_THERE) from None
                if gone.asked and not ask.repeatable:
                    raise Unanswered(_CLOSED_THERE) from None
            except QuotaExceeded as refused:
                if not troubles.unanswered or refused.quota != "connections":
                    raise
                self.end(_FULL)  # which says nothing of the call that was not answered
            except (NotRunning, OSError) as error:
                if not troubles.unanswered:
                    raise
                raise Disconnected(f"{_CLOSED_THERE}, and then: {error}") from error

    def _send(self, ask: Ask) -> Steps[None]:
        self._open, self._is_begun = ask, False
        try:
            yield Send(ask.call.encode(), ask.fds)
        except OSError as error:
            self._end_if_closed()
            if error.errno in (EBADF, ETOOMANYREFS):  # a descriptor can't be sent, so nothing was
                self._open = None
                raise
            if error.errno not in (EPIPE, ECONNRESET):
                raise self._broken(error) from error
            yield from self._hear_why(ask)

    def _hear_why(self, ask: Ask) -> Steps[None]:
        """luod closed the connection, and has not had the call: why may be there to be received."""
        try:
            yield from self._receive(ask)
        except _Gone:
            raise _Gone(asked=False) from None
        raise _Gone(asked=False)

    def _receive(self, ask: Ask) -> Steps[Answer]:
        try:
            while (message := self._framer.next_message()) is None:
                received = yield None
                assert received is not None
                data, fds = received
                if not data:
                    fds.close()
                    raise _Gone(asked=True)
                self._framer.feed(data, fds)
            try:
                reply = Reply.read(message.body)
            except ProtocolError:
                message.fds.close()
                raise
        except DescriptorsLost as error:
            error.fds.close()
            raise self._broken(error) from error
        except OSError as error:
            if error.errno == ECONNRESET:
                # What was sent had not been read to its end (unix_release_sock() in net/unix/af_unix.c).
                raise _Gone(asked=self._is_begun) from None
            raise self._broken(error) from error
        except ProtocolError as error:
            raise self._broken(error) from error
        is_first, self._is_begun = not self._is_begun, True
        if not reply.continues:
            self._open = None
            if ask.endless:
                self.end("it was for what is over")
        if reply.error is not None:
            message.fds.close()
            raise refusal(reply.error, reply.parameters)
        return Answer(reply.parameters, message.fds, reply.continues, is_first)

    def _broken(self, error: Exception) -> Disconnected:
        match error:
            case DescriptorsLost():
                reason = "descriptors of an answer were lost: this process has no room for them (RLIMIT_NOFILE)"
            case ProtocolError():
                reason = f"what came is not Varlink: {error}"
            case _:
                reason = str(error)
        self._end_if_closed()
        return Disconnected(self.end(reason))


def pauses(patience: float) -> Iterator[float]:
    """How long to wait before each try to reach luod, in seconds: at once, then ever longer, `patience` in all."""
    yield 0.0
    pause = _FIRST_PAUSE
    while patience > 0:
        yield min(pause, patience)
        patience -= pause
        pause = min(2 * pause, _LONGEST_PAUSE)


class Stream(Generic[T]):
    """The answers to one call with `more`, each as `read` makes of it."""

    def __init__(self, ask: Ask, read: Callable[[Answer], T]) -> None:
        self.over = False
        self._ask = ask
        self._read = read

    def next(self) -> Exchange[T]:
        answer = yield self._ask
        self.over = not (answer.continues or self._ask.endless)
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
