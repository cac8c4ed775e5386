"""A client that blocks. Its methods are the requests of `requests`, done at once."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from luod.client import operators, requests
from luod.client.asking import HasFileno
from luod.client.exchange import (
    PATIENCE,
    Answer,
    Connect,
    Conversation,
    Exchange,
    Received,
    Send,
    Step,
    Steps,
    Stream,
    as_method,
    pauses,
)
from luod.client.failures import socket_path
from luod.client.operators import Progress
from luod.client.requests import Event
from luod.lifecycle import Unready, Via
from luod.sockets import QUEUE_FULL_PAUSE, DescriptorsLost, receive_blocking, send_blocking

P = ParamSpec("P")
T = TypeVar("T")


def _method(request: Callable[P, Exchange[T]]) -> "Callable[Concatenate[Client, P], T]":
    def run(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(request(*args, **kwargs))

    return as_method(run, request)


class Client:
    """What luod is asked with, by one connection after the other. Threads may share it, but not processes after a fork:
    their calls are done one after the other.
    """

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        self.path = path
        self.patience = patience
        self._conversation = Conversation(path, patience)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lock = threading.Lock()

    create = _method(requests.create)
    create_delegated = _method(requests.create_delegated)
    preserve = _method(requests.preserve)
    preserve_all = _method(requests.preserve_all)
    unpreserve = _method(requests.unpreserve)
    retrieve = _method(requests.retrieve)
    finish = _method(requests.finish)
    discard = _method(requests.discard)
    claim = _method(requests.claim)
    find = _method(requests.find)
    list = _method(requests.list_sessions)
    ready = _method(requests.ready)
    veto = _method(requests.veto)
    status = _method(operators.status)
    manifest = _method(operators.manifest)
    load_kernel = _method(operators.load_kernel)
    unload_kernel = _method(operators.unload_kernel)
    preflight = _method(operators.preflight)
    abort_update = _method(operators.abort_update)
    timeline = _method(operators.timeline)
    start_afresh = _method(operators.start_afresh)
    call = _method(requests.call)

    @contextmanager
    def watch(
        self, sessions: Sequence[str] | None = None, *, participate: bool = False, owner: int | None = None
    ) -> Iterator[Iterator[Event]]:
        """Live update events of the owner's sessions, or of these: `with luod.watch() as events: for event in events`.

        It has a connection of its own, so that this one stays free to answer `ready` or `veto`. A watcher that
        participates and leaves the block is not ready. It goes on when luod was restarted, until the block is left;
        where luod isn't there the next event is waited for as any answer is.
        """
        with Client(self.path, self.patience) as own:
            yield own._each(requests.watch(sessions, participate=participate, owner=owner))

    @contextmanager
    def update(
        self,
        *,
        via: Via | str | None = None,
        deadline: int | None = None,
        unready: Unready | str | None = None,
        force: bool = False,
    ) -> Iterator[Iterator[Progress]]:
        """Do a live update: `with luod.update() as steps: for progress in steps`.

        It has a connection of its own. Leaving the block before the machine is on its way aborts it. `via`: who goes
        into the next kernel. `deadline`: how many seconds those who take part have, 30 if left out. `unready`: what is
        done about those who aren't ready then. `force`: in spite of failed checks, and of what that loses.

        Raises PreflightFailed, UpdateInProgress, and UpdateAborted when it is off; Disconnected where luod ended in it,
        which is how a good one ends, too: the last phase was `executing` then, and otherwise it is off.
        """
        stream = operators.live_update(via=via, deadline=deadline, unready=unready, force=force)
        with Client(self.path, self.patience) as own:
            yield own._each(stream)

    @contextmanager
    def follow(self) -> Iterator[Iterator[Progress]]:
        """The progress of whatever live update goes on, until the phase is idle: of one that comes, and of what came
        over and waits for its owner. It has a connection of its own, and goes on when luod was restarted.
        """
        with Client(self.path, self.patience) as own:
            yield own._each(operators.follow())

    @contextmanager
    def stream(
        self, method: str, parameters: Mapping[str, Any] | None = None, fds: Sequence[int | HasFileno] = ()
    ) -> Iterator[Iterator[Answer]]:
        """The answers to any Varlink method called with `more`, on a connection of its own. Their descriptors are the
        caller's to close.
        """
        with Client(self.path, self.patience) as own:
            yield own._each(requests.stream(method, parameters, fds))

    def close(self) -> None:
        """Close the connection, a call that waits in another thread included. No session is lost by it.

        Not for signal handlers: it waits for the call that they interrupt.
        """
        self._conversation.close()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _each(self, stream: Stream[T]) -> Iterator[T]:
        while not stream.over:
            yield self._run(stream.next())

    def _run(self, exchange: Exchange[T]) -> T:
        return self._do_all(self._conversation.run(exchange))

    def _do_all(self, steps: Steps[T]) -> T:
        with self._lock:
            try:
                step = next(steps)
                while True:
                    try:
                        received = self._do(step)
                    except (OSError, DescriptorsLost) as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(received)
            except StopIteration as end:
                value: T = end.value
                return value
            finally:
                steps.close()
                if self._conversation.over is not None:
                    self._sock.close()

    def _do(self, step: Step) -> Received | None:
        match step:
            case Connect(pause):
                self._sock.close()
                time.sleep(pause)
                self._connect()
            case Send(data, fds):
                send_blocking(self._sock, data, fds)
            case None:
                return receive_blocking(self._sock)
        return None

    def _connect(self) -> None:
        """Connect, and wait while the queue of luod is full, but not beyond `close`."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        while not self._conversation.is_closed:
            try:
                self._sock.connect(self.path)
            except BlockingIOError:
                time.sleep(QUEUE_FULL_PAUSE)
            else:
                break
        self._sock.settimeout(None)


def connect(path: str | None = None, *, patience: float = PATIENCE, wait: bool = False) -> Client:
    """Connect to luod: `with connect() as luod`. `path` is that of its socket.

    luod may end and come back meanwhile. A call waits up to `patience` seconds for somebody to listen there (in whose
    queue it is served when its turn comes), and is asked again if luod ended in it; with 0 it isn't.
    Raises NotRunning where nobody listens there now, or with `wait` where nobody does within `patience`, and OSError
    where the caller may not connect.
    """
    client = Client(socket_path(path), patience)
    try:
        client._do_all(client._conversation.reach(pauses(patience if wait else 0)))
    except BaseException:
        client.close()
        raise
    return client
