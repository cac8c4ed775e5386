"""A service manager with a file descriptor store, as a test sees it: sd_notify(3) on a socket of its own."""

import os
import socket
import threading
from contextlib import contextmanager

from luod.fds import OwnedFd
from luod.sockets import CONTROL_BYTES, received
from luod.systemd import FdStore, Handed


class Manager:
    """Keeps what it is told to keep; whoever looks at it finds all that was sent before."""

    def __init__(self, most=1000):
        self.most = most
        self._entries = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind("")
        self.address = "@" + self._sock.getsockname()[1:].decode()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def store(self):
        """The store as luod has it, with all that it was handed: both belong to the caller."""
        store, handed = FdStore(self.address, self.most), self.handed()
        for entry in handed:
            store.brought(entry)
        return store, handed

    def handed(self):
        """What a new process would be handed."""
        return [Handed(name, OwnedFd.duplicate_of(fd)) for name, fd in self.entries]

    @property
    def entries(self):
        """What it keeps, (name, descriptor) in order: a list that a test may change."""
        self.settle()
        return self._entries

    @property
    def names(self):
        return [name for name, _ in self.entries]

    def forget(self, *names):
        """Lose entries."""
        self.settle()
        for name in names:
            self._remove(name)

    def close(self):
        self._say(b"END=1")
        self._thread.join()
        self._sock.close()
        for _, fd in self._entries:
            os.close(fd)

    def settle(self):
        """Wait until it has read all that was sent."""
        store = FdStore(self.address, 1)
        store.barrier()
        store.close()

    def _say(self, text):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text, "\0" + self.address[1:])

    def _serve(self):
        while True:
            data, control, flags, _ = self._sock.recvmsg(4096, CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
            words = dict(line.split("=", 1) for line in data.decode().splitlines())
            with received(control, flags) as fds:
                if "END" in words:
                    return
                if "FDSTORE" in words:
                    assert words["FDPOLL"] == "0"
                    self._entries += [(words["FDNAME"], fd.hand_on()) for fd in fds]
                elif "FDSTOREREMOVE" in words:
                    self._remove(words["FDNAME"])

    def _remove(self, name):
        for entry in [entry for entry in self._entries if entry[0] == name]:
            self._entries.remove(entry)
            os.close(entry[1])


@contextmanager
def service_manager(most=1000):
    manager = Manager(most)
    try:
        yield manager
    finally:
        manager.close()
