"""One connection: read calls, have them served one after the other, answer.

The event loop never closes, stats or asks a descriptor of a client: that can block for as long as a stranger
likes. It is done in threads, a few for each owner, so whoever keeps them busy waits for himself only.
"""

import logging
import math
import resource
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import trio

from luod import errors
from luod.bell import Bell
from luod.fds import FdBundle
from luod.interface import custody, update
from luod.kernel.api import KernelError
from luod.lifecycle import Phase, Via
from luod.methods import Methods, Request
from luod.operations import Operations
from luod.policy import Policy
from luod.served import FOLLOW, LOAD, RETRIEVE, SERVED, START, WATCH
from luod.sockets import DescriptorsLost, Peer
from luod.systemd import unit_of
from luod.transport import Connection
from luod.update import Event, LiveUpdate, Progress, Told, Updates, Watcher
from luod.varlink.framing import Framer, Message
from luod.varlink.messages import Call, ProtocolError, Reply
from luod.varlink.service import NAME as VARLINK
from luod.varlink.service import Service

log = logging.getLogger(__name__)

T = TypeVar("T")

_EVENTS_AHEAD = 16
"""How many events a watcher may be behind before its connection is ended."""

_LOOK_PAUSE = 0.1
_LOOK_SHARE = 9
"""How long whoever looks on isn't told of more owners who came back, in seconds, and as a multiple of what the last
look took.
"""

_LAST_PATIENCE = 0.1
"""How long a close may take that begins when luod is about to end, in seconds."""


class Ended(Exception):
    """The connection is over. What had to be said was said."""


class Outgoing(NamedTuple):
    """A reply as it is sent, and the descriptors that go with it: they are closed afterwards."""

    data: bytes
    fds: FdBundle


class Guests:
    """The connections of one owner, and what they share: threads, and room for descriptors that came and wait.

    `reading` lets the event loop read one message of theirs and then turn to others, however many they have sent.
    `lending` is for replies that carry many descriptors: as long as nobody reads them they are open in luod.
    """

    def __init__(self, policy: Policy) -> None:
        self.conversations: set[Conversation] = set()
        self.reading = trio.Lock()
        self.lending = trio.CapacityLimiter(policy.limits.threads_per_owner)
        self._threads = trio.CapacityLimiter(policy.limits.threads_per_owner)
        self._strangers = trio.CapacityLimiter(1)
        self._policy = policy
        self._in_flight = 0
        self._closing: set[trio.CancelScope] = set()
        self._patience = math.inf

    @property
    def gone(self) -> bool:
        """Whether nothing is left of this owner, no thread that is still at work either."""
        return not self.conversations and not self._threads.borrowed_tokens

    def adapt(self) -> None:
        """Have as many threads as the policy says now."""
        for limiter in (self.lending, self._threads):
            limiter.total_tokens = self._policy.limits.threads_per_owner

    async def run(self, work: Callable[[], T]) -> T:
        """Do in a thread of this owner's what may block. Once begun it is never abandoned."""
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    async def read(self, work: Callable[[], T]) -> T:
        """Do in a thread of its own what reads a stranger's file, which may never come: nothing else waits for it, nor
        does the end of luod.
        """
        return await trio.to_thread.run_sync(work, limiter=self._strangers, abandon_on_cancel=True)

    def count(self, arrived: int) -> None:
        """Count descriptors that a client sent; `close` counts them off again. Raises QuotaExceeded."""
        self._in_flight += arrived
        most = self._policy.limits.descriptors_in_flight_per_owner
        if self._in_flight > most:
            raise errors.QuotaExceeded("descriptors in flight", most)

    async def close(self, fds: FdBundle) -> None:
        """Close descriptors that a client sent, however long it takes."""
        count = len(fds)
        await self.release(fds)
        self._in_flight -= count

    async def release(self, fds: FdBundle) -> None:
        """Close descriptors of luod's own: the last close of a large file takes its time, too."""
        if not len(fds):
            return
        with trio.move_on_after(self._patience, shield=True) as scope:
            self._closing.add(scope)
            try:
                await trio.to_thread.run_sync(_close, fds, limiter=self._threads, abandon_on_cancel=True)
            finally:
                self._closing.discard(scope)

    def abandon(self) -> None:
        """Wait no longer for what is being closed, or will be: the end of the process closes it."""
        self._patience = _LAST_PATIENCE
        for scope in self._closing:
            scope.cancel()


