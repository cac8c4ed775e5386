"""luod's wiring, and the order in which it starts and stops. Nothing else."""

import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import trio

import luod
from luod.config import Config
from luod.custody import Custodian
from luod.errors import KernelFailed
from luod.fds import OwnedFd
from luod.interface import custody, description, update
from luod.kernel.api import KernelError
from luod.kernel.find import kernel_at
from luod.kernel.shared import SharedKernel
from luod.methods import SERVED, WATCH, Methods
from luod.policy import Policy
from luod.server import Server
from luod.sockets import listen
from luod.store import ReadableCopy, RestoreImpossible, SecondLuod, recover
from luod.systemd import listen_fds, logs_to_journal, notify
from luod.update import Watchers
from luod.varlink.service import NAME as VARLINK
from luod.varlink.service import Service

log = logging.getLogger(__name__)

GRACE: Final = 10.0
"""How long what is under way may take once luod is told to stop, in seconds."""

_COPY_PAUSE: Final = 0.2
_OWN_DESCRIPTORS: Final = 64
_PRIORITIES: Final = {"DEBUG": "<7>", "INFO": "<6>", "WARNING": "<4>", "ERROR": "<3>", "CRITICAL": "<2>"}


class StartError(Exception):
    """luod can't start. The text says why, and what to do."""


class _Bell:
    """Rung from any thread, heard in trio. Rung several times before it is heard, it is heard once."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._rung = trio.Event()

    def ring(self) -> None:
        self._token.run_sync_soon(self._set, idempotent=True)

    def _set(self) -> None:
        self._rung.set()

    async def wait(self) -> None:
        await self._rung.wait()
        self._rung = trio.Event()


async def run(
    config: Config,
    stop: trio.Event,
    handed: Sequence[OwnedFd] = (),
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be luod until `stop`. `handed` are listening sockets to use instead of one of its own. Raises StartError."""
    bell = _Bell()
    policy, watchers = Policy(os.geteuid()), Watchers(config.limits.watchers_per_owner)
    async with _holding(config, bell) as there, _listening(config.socket, handed) as listeners:
        server = Server(Methods(there, policy, watchers, config.device), _service(), watchers, config.limits)
        async with trio.open_nursery() as nursery:
            if isinstance(there, Custodian):
                nursery.start_soon(_follow, there, ReadableCopy(config.runtime_directory / "manifest.json"), bell)
            notify("READY=1", f"STATUS={_summary(there)}")
            log.info("listening on %s; %s", ", ".join(sock.getsockname() for sock in listeners), _summary(there))
            task_status.started()
            await server.serve(listeners, stop, GRACE)
            notify("STOPPING=1")
            nursery.cancel_scope.cancel()


def main(config: Config) -> int:
    """Be luod until SIGTERM or SIGINT; the exit status."""
    logging.basicConfig(level=logging.INFO, format=_log_format(), stream=sys.stderr)
    if logs_to_journal():
        for level, priority in _PRIORITIES.items():
            logging.addLevelName(getattr(logging, level), priority)
    try:
        handed = [fd for _, fd in listen_fds()]
    except OSError as error:
        print(f"luod: the service manager announced descriptors that are not there: {error}", file=sys.stderr)
        return 1
    status = 0
    try:
        trio.run(_until_signal, config, handed)
    except* StartError as group:
        print(f"luod: {group.exceptions[0]}", file=sys.stderr)
        status = 1
    return status


def _log_format() -> str:
    return "%(levelname)s%(message)s" if logs_to_journal() else "luod: %(message)s"


async def _until_signal(config: Config, handed: Sequence[OwnedFd]) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            nursery.start_soon(_stop_at, signals, stop)
            await run(config, stop, handed)
            nursery.cancel_scope.cancel()


async def _stop_at(signals: AsyncIterator[int], stop: trio.Event) -> None:
    async for _ in signals:
        stop.set()


@asynccontextmanager
async def _holding(config: Config, bell: _Bell) -> AsyncIterator[Custodian | RestoreImpossible]:
    """Hold what there is to hold. Afterwards nothing of it is held: what nobody else has open is gone."""
    soft = _raise_descriptor_limit()
    there = await trio.to_thread.run_sync(_take_over, config, soft, bell)
    try:
        yield there
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(there.give_up_all)


def _take_over(config: Config, descriptors: int, bell: _Bell) -> Custodian | RestoreImpossible:
    try:
        kernel = SharedKernel(kernel_at(config.device))
        recovered = recover(kernel)
    except RestoreImpossible as impossible:
        log.error("this boot can't give anything back: %s", impossible.reason)
        return impossible
    except SecondLuod as error:
        raise StartError(f"{error}: stop it first, or use another --device") from None
    except (KernelError, KernelFailed) as error:
        raise StartError(f"{config.device}: {error}") from None
    for note in recovered.notes:
        log.warning("%s", note)
    limits = config.limits
    room = descriptors - limits.connections - limits.descriptors_in_flight_per_owner - _OWN_DESCRIPTORS
    if room <= 0:
        raise StartError(f"the limit of {descriptors} open files (ulimit -n) is too low for these limits of luod's")
    return Custodian(kernel, recovered.manifest, recovered.journal, limits, descriptors=room, changed=bell.ring)


def _raise_descriptor_limit() -> int:
    """Have as many descriptors as this process may; each file in custody is one. How many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@asynccontextmanager
async def _listening(path: Path, handed: Sequence[OwnedFd]) -> AsyncIterator[list[trio.socket.SocketType]]:
    """The sockets that were handed over, or one of our own at `path`. Raises StartError."""
    with ExitStack() as stack:
        try:
            sockets = [stack.enter_context(socket.socket(fileno=fd.hand_on())) for fd in handed]
            if not sockets:
                sockets = [stack.enter_context(listen(path))]
        except OSError as error:
            raise StartError(f"{path}: {error.strerror or error}") from None
        for sock in sockets:
            sock.settimeout(0)
        yield [trio.socket.from_stdlib_socket(sock) for sock in sockets]


def _service() -> Service:
    service = Service(
        vendor="luod",
        product="luod",
        version=luod.__version__,
        url="https://varlink.org",
        description=description(VARLINK),
    )
    for interface in (custody.NAME, update.NAME):
        served = [name.removeprefix(f"{interface}.") for name in (*SERVED, WATCH) if name.startswith(f"{interface}.")]
        service.add(interface, description(interface), served)
    return service


def _summary(there: Custodian | RestoreImpossible) -> str:
    if isinstance(there, RestoreImpossible):
        return f"this boot can't give anything back: {there.reason}"
    totals = there.totals()
    return f"generation {totals.generation}, {totals.sessions} sessions, {totals.files} files"


async def _follow(custodian: Custodian, copy: ReadableCopy, bell: _Bell) -> None:
    """Keep the readable copy up to date, but not more often than somebody could read it."""
    while True:
        try:
            await trio.to_thread.run_sync(lambda: copy.write(custodian.document()))
        except OSError as error:
            log.warning("the readable copy of the manifest can't be written: %s", error)
        await trio.sleep(_COPY_PAUSE)
        await bell.wait()
