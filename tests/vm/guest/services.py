"""What services are handed by systemd: another one than luod, with a session of its own, and luod itself."""

import os
import signal
from pathlib import Path

from luod.fds import OwnedFd
from luod.kernel.api import came_over
from luod.kernel.device import LuoSession
from luod.systemd import listen_fds, notify

SESSION = "state"
CONTENT = b"the neighbour's"


def keep():
    """Be a service with a session of its own: give it a file, or say what came over in it. And stay."""
    (session,) = [LuoSession(entry.fd) for entry in listen_fds() if entry.name == SESSION]
    if came_over(session):
        with session.retrieve_fd(0) as file:
            print("came over:", os.pread(file.fileno(), 100, 0).decode(), flush=True)
    else:
        with OwnedFd(os.memfd_create(SESSION, os.MFD_CLOEXEC)) as file:
            os.write(file.fileno(), CONTENT)
            session.preserve_fd(file.fileno(), 0)
        print("given", flush=True)
    notify("READY=1")
    signal.pause()


def handed(pid):
    """How many descriptors a service of this number was started with."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(int(line.removeprefix(b"LISTEN_FDS=")) for line in environment if line.startswith(b"LISTEN_FDS="))


def write(path, text):
    """Write a file, and what leads to it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
