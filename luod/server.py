"""Connections: accept them, count them, and let them go without losing anything."""

import errno
import logging
from contextlib import suppress

import trio

from luod import errors
from luod.conversation import Conversation, Guests, Host
from luod.fds import FdBundle
from luod.sockets import Peer
from luod.transport import Connection
from luod.update import Event, Told

log = logging.getLogger(__name__)

_ACCEPT_PAUSE = 0.1

_LAST_WORD = 5.0
"""How long a live update may take to be brought back when luod stops, in seconds."""


class Server:
    """Serves io.luod.* and org.varlink.service on listening sockets."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._room = trio.CapacityLimiter(host.policy.limits.connections)
        self._guests: dict[int, Guests] = {}
        self._stopping = False

    def adapt(self) -> None:
        """Serve as many as the policy says now. Whoever is here already stays."""
        self._room.total_tokens = self._host.policy.limits.connections
        for guests in self._guests.values():
            guests.adapt()

    async def serve(self, listeners: list[trio.socket.SocketType], stop: trio.Event, grace: float) -> None:
        """Serve until `stop`; then accept no more, and give what is under way `grace` seconds to be answered."""
        async with trio.open_nursery() as last:
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, connections)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                self._stopping = True
                await self._end_update()
                self._host.updates.watchers.tell_all(Told(Event.STOPPING))
                for guests in self._guests.values():
                    for conversation in guests.conversations:
                        conversation.stop()
                self._host.bell.ring()
                connections.cancel_scope.deadline = trio.current_time() + grace
                last.start_soon(self._abandon_after, grace)
            last.cancel_scope.cancel()

    async def _end_update(self) -> None:
        """Bring a live update back that luod doesn't go through with, as long as it is luod's: those who take part hear
        it before anything else.
        """
        with suppress(errors.NoUpdate, errors.UpdateInProgress), trio.move_on_after(_LAST_WORD):
            self._host.updates.abort("luod stops")
            heard = self._host.bell.rings
            while self._host.updates.current is not None:
                heard = await self._host.bell.wait(heard)

    async def _abandon_after(self, grace: float) -> None:
        await trio.sleep(grace)
        for guests in self._guests.values():
            guests.abandon()

    async def _accept(self, listener: trio.socket.SocketType, connections: trio.Nursery) -> None:
        """Accept while there is room: whoever comes when there is none waits in the kernel's queue."""
        while True:
            place = object()
            await self._room.acquire_on_behalf_of(place)
            try:
                sock, _ = await listener.accept()
            except OSError as error:
                self._room.release_on_behalf_of(place)
                if error.errno != errno.ECONNABORTED:
                    # Mostly for want of descriptors. Whatever this is, it must not end the process.
                    log.warning("can't accept connections for now: %s", error.strerror)
                    await trio.sleep(_ACCEPT_PAUSE)
            except BaseException:
                self._room.release_on_behalf_of(place)
                raise
            else:
                connections.start_soon(self._welcome, Connection(sock), place)

    async def _welcome(self, connection: Connection, place: object) -> None:
        """Talk with whoever it is, and have `place` free again afterwards."""
        try:
            peer = connection.peer()
        except OSError as error:
            log.warning("a connection was ended, nobody can tell whose it is: %s", error.strerror)
            await Guests(self._host.policy).release(FdBundle([connection.hand_on()]))
        else:
            await self._talk(connection, peer)
        finally:
            self._room.release_on_behalf_of(place)

    async def _talk(self, connection: Connection, peer: Peer) -> None:
        guests = self._guests.setdefault(peer.uid, Guests(self._host.policy))
        conversation = Conversation(self._host, connection, peer, guests)
        most = self._host.policy.limits.connections_per_owner
        try:
            if len(guests.conversations) >= most:
                await conversation.refuse(errors.QuotaExceeded("connections", most))
            elif not self._stopping:
                guests.conversations.add(conversation)
                await conversation.hold()
        except Exception:
            # Whatever this is, it must not end the process, which holds the sessions.
            log.exception("the connection of uid %d, pid %d failed", peer.uid, peer.pid)
        finally:
            await guests.release(FdBundle([connection.hand_on()]))
            guests.conversations.discard(conversation)
            if guests.gone:
                self._guests.pop(peer.uid, None)
