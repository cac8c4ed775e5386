"""luod for its clients: `connect` for blocking code, `connect_trio` for trio.

The path of luod's socket is the argument, else $LUOD_SOCKET, else /run/luod/io.luod. All that is raised here is a
LuodError or an OSError: what luod refuses is a class of `luod.errors`, what the kernel refuses, a KernelError.

luod may be restarted at any time, and its clients needn't know: they connect again, and ask again what wasn't answered.
What a call finds done then counts as done by it.
"""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from luod.client.asking import HasFileno
from luod.client.blocking import Client, connect
from luod.client.exchange import PATIENCE, Answer
from luod.client.failures import BadReply, ClientError, Disconnected, NotRunning, RemoteError
from luod.client.operators import Check, Progress, Timeline
from luod.client.requests import Event, ToPreserve
from luod.errors import LuodError, RestoreUnavailable, SessionLost, SessionNotFound
from luod.fds import OwnedFd
from luod.interface.custody import File, Session
from luod.kernel.api import KernelError
from luod.lifecycle import Direction, Mode

if TYPE_CHECKING:
    from luod.client.on_trio import TrioClient

__all__ = [
    "Answer",
    "BadReply",
    "Check",
    "Client",
    "ClientError",
    "Direction",
    "Disconnected",
    "Event",
    "File",
    "HasFileno",
    "KernelError",
    "LuodError",
    "Mode",
    "NotRunning",
    "OwnedFd",
    "Progress",
    "RemoteError",
    "RestoreUnavailable",
    "Session",
    "SessionLost",
    "SessionNotFound",
    "Timeline",
    "ToPreserve",
    "connect",
    "connect_trio",
]


def connect_trio(
    path: str | None = None, *, patience: float = PATIENCE, wait: bool = False
) -> "AbstractAsyncContextManager[TrioClient]":
    """As `connect`, in trio: `async with connect_trio() as luod`."""
    from luod.client.on_trio import connect  # trio is slow to import, and blocking clients don't need it

    return connect(path, patience=patience, wait=wait)