def _close(fds: FdBundle) -> None:
    try:
        fds.close()
    except OSError as error:
        log.debug("a descriptor was closed with %s", error)


def name_of(peer: Peer) -> str:
    """Who that is, for people: the unit, or the uid, and the process."""
    return f"{unit_of(peer.pid) or f'uid {peer.uid}'} (process {peer.pid})"


def _progress(progress: Progress) -> update.ProgressReply:
    return update.ProgressReply(
        phase=progress.phase,
        ready=progress.ready,
        waiting=list(progress.waiting),
        detail=progress.detail,
        update=progress.update,
        deadline_usec=progress.deadline_usec,
    )


def _refusal(error: errors.WireError) -> bytes:
    return Reply(error.parameters(), error=error.wire_name()).encode()


@dataclass(frozen=True)
class Host:
    """Who serves: what all conversations are had with. `bell` rings when anything has changed that is told of."""

    methods: Methods
    operations: Operations
    service: Service
    updates: Updates
    bell: Bell
    policy: Policy


class Conversation:
    """One client's connection, from the first byte to the last."""

    def __init__(self, host: Host, connection: Connection, peer: Peer, guests: Guests) -> None:
        self._host = host
        self._connection = connection
        self._peer = peer
        self._guests = guests
        self._framer = Framer()
        self._streams = {WATCH: self._watch, START: self._start, FOLLOW: self._follow}
        self._idle = trio.CancelScope()
        self._stopping = False

    def stop(self) -> None:
        """Answer what was asked, then end."""
        self._stopping = True
        self._idle.cancel()

    async def hold(self) -> None:
        """Talk until one side ends it."""
        try:
            while (message := await self._next_message()) is not None:
                await self._answer(message)
        except ProtocolError as error:
            await self.refuse(errors.InvalidParameter(error.parameter, error.reason))
        except errors.QuotaExceeded as error:
            await self.refuse(error)
        except Ended:
            pass
        finally:
            await self._guests.close(self._framer.take_fds())

    async def refuse(self, error: errors.WireError) -> None:
        """Say why there is no talking."""
        with suppress(Ended):
            await self._send(_refusal(error))

    # Reading

    async def _next_message(self) -> Message | None:
        """The next message, or None where there is none to be served any more.

        Raises ProtocolError or QuotaExceeded for what ends the connection.
        """
        deadline = trio.current_time() + self._host.policy.limits.half_message_seconds
        while not self._stopping:
            async with self._guests.reading:
                message = self._framer.next_message()
            if message is not None:
                return message
            partial = self._framer.partial
            with trio.CancelScope(deadline=deadline if partial else math.inf) as self._idle:
                if not await self._receive():
                    self._framer.end()
                    return None
            if self._idle.cancelled_caught and partial and not self._stopping:
                raise ProtocolError(
                    "message", f"is not complete after {self._host.policy.limits.half_message_seconds:g} seconds"
                )
            if not partial:
                deadline = trio.current_time() + self._host.policy.limits.half_message_seconds
        return None

    async def _receive(self) -> bool:
        """Take in what comes next. False at the end of the stream."""
        try:
            data, fds = await self._connection.receive()
        except OSError:
            raise Ended from None
        except DescriptorsLost as lost:
            self._take_in(b"", lost.fds)
            raise errors.QuotaExceeded("descriptors", resource.getrlimit(resource.RLIMIT_NOFILE)[0]) from None
        self._take_in(data, fds)
        return bool(data)

    def _take_in(self, data: bytes, fds: FdBundle) -> None:
        arrived = len(fds)
        self._framer.feed(data, fds)
        self._guests.count(arrived)

    # Answering

    async def _answer(self, message: Message) -> None:
        """Serve a message and send its replies. Its descriptors are closed here, whatever happens."""
        call = None
        try:
            call = Call.read(message.body)
            if call.upgrade:
                raise errors.InvalidParameter("upgrade", "there is nothing to upgrade a connection to")
            if call.method in self._streams:
                await self._stream(call)
            else:
                async with self._guests.lending if call.method == RETRIEVE else nullcontext():
                    await self._send_all(call, await self._serve(call, message.fds))
        except errors.WireError as error:
            if call is not None and not call.oneway:
                await self._send(_refusal(error))
        finally:
            await self._guests.close(message.fds)

    async def _serve(self, call: Call, fds: FdBundle) -> list[Outgoing]:
        """Have a call done: the replies to it. Raises WireError."""
        interface, member = self._host.service.find(call.method)
        if interface == VARLINK:
            return [Outgoing(Reply(self._host.service.answer(member, call.parameters)).encode(), FdBundle())]
        try:
            run = self._guests.read if call.method == LOAD else self._guests.run
            return await run(lambda: self._do(call, fds))
        except KernelError as error:
            raise errors.KernelFailed(error.call, error.errno) from None
        except OSError as error:
            log.error("%s of uid %d failed: %s", call.method, self._peer.uid, error)
            raise errors.KernelFailed("system call", error.errno or 0) from None
        except errors.WireError:
            raise
        except Exception:
            # Whatever this is, it must not end the process, which holds the sessions.
            log.exception("%s of uid %d failed", call.method, self._peer.uid)
            raise Ended from None

    def _do(self, call: Call, fds: FdBundle) -> list[Outgoing]:
        """Do a call, in a thread: what it takes to read and to write much is done there as well."""
        served = SERVED[call.method]
        request = Request(self._peer, served.method.parameters.read(call.parameters), fds, more=call.more)
        answers = served.call(self._host.operations if served.for_operators else self._host.methods, request)
        return [
            Outgoing(Reply(answer.parameters, continues=position < len(answers)).encode(), answer.fds)
            for position, answer in enumerate(answers, 1)
        ]

    async def _send_all(self, call: Call, replies: list[Outgoing]) -> None:
        """Send the replies to a call, and close the descriptors that went with them."""
        try:
            for data, fds in replies:
                if not call.oneway:
                    await self._send(data, [fd.fileno() for fd in fds])
        finally:
            for _, fds in replies:
                await self._guests.release(fds)

    async def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a reply, with borrowed descriptors. Raises Ended where nobody reads it."""
        try:
            with trio.fail_after(self._host.policy.limits.slow_reader_seconds):
                await self._connection.send(data, fds)
        except (OSError, trio.TooSlowError):
            raise Ended from None

    # Streams

    async def _stream(self, call: Call) -> None:
        """Answer with more and more, until it is over or the client goes: no other call is taken on this connection."""
        if not call.more:
            raise errors.ExpectedMore
        if self._framer.waiting:  # kept meanwhile, the client's own end of this connection could keep it open for ever
            member = call.method.rpartition(".")[2]
            raise ProtocolError("message", f"comes behind {member}, which takes its connection for itself")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_client_goes, nursery.cancel_scope)
                await self._streams[call.method](call, nursery.cancel_scope)
                nursery.cancel_scope.cancel()
        except* errors.WireError as refused:
            raise refused.exceptions[0] from None
        except* Ended:
            pass
        raise Ended

    async def _until_client_goes(self, streaming: trio.CancelScope) -> None:
        await self._receive()
        streaming.cancel()

    async def _watch(self, call: Call, watching: trio.CancelScope) -> None:
        """Tell of events until luod stops."""
        asked = custody.WatchParameters.read(call.parameters)
        uid = self._host.methods.owner(Request(self._peer, asked, FdBundle())).uid
        sender, events = trio.open_memory_channel[Told](_EVENTS_AHEAD)

        def tell(told: Told) -> None:
            try:
                sender.send_nowait(told)
            except trio.WouldBlock:
                watching.cancel()

        names = None if asked.sessions is None else frozenset(asked.sessions)
        name = await self._guests.run(lambda: name_of(self._peer))
        watcher = Watcher(uid, tell, name, names, participate=bool(asked.participate))
        self._host.updates.watchers.add(watcher)
        try:
            await self._tell(Told(Event.WATCHING), watcher.secret)
            if self._host.updates.current is not None:
                late = await self._guests.run(lambda: self._host.operations.taking_part(watcher))
                self._host.updates.join(late)
            if await self._guests.run(lambda: self._host.methods.anything_incoming(uid, names)):
                await self._tell(Told(Event.RESTORED))
            async for told in events:
                await self._tell(told)
                if told.event is Event.STOPPING:
                    break
        finally:
            self._host.updates.leave(watcher)

    async def _tell(self, told: Told, secret: str | None = None) -> None:
        reply = custody.WatchReply(
            event=told.event,
            watcher=secret,
            update=told.update,
            deadline_usec=told.deadline_usec,
            reason=told.reason,
        )
        await self._send(Reply(reply.wire(), continues=told.event is not Event.STOPPING).encode())

    async def _start(self, call: Call, _: trio.CancelScope) -> None:
        """Go through with a live update. Whoever began it and goes away doesn't want it any more."""
        asked = update.StartParameters.read(call.parameters)
        begun = await self._guests.run(lambda: self._host.operations.begin(Request(self._peer, asked, FdBundle())))
        try:
            await self._tell_progress(begun)
        finally:
            if begun.error is None:
                with suppress(errors.NoUpdate, errors.UpdateInProgress):
                    self._host.updates.abort("whoever began it went away")
        if begun.error is not None:
            raise begun.error

    async def _follow(self, call: Call, _: trio.CancelScope) -> None:
        """Look on until luod is idle. While owners come back by the thousand it takes but a share of what luod does."""
        update.METHODS["Follow"].parameters.read(call.parameters)
        self._host.policy.require_operator(self._peer.uid)
        heard, said = self._host.bell.rings, None
        while not self._goes_without_luod():
            began = trio.current_time()
            progress = await self._guests.run(self._host.operations.progress)
            if progress.phase is Phase.IDLE:
                await self._send(Reply(_progress(progress).wire()).encode())
                return
            if progress != said:
                await self._send(Reply(_progress(progress).wire(), continues=True).encode())
                said = progress
            if progress.phase is Phase.RESTORING and not self._stopping:
                with trio.CancelScope() as self._idle:
                    await trio.sleep(max(_LOOK_PAUSE, _LOOK_SHARE * (trio.current_time() - began)))
            heard = await self._host.bell.wait(heard)

    async def _tell_progress(self, begun: LiveUpdate) -> None:
        """Say how far it has come, now and at each change."""
        heard, said = self._host.bell.rings, None
        while begun.error is None and not self._goes_without_luod():
            progress = await self._guests.run(self._host.operations.progress)
            if progress != said and begun.error is None:
                await self._send(Reply(_progress(progress).wire(), continues=True).encode())
                said = progress
                self._host.updates.told(begun, progress.phase)
            heard = await self._host.bell.wait(heard)

    def _goes_without_luod(self) -> bool:
        """When luod stops, only what it brings back is waited for, or goes by itself: PID 1 goes without it, and owners
        come to the next one, to which whoever looks on goes on, too.
        """
        current = self._host.updates.current
        return self._stopping and (
            current is None or (self._host.updates.phase is Phase.EXECUTING and current.via is Via.SYSTEMD)
        )
