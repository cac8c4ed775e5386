"""The simulated kernel behind its socket: who holds what, and what each request does.

Closing is synchronous in a kernel: whoever closed a descriptor finds it closed at its next call. Here the last
close is seen as a hangup, so all pending hangups are dealt with after a request was read and before it is carried
out. What a holder asked for before it hung up comes first.
"""

import errno
import heapq
import itertools
import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from luod.fds import FdBundle, OwnedFd
from luod.kernel.api import Call
from luod.sim import wire
from luod.sim.kernel import Kernel, Session
from luod.sim.listener import Listener
from luod.sim.request import Request

_REBOOTS: Final = ("kexec", Call.KEXEC)

Answer = dict[str, Any] | OwnedFd | None
"""What a call gives back: fields of the reply, or a descriptor beside it."""


class End:
    """Our end of what a client holds: a session, or a connection (the device, if it was opened on it)."""

    __slots__ = ("busy_until", "opener", "session", "sock", "unread")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.session: Session | None = None
        self.opener = False
        self.busy_until = 0.0
        self.unread: deque[wire.Message] = deque()

    def read(self) -> bool:
        """Take one message if one is there. False at the end: no more will come."""
        try:
            message = wire.receive(self.sock, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if message is None:
            return False
        self.unread.append(message)
        return True

    def read_all(self) -> None:
        """Take what a holder that hung up has left."""
        while self.read():
            pass

    def close(self) -> None:
        self.sock.close()
        while self.unread:
            self.unread.popleft().fds.close()


class Server:
    """One simulated kernel, for whoever connects to the listener."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._kernel = Kernel()
        self._ends: dict[int, End] = {}
        self._late: list[tuple[float, int, Callable[[], None]]] = []
        self._busy_until = 0.0
        self._delays: dict[str, float] = {}
        self._count = itertools.count()
        self._mark = wire.SESSION + os.urandom(8).hex().encode()
        self._ready = select.epoll()
        self._hangups = select.epoll()
        self._ready.register(listener, select.EPOLLIN)
        self._on_connection: dict[str, Callable[[End, Request], Answer]] = {
            Call.OPEN: self._open,
            Call.CREATE_SESSION: lambda end, request: self._make_session(end, request, self._kernel.create_session),
            Call.RETRIEVE_SESSION: lambda end, request: self._make_session(end, request, self._kernel.retrieve_session),
            "boot_id": lambda end, request: {"boot_id": self._kernel.boot_id},
            "state": lambda end, request: _in_memory(self._kernel.state()),
            "machine": lambda end, request: _in_memory(self._kernel.machine()),
            "kexec": lambda end, request: self._kexec(
                lambda: self._kernel.kexec(carry=request.carry(), open_error=request.errno())
            ),
            Call.KEXEC_LOAD: self._load,
            Call.KEXEC_UNLOAD: lambda end, request: self._kernel.unload(),
            Call.KEXEC: lambda end, request: self._kexec(self._kernel.enter_next),
            "fault": self._fault,
            "delay": self._delay,
            "clear": self._clear,
        }
        self._on_session: dict[str, Callable[[Session, Request], Answer]] = {
            Call.PRESERVE_FD: self._preserve_fd,
            Call.RETRIEVE_FD: lambda session, request: self._kernel.retrieve_fd(session, request.token()),
            Call.FINISH: lambda session, request: self._kernel.finish(session),
            Call.GET_NAME: lambda session, request: {"name": self._kernel.get_name(session)},
        }

    def serve(self, stop: socket.socket) -> None:
        """Serve until there is something to read from `stop`."""
        self._ready.register(stop, select.EPOLLIN)
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for fd, event in self._ready.poll(wait):
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == stop.fileno():
                    return
                elif fd in self._ends:
                    self._turn(self._ends[fd], event)
            while self._late and self._late[0][0] <= time.monotonic():
                heapq.heappop(self._late)[2]()

    def close(self) -> None:
        """Stop being a kernel: everything is gone."""
        for end in self._ends.values():
            end.close()
        self._kernel.shut_down()
        self._ready.close()
        self._hangups.close()

    def _accept(self) -> None:
        if (sock := self._listener.accept()) is not None:
            end = End(sock)
            try:
                self._watch(end)
            except OSError:
                self._forget(end)

    def _watch(self, end: End) -> None:
        self._ends[end.sock.fileno()] = end
        self._ready.register(end.sock, select.EPOLLIN | select.EPOLLRDHUP)
        self._hangups.register(end.sock, 0)

    def _forget(self, end: End) -> None:
        """Close an end. A client may hold a duplicate of it, so its close alone wouldn't end the watch."""
        for watch in (self._ready, self._hangups):
            with suppress(FileNotFoundError):
                watch.unregister(end.sock)
        self._ends.pop(end.sock.fileno(), None)
        end.close()

    def _turn(self, end: End, event: int) -> None:
        if not end.read() and event & (select.EPOLLRDHUP | select.EPOLLHUP) == select.EPOLLRDHUP:
            self._ready.modify(end.sock, 0)  # it was shut down for writing, but is still held
        self._settle()
        while end.unread:
            self._answer(end, end.unread.popleft())

    def _settle(self) -> None:
        """Deal with every hangup so far, first with those that left nothing to do."""
        while hung := [self._ends[fd] for fd, _ in self._hangups.poll(0)]:
            for end in hung:
                end.read_all()
            for end in sorted(hung, key=lambda end: len(end.unread)):
                while end.unread:
                    self._answer(end, end.unread.popleft())
                if self._ends.get(end.sock.fileno()) is end:  # else a kexec has ended it
                    self._forget(end)
                    if end.session is not None:
                        self._kernel.release(end.session)
                    if end.opener:
                        self._kernel.close()

    def _answer(self, end: End, message: wire.Message) -> None:
        """Carry a request out and reply. One that brings no socket for the reply is dropped."""
        call = str(message.body.get("call"))
        if call in _REBOOTS and time.monotonic() < self._busy_until:  # reboot() waits for calls under way
            self._later(self._busy_until, partial(self._answer, end, message))
            return
        body: dict[str, Any] = {"errno": 0}
        gift = FdBundle()
        with message.fds:
            try:
                reply = wire.taken(message.fds[0])
            except (IndexError, OSError):
                return
            fds = list(message.fds)[1:]
            try:
                if not message.whole:
                    raise OSError(errno.ENFILE, "the simulator has no descriptor left")
                answer = self._carry_out(end, call, Request(message.body, fds))
                if isinstance(answer, OwnedFd):
                    gift.add(answer)
                else:
                    body.update(answer or {})
            except OSError as error:
                body = {"errno": error.errno or errno.EIO}
        self._reply_in_time(end, call, partial(_reply, reply, body, gift))

    def _carry_out(self, end: End, call: str, request: Request) -> Answer:
        if end.session is not None:
            if call in self._on_session:
                return self._on_session[call](end.session, request)
        elif call in self._on_connection:
            return self._on_connection[call](end, request)
        raise OSError(errno.ENOTTY, "no such call")

    def _reply_in_time(self, end: End, call: str, reply: Callable[[], None]) -> None:
        """Reply now, or as late as was asked for. Calls on one session wait for each other, GET_NAME for none."""
        now = time.monotonic()
        when = now + self._delays.get(call, 0)
        if end.session is not None and call != Call.GET_NAME:
            when = end.busy_until = max(now, end.busy_until) + self._delays.get(call, 0)
        if when > now:
            self._busy_until = max(self._busy_until, when)
            self._later(when, reply)
        else:
            reply()

    def _later(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._late, (when, next(self._count), action))

    def _open(self, end: End, request: Request) -> None:
        self._kernel.open()
        end.opener = True

    def _make_session(self, end: End, request: Request, make: Callable[[str], Session]) -> None:
        """The client made the pair of sockets, so that it can't lack a descriptor once the session is made."""
        if not end.opener:
            raise OSError(errno.ENODEV, "the device isn't open here")
        name = request.name()
        made = End(request.sock())
        try:
            made.sock.bind(b"%b/%d" % (self._mark, next(self._count)))
            self._watch(made)
            made.session = make(name)
        except OSError:
            self._forget(made)
            raise

    def _preserve_fd(self, session: Session, request: Request) -> None:
        fd = request.fd()
        self._kernel.preserve_fd(session, None if fd is None else fd.fileno(), request.token())

    def _load(self, end: End, request: Request) -> None:
        kernel, initrd = (None if fd is None else fd.fileno() for fd in (request.fd(0), request.fd(1)))
        self._kernel.load(kernel, request.command_line(), initrd)

    def _kexec(self, kexec: Callable[[], None]) -> None:
        kexec()
        for old in list(self._ends.values()):
            if old.session is not None or old.opener:
                self._forget(old)

    def _fault(self, end: End, request: Request) -> None:
        self._kernel.faults.plan(request.call(), request.errno(least=1), request.nth())

    def _delay(self, end: End, request: Request) -> None:
        self._delays[request.call()] = request.seconds()

    def _clear(self, end: End, request: Request) -> None:
        self._kernel.faults.clear()
        self._delays.clear()


def _in_memory(what: dict[str, Any]) -> OwnedFd:
    """As JSON in a memfd, for it can be longer than a packet."""
    text = OwnedFd(os.memfd_create("luod.sim answer", os.MFD_CLOEXEC))
    with open(text.fileno(), "w", encoding="ascii", closefd=False) as file:
        json.dump(what, file)
    return text


def _reply(sock: socket.socket, body: dict[str, Any], gift: FdBundle) -> None:
    """Send a reply; whoever isn't there any more gets none."""
    with gift, sock, suppress(OSError):
        wire.send(sock, body, [fd.fileno() for fd in gift], socket.MSG_DONTWAIT)
