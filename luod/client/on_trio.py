"""A client in trio. Its methods are the requests of `requests`, awaited."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

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
from luod.sockets import DescriptorsLost
from luod.transport import Connection

P = ParamSpec("P")
T = TypeVar("T")


def _method(request: Callable[P, Exchange[T]]) -> "Callable[Concatenate[TrioClient, P], Coroutine[Any, Any, T]]":
    async def run(self: "TrioClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(request(*args, **kwargs))

    return as_method(run, request)


class TrioClient:
    """What luod is asked with, by one connection after the other. Tasks may share it: their calls are done one after
    the other.

    A call that is cancelled while it waits for luod takes the connection with it; one that waits for its turn doesn't.
    """

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        self.path = path
        self.patience = patience
        self._conversation = Conversation(path, patience)
        self._connection: Connection | None = None
        self._connecting = trio.CancelScope()
        self._lock = trio.Lock()

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

    @asynccontextmanager
    async def watch(
        self, sessions: Sequence[str] | None = None, *, participate: bool = False, owner: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Live update events of the owner's sessions, or of these:
        `async with luod.watch() as events: async for event in events`.

        It has a connection of its own, so that this one stays free to answer `ready` or `veto`. A watcher that
        participates and leaves the block is not ready. It goes on when luod was restarted, until the block is left;
        where luod isn't there the next event is waited for as any answer is.
        """
        stream = requests.watch(sessions, participate=participate, owner=owner)
        with closing(TrioClient(self.path, self.patience)) as own:
            async with aclosing(own._each(stream)) as events:
                yield events

    @asynccontextmanager
    async def update(
        self,
        *,
        via: Via | str | None = None,
        deadline: int | None = None,
        unready: Unready | str | None = None,
        force: bool = False,
    ) -> AsyncIterator[AsyncIterator[Progress]]:
        """Do a live update: `async with luod.update() as steps: async for progress in steps`.

        It has a connection of its own. Leaving the block before the machine is on its way aborts it. `via`: who goes
        into the next kernel. `deadline`: how many seconds those who take part have, 30 if left out. `unready`: what is
        done about those who aren't ready then. `force`: in spite of failed checks, and of what that loses.

        Raises PreflightFailed, UpdateInProgress, and UpdateAborted when it is off; Disconnected where luod ended in it,
        which is how a good one ends, too: the last phase was `executing` then, and otherwise it is off.
        """
        stream = operators.live_update(via=via, deadline=deadline, unready=unready, force=force)
        with closing(TrioClient(self.path, self.patience)) as own:
            async with aclosing(own._each(stream)) as steps:
                yield steps

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[AsyncIterator[Progress]]:
        """The progress of whatever live update goes on, until the phase is idle: of one that comes, and of what came
        over and waits for its owner. It has a connection of its own, and goes on when luod was restarted.
        """
        with closing(TrioClient(self.path, self.patience)) as own:
            async with aclosing(own._each(operators.follow())) as steps:
                yield steps

    @asynccontextmanager
    async def stream(
        self, method: str, parameters: Mapping[str, Any] | None = None, fds: Sequence[int | HasFileno] = ()
    ) -> AsyncIterator[AsyncIterator[Answer]]:
        """The answers to any Varlink method called with `more`, on a connection of its own. Their descriptors are the
        caller's to close.
        """
        stream = requests.stream(method, parameters, fds)
        with closing(TrioClient(self.path, self.patience)) as own:
            async with aclosing(own._each(stream)) as answers:
                yield answers

    def close(self) -> None:
        """Close the connection, a call that waits in another task included. No session is lost by it."""
        self._conversation.close()
        self._connecting.cancel()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _each(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        while not stream.over:
            yield await self._run(stream.next())

    async def _run(self, exchange: Exchange[T]) -> T:
        return await self._do_all(self._conversation.run(exchange))

    async def _do_all(self, steps: Steps[T]) -> T:
        async with self._lock:
            try:
                step = next(steps)
                while True:
                    try:
                        received = await self._do(step)
                    except (OSError, DescriptorsLost) as error:
                        step = steps.throw(error)
                    except trio.ClosedResourceError as error:
                        step = steps.throw(OSError(*error.args))
                    else:
                        step = steps.send(received)
            except StopIteration as end:
                value: T = end.value
                return value
            finally:
                steps.close()
                if self._conversation.over is not None:
                    self._hang_up()

    async def _do(self, step: Step) -> Received | None:
        match step, self._connection:
            case Connect(pause), _:
                self._hang_up()
                with trio.CancelScope() as self._connecting:
                    await trio.sleep(pause)
                    self._connection = await Connection.to(self.path)
            case Send(data, fds), Connection() as connection:
                await connection.send(data, fds)
            case None, Connection() as connection:
                return await connection.receive()
        return None


@asynccontextmanager
async def connect(
    path: str | None = None, *, patience: float = PATIENCE, wait: bool = False
) -> AsyncIterator[TrioClient]:
    """Connect to luod, as `luod.client.connect` does."""
    client = TrioClient(socket_path(path), patience)
    with closing(client):
        await client._do_all(client._conversation.reach(pauses(patience if wait else 0)))
        yield client
