"""luod's wiring, and the order in which it starts, reads its configuration again, and stops. Nothing else."""

import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

import luod
from luod.bell import Bell
from luod.carry_over import carry_over_if_last, carry_over_late, finish_late
from luod.config import START_ONLY, Config, ConfigError
from luod.conversation import Host
from luod.custody import Custodian
from luod.errors import KernelFailed
from luod.fds import OwnedFd
from luod.flight import Recorder
from luod.interface import custody, description, update
from luod.later import Later
from luod.methods import Methods
from luod.operations import Operations
from luod.policy import Limits, Policy
from luod.recovery import RestoreImpossible
from luod.served import SERVED, STREAMS
from luod.server import Server
from luod.sockets import FDS_MAX, address, is_listening, listen
from luod.start import Held, Nothing, StartError, take_over
from luod.store import ReadableCopy
from luod.systemd import (
    FdStore,
    Handed,
    listen_fds,
    logs_to_journal,
    notify,
    watchdog_seconds,
)
from luod.update import Updates
from luod.varlink.service import NAME as VARLINK
from luod.varlink.service import Service

if TYPE_CHECKING:
    from luod.departure import Departures
    from luod.means import Means

log = logging.getLogger(__name__)

GRACE: Final = 10.0
"""How long what is under way may take once luod is told to stop, in seconds."""

_CLOSING: Final = 1.0
_COPY_PAUSE: Final = 0.2
_COPY_SHARE: Final = 9
_OWN_DESCRIPTORS: Final = 64
_PRIORITIES: Final = {"DEBUG": "<7>", "INFO": "<6>", "WARNING": "<4>", "ERROR": "<3>", "CRITICAL": "<2>"}


@contextmanager
def _needed(what: object) -> Iterator[None]:
    """Raise StartError where the system fails luod."""
    try:
        yield
    except (OSError, KernelFailed) as error:
        raise StartError(f"{what}: {getattr(error, 'strerror', None) or error}") from None


