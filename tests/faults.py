"""Failures of the calls that luod makes: one of them, chosen by its number, is not made and answers an errno."""

import fcntl
import itertools
import mmap
import os
import socket
import sys
from contextlib import contextmanager

from luod.kernel.api import KernelError
from luod.sim import client

_SYSTEM = [
    *(
        (os, name)
        for name in ("memfd_create", "posix_fallocate", "write", "pipe2", "pread", "fstat", "fchown", "readlink")
    ),
    (fcntl, "fcntl"),
    (mmap, "mmap"),
    (socket, "socketpair"),
    *((socket.socket, name) for name in ("__init__", "bind", "listen", "connect", "getsockname")),
    *((socket.socket, name) for name in ("sendmsg", "recvmsg", "recv", "setsockopt", "getsockopt")),
]
"""What luod calls. Not what can't fail: close() of what luod holds, detach()."""


class Faults:
    """Watches the calls of this process to the system and to the simulated kernel."""

    def __init__(self, monkeypatch):
        self._plan = None
        self.struck = ""
        for owner, name in _SYSTEM:
            monkeypatch.setattr(owner, name, self._watched(getattr(owner, name), name))
        ask = client._call

        def kernel(sock, call, *args, **fields):
            self._pass(call, lambda number: KernelError(call, number))
            return ask(sock, call, *args, **fields)

        monkeypatch.setattr(client, "_call", kernel)

    def each_call(self, errnos):
        """An errno and a number to strike with, for each call; the first for the one after the last, too."""
        for number in errnos:
            for nth in itertools.count():
                yield number, nth
                if not self.struck:
                    break

    @contextmanager
    def strike(self, nth, number):
        """Let call `nth` from now, from 0 on, fail with the errno `number`; `struck` says which it was, if any."""
        self._plan, self.struck = [nth, number], ""
        try:
            yield
        finally:
            self._plan = None

    def _watched(self, real, name):
        def call(*args, **kwargs):
            if self._plan is not None and (what := _is_luods(name)):
                self._pass(what, lambda number: OSError(number, os.strerror(number)))
            return real(*args, **kwargs)

        return call

    def _pass(self, what, error):
        if self._plan is None:
            return
        if self._plan[0] == 0:
            self.struck = what
            self._plan[0] -= 1
            raise error(self._plan[1])
        self._plan[0] -= 1


def _is_luods(name):
    """What to name a call after: what is said to the fd store, or who made it; none where that is a test's helper."""
    frame = caller = sys._getframe(2)
    if caller.f_globals["__name__"] == "trio._socket":  # it calls for whoever has the socket
        caller = caller.f_back
    if not caller.f_globals["__name__"].startswith("luod."):
        return None
    while frame is not None:
        module = frame.f_globals["__name__"]
        if module in ("manager", "memory") or module.startswith("luod.sim"):
            return None
        frame = frame.f_back
    return caller.f_locals.get("call") or f"{name} in {caller.f_code.co_qualname}"