async def run(
    config: Config,
    stop: trio.Event,
    handed: Sequence[Handed] = (),
    fd_store: FdStore | None = None,
    *,
    changes: trio.MemoryReceiveChannel[Config] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be luod until `stop`. `handed` is what the service manager handed over: listening sockets to use instead of one
    of our own, and what it kept of an earlier luod in `fd_store`. `changes` brings what is to be in force instead of
    `config`. Raises StartError.

    What can fail comes first: whoever has taken over what came over and then ends, loses it where nobody keeps it.
    """
    bell, fd_store = Bell(), FdStore() if fd_store is None else fd_store
    policy = Policy(os.geteuid(), config.limits, _room_for_descriptors(config.limits))
    settings, updates, recorder = _Settings(config, policy), Updates(policy, bell.ring), Recorder()
    with _needed("the descriptions of the interfaces"):
        service = _service()
    with _needed("what the service manager handed over"):
        sockets = [entry for entry in handed if not entry.is_kept or is_listening(entry.fd.fileno())]
    kept = [entry for entry in handed if entry not in sockets]
    async with (
        _listening(config.socket, sockets, fd_store) as (listeners, where),
        _holding(config, policy, bell, recorder, kept, fd_store) as held,
    ):
        there = held.custodian if isinstance(held, Held) else held.impossible
        means: Later[Means] = Later()
        operations = Operations(
            there,
            policy,
            updates,
            means,
            config.device,
            config.runtime_directory,
            fd_store,
            held.unclear,
            start_afresh=_starting_afresh(held, stop),
        )
        methods = Methods(there, policy, updates, recorder)
        server = Server(Host(methods, operations, service, updates, bell, policy))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stay_alive)
            if isinstance(held, Held):
                copy = ReadableCopy(config.runtime_directory / "manifest.json")
                nursery.start_soon(_follow, held.custodian, copy, bell)
                nursery.start_soon(carry_over_late, held.custodian, settings.grace, settings.changed)
                nursery.start_soon(finish_late, held.custodian, settings.patience, settings.changed)
                get_ready = partial(_get_ready, means, held, config, settings, fd_store, updates, recorder, bell)
                nursery.start_soon(_leave_some_day, get_ready, recorder, task_status)
            if changes is not None:
                nursery.start_soon(_enforce, changes, settings, server)
            notify("READY=1", f"STATUS={_summary(there)}")
            recorder.note("serving")
            log.info("listening on %s; %s", where, _summary(there))
            if not isinstance(held, Held):
                task_status.started()
            await server.serve(listeners, stop, GRACE)
            if isinstance(held, Held) and fd_store.most:
                await carry_over_if_last(held.custodian)
            nursery.cancel_scope.cancel()


def check(load: Callable[[], Config]) -> int:
    """Say what is wrong with the configuration; the exit status."""
    return 1 if _loaded(load) is None else 0


def main(load: Callable[[], Config]) -> int:
    """Be luod until SIGTERM or SIGINT, with the configuration that `load` reads; the exit status."""
    os.umask(0o022)  # whatever it was: everybody reaches the socket, and nobody else writes beside it
    logging.basicConfig(level=logging.INFO, format=_log_format(), stream=sys.stderr)
    if logs_to_journal():
        for level, priority in _PRIORITIES.items():
            logging.addLevelName(getattr(logging, level), priority)
    if (config := _loaded(load)) is None:
        return 1
    try:
        handed = listen_fds()
    except OSError as error:
        print(f"luod: the service manager announced descriptors that are not there: {error}", file=sys.stderr)
        return 1
    try:
        fd_store = FdStore.of_environment()
    except OSError as error:
        print(f"luod: nobody is at NOTIFY_SOCKET={os.environ['NOTIFY_SOCKET']}: {error.strerror}", file=sys.stderr)
        return 1
    for entry in handed:
        if entry.is_kept:
            fd_store.brought(entry)
    status = 0
    try:
        trio.run(_until_signal, config, load, handed, fd_store)
    except* StartError as group:
        print(f"luod: {group.exceptions[0]}", file=sys.stderr)
        status = 1
    return status


def _loaded(load: Callable[[], Config]) -> Config | None:
    """The configuration; None where it is bad, which is said then."""
    try:
        config = load()
        _room_for_descriptors(config.limits)
    except ConfigError as error:
        for problem in error.problems:
            print(f"luod: {problem}", file=sys.stderr)
        return None
    except StartError as error:
        print(f"luod: {error}", file=sys.stderr)
        return None
    return config


def _log_format() -> str:
    return "%(levelname)s%(message)s" if logs_to_journal() else "luod: %(message)s"


async def _until_signal(
    config: Config, load: Callable[[], Config], handed: Sequence[Handed], fd_store: FdStore
) -> None:
    stop = trio.Event()
    ask, asked = trio.open_memory_channel[None](1)
    change, changes = trio.open_memory_channel[Config](0)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, stop, ask)
            nursery.start_soon(_reload, load, asked, change)
            await run(config, stop, handed, fd_store, changes=changes)
            nursery.cancel_scope.cancel()


async def _obey(signals: AsyncIterator[int], stop: trio.Event, ask: trio.MemorySendChannel[None]) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            with suppress(trio.WouldBlock):  # one that waits already will read what is there then
                ask.send_nowait(None)
        elif not stop.is_set():
            notify("STOPPING=1")
            stop.set()


# The configuration


class _Settings:
    """The configuration that is in force."""

    def __init__(self, config: Config, policy: Policy) -> None:
        self._config = config
        self._policy = policy
        self._changed = trio.Event()

    def grace(self) -> float:
        return self._config.carry_over_seconds

    def patience(self) -> float:
        return self._config.finish_unclaimed_seconds

    def handover(self) -> Sequence[str]:
        return self._config.network.handover

    def changed(self) -> trio.Event:
        """Set when another one is in force."""
        return self._changed

    def enforce(self, config: Config) -> None:
        """Let another one be in force, as far as a luod that runs can. Raises StartError, then nothing has changed."""
        self._policy.descriptors = _room_for_descriptors(config.limits)
        self._policy.limits = config.limits
        fixed = {key: getattr(self._config, key) for key in START_ONLY}
        for key in START_ONLY:
            if getattr(config, key) != fixed[key]:
                log.warning("%s is still %s: it can't change before luod starts anew", key, fixed[key])
        self._config = config.model_copy(update=fixed)
        self._changed.set()
        self._changed = trio.Event()


async def _reload(
    load: Callable[[], Config], asked: trio.MemoryReceiveChannel[None], change: trio.MemorySendChannel[Config]
) -> None:
    """Read the configuration again whenever that is asked for. A bad one changes nothing."""
    async for _ in asked:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        await trio.to_thread.run_sync(notify, "RELOADING=1", f"MONOTONIC_USEC={now}")
        try:
            config = await trio.to_thread.run_sync(load)
        except ConfigError as error:
            await _keep_settings([str(problem) for problem in error.problems])
        else:
            await change.send(config)


async def _enforce(changes: trio.MemoryReceiveChannel[Config], settings: _Settings, server: Server) -> None:
    async for config in changes:
        try:
            settings.enforce(config)
        except StartError as error:
            await _keep_settings([str(error)])
        else:
            server.adapt()
            log.info("the configuration was read again")
            await trio.to_thread.run_sync(notify, "READY=1", "STATUS=the configuration was read again")


async def _keep_settings(why: Sequence[str]) -> None:
    for reason in why:
        log.error("the configuration stays as it was: %s", reason)
    await trio.to_thread.run_sync(notify, "READY=1", f"STATUS=the configuration stays as it was: {why[0]}")


# Wiring


@asynccontextmanager
async def _holding(
    config: Config, policy: Policy, bell: Bell, recorder: Recorder, kept: Sequence[Handed], fd_store: FdStore
) -> AsyncIterator[Held | Nothing]:
    """Hold what there is to hold. Afterwards it is closed: what nobody else has open is gone."""
    held = await trio.to_thread.run_sync(take_over, config, policy, bell.ring, recorder, kept, fd_store)
    try:
        yield held
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(held.give_up)
            recorder.give_up()
            fd_store.close()


def _room_for_descriptors(limits: Limits) -> int:
    """Have as many descriptors as this process may. How many of them are there for custody. Raises StartError."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lent = limits.threads_per_owner * FDS_MAX
    room = most - limits.connections - limits.descriptors_in_flight_per_owner - lent - _OWN_DESCRIPTORS
    if room <= 0:
        raise StartError(f"the limit of {most} open files (ulimit -n) is too low for these limits of luod's")
    return room


@asynccontextmanager
async def _listening(
    path: Path, handed: Sequence[Handed], fd_store: FdStore
) -> AsyncIterator[tuple[list[trio.socket.SocketType], str]]:
    """The sockets that were handed over, or one of our own at `path`; and where they are. Raises StartError.

    One of our own stays open in the fd store: whoever connects while there is no luod waits for the next one.
    """
    with ExitStack() as undo:
        for entry in handed:
            undo.callback(entry.fd.close)
        with _needed("the sockets that the service manager handed over"):
            if not all(is_listening(entry.fd.fileno()) for entry in handed):
                raise StartError("the service manager handed over something else than a listening Unix stream socket")
            sockets = [undo.enter_context(_socket_of(entry.fd)) for entry in handed]
        if not sockets:
            with _needed(path):
                sockets = [undo.enter_context(listen(path))]
                fd_store.put(sockets[0].fileno())
            if not fd_store.most:
                undo.callback(path.unlink, missing_ok=True)
        with _needed("the listening sockets"):
            where = ", ".join(map(address, sockets))
        for sock in sockets:
            sock.settimeout(0)
        last = undo.pop_all()
    try:
        yield [trio.socket.from_stdlib_socket(sock) for sock in sockets], where
    finally:
        # Closes what those have sent who were not accepted any more: that may take longer than it is worth.
        with trio.move_on_after(_CLOSING, shield=True):
            await trio.to_thread.run_sync(last.close, abandon_on_cancel=True)


def _socket_of(fd: OwnedFd) -> socket.socket:
    sock = socket.socket(fileno=fd.fileno())
    fd.hand_on()
    return sock


def _service() -> Service:
    service = Service(
        vendor="luod",
        product="luod",
        version=luod.__version__,
        url="https://varlink.org",
        description=description(VARLINK),
    )
    for interface in (custody.NAME, update.NAME):
        served = [
            name.removeprefix(f"{interface}.") for name in (*SERVED, *STREAMS) if name.startswith(f"{interface}.")
        ]
        service.add(interface, description(interface), served)
    return service


def _starting_afresh(held: Held | Nothing, stop: trio.Event) -> Callable[[], None]:
    """What lets the next luod begin with nothing: it comes when this one has stopped."""
    token = trio.lowlevel.current_trio_token()

    def start_afresh() -> None:
        assert isinstance(held, Nothing)
        held.allow_afresh()
        token.run_sync_soon(stop.set)

    return start_afresh


def _summary(there: Custodian | RestoreImpossible) -> str:
    if isinstance(there, RestoreImpossible):
        return f"this boot can't give anything back: {there.reason}"
    totals = there.totals()
    return f"generation {totals.generation}, {totals.sessions} sessions, {totals.files} files"


def _get_ready(
    means: "Later[Means]",
    held: Held,
    config: Config,
    settings: "_Settings",
    fd_store: FdStore,
    updates: Updates,
    recorder: Recorder,
    bell: Bell,
) -> "Departures | None":
    """Make what live updates take. Blocks. None where that fails: luod serves all the same."""
    recorder.begin(held.kernel, fd_store, held.recovered.unclear.flight, held.recovered.manifest.generation)
    try:
        from luod.departure import Departures
        from luod.means import means_of

        made = means_of(held, config, fd_store, updates, recorder, settings.handover)
    except Exception:
        # Whatever this is, it must not end the process, which holds the sessions.
        log.exception("there can be no live update by this luod")
        means.be(None)
        return None
    means.be(made)
    return Departures(updates, made, bell)


async def _leave_some_day(
    get_ready: "Callable[[], Departures | None]", recorder: Recorder, task_status: trio.TaskStatus[None]
) -> None:
    """Get ready for live updates, once others are served, and go through with them."""
    departures = await trio.to_thread.run_sync(get_ready)
    task_status.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, recorder.look_around)
        try:
            if departures is not None:
                await departures.run()
            await trio.sleep_forever()
        finally:
            recorder.hurry()


async def _stay_alive() -> None:
    """Tell the service manager, as often as it wants to hear it, that the event loop goes round."""
    if (most := watchdog_seconds()) is not None:
        while True:
            # In a thread: a service manager that is frozen holds up nobody else.
            await trio.to_thread.run_sync(notify, "WATCHDOG=1", abandon_on_cancel=True)
            await trio.sleep(most / 3)


async def _follow(custodian: Custodian, copy: ReadableCopy, bell: Bell) -> None:
    """Keep the readable copy up to date, but not more often than somebody could read it, nor at a tenth of all that
    luod does; and once more at the end.
    """
    heard = 0
    try:
        while True:
            began = trio.current_time()
            await _write(copy, custodian)
            await trio.sleep(max(_COPY_PAUSE, _COPY_SHARE * (trio.current_time() - began)))
            heard = await bell.wait(heard)
    finally:
        with trio.CancelScope(shield=True):
            await _write(copy, custodian)


async def _write(copy: ReadableCopy, custodian: Custodian) -> None:
    try:
        await trio.to_thread.run_sync(lambda: copy.write(custodian.document()))
    except Exception as error:
        # Whatever this is, it must not end the process, which holds the sessions.
        log.warning("the readable copy of the manifest can't be written: %s", error)
