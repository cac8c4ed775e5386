"""The flight recorder: what happens in live updates, written down until the last instruction of a kernel, and after it.

Its memory (`blackbox`) is preserved in a session of the kernel of its own as soon as luod serves, and is written in
place. The fd store has it as well, beside the session. In the next kernel what is in it goes into new memory, and the
old session is finished only when the kernel has preserved that: at every instant there is a whole one.

luod doesn't need it: where any of this fails, that is said once, and what happens is kept in this process only.
"""

import errno
import logging
import mmap
import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from luod.blackbox import BYTES, EVENTS_MOST, LEAVING, BlackBox, Event, History, Unreadable, event_of, is_black_box
from luod.errors import InvalidParameter, answered
from luod.fds import OwnedFd
from luod.kernel.api import KernelError, Session
from luod.kernel.shared import SharedKernel
from luod.memory import new_memory
from luod.moments import monotonic_offset, now, process_began, rtc_offset, since_boot, systemd_moments
from luod.names import camel
from luod.systemd import FdStore

log = logging.getLogger(__name__)

NAME: Final = "luod-flight"
"""The kernel name of the session that holds the memory, under token 0."""

_READ_MOST: Final = 16 << 20

_CLOCK_KEEPS: Final = 3600 * 1_000_000
_DRIFT: Final = 1e-4
"""For how long, in microseconds, the offset between clock and RTC is good for anything, and what it may lose of it."""


@dataclass
class Kept:
    """What the fd store brought of an earlier flight recorder. Whatever nobody took is to be closed."""

    outgoing: list[Session] = field(default_factory=list)
    incoming: list[Session] = field(default_factory=list)
    memory: list[OwnedFd] = field(default_factory=list)

    def close(self) -> None:
        """Close what is left. Does nothing the second time."""
        while self.outgoing or self.incoming:
            (self.outgoing or self.incoming).pop().give_up()
        while self.memory:
            self.memory.pop().close()


def is_record(fd: OwnedFd) -> bool:
    """Whether a regular file is a flight recorder's memory."""
    return is_black_box(os.pread(fd.fileno(), 16, 0))


class _Open(NamedTuple):
    """The kernel's session, and the memory that is preserved in it."""

    session: Session
    memfd: OwnedFd
    memory: mmap.mmap

    def close(self) -> None:
        self.memory.close()
        self.memfd.close()
        self.session.give_up()


class Recorder:
    """Notes what happens. Thread-safe; it never raises, and never waits for longer than it takes to copy its memory."""

    def __init__(self, root: Path = Path("/")) -> None:
        """`root` is where the machine's proc and sys are."""
        self._root = root
        self._lock = threading.Lock()
        self._early: list[Event] | None = []
        self._history = History()
        self._open: _Open | None = None
        self._box: BlackBox | None = None
        self._kept = Kept()
        self._hurried = False

    def note(self, what: str, who: str | None = None, *, at_usec: int | None = None, **details: Any) -> None:
        """Write down what has happened: now, or at a time by CLOCK_REALTIME in microseconds."""
        usec = now()
        event = event_of(what, who, usec if at_usec is None else at_usec, _on_the_wire(details))
        with self._lock:
            self._add(event)
            self._tick(usec)

    def tick(self) -> None:
        """Write down that luod is alive."""
        with self._lock:
            self._tick(now())

    # What is known

    @property
    def generations(self) -> list[int]:
        """Of which live updates something is known, by the generation that each led to; one that is under way, too."""
        with self._lock:
            return [generation for generation in self._history.generations if generation > 0]

    def events(self, generation: int | None = None) -> list[Event]:
        """What is known of a live update, by time; of the last one where nobody says which."""
        with self._lock:
            return self._history.events(self._meant(generation))

    def report(self, generation: int | None = None) -> dict[str, Any]:
        """The reply of io.luod.Update.Timeline. Raises InvalidParameter for a live update that nothing is known of."""
        generations = self.generations
        if generation is not None and generation not in generations:
            known = ", ".join(map(str, generations)) or "none"
            raise InvalidParameter("generation", f"nothing is known of that one; there are {known}")
        with self._lock:
            meant = self._meant(generation)
            return {"generation": meant, "generations": generations, "events": self._history.events(meant)}

    def _meant(self, generation: int | None) -> int:
        if generation is not None:
            return generation
        here = self._history.generation
        return here or max(self._history.generations, default=0)

    # Its memory

    def begin(
        self, kernel: SharedKernel, fd_store: FdStore, kept: Kept | None = None, generation: int | None = None
    ) -> None:
        """Go on with what there is, or begin anew. `kept` is what the fd store brought, `generation` the manifest's;
        where nobody knows that, it is counted on. Blocks.
        """
        kept = Kept() if kept is None else kept
        opened: _Open | None = None
        box: BlackBox | None = None
        try:
            opened, box, history = _begin(kernel, fd_store, kept, generation)
        except Exception as error:
            # Whatever this is, it must not end the process, which holds the sessions.
            log.warning("the flight recorder has only the memory of this process: %s", error)
            history = History(kernel.boot_id, generation or 0)
        with self._lock:
            self._kept = kept
            early, self._early = self._early or [], None
            self._open, self._box, self._history = opened, box, history
            for event in (*self._beginnings(), *early):
                self._add(event)
            self._tick(now())

    def look_around(self) -> None:
        """Find out what takes a while: when systemd did what, and the clock's offset. Blocks for a second, or two."""
        with self._lock:
            generation = self._history.generation
            known = {event["what"] for event in self._history.events(generation)}
            before = _monotonic_offset_before(self._history, generation)
        if "userspace" not in known:
            for what, usec in systemd_moments(before, self._root):
                self.note(what, at_usec=usec)
        self.measure_clock(leaving=False)

    def measure_clock(self, *, leaving: bool = True) -> None:
        """Note by how much CLOCK_REALTIME and the RTC differ: as a live update begins, or after one. Blocks for up to
        1.1 seconds.
        """
        offset = rtc_offset(self._root, is_over=lambda: self._hurried)
        details: dict[str, Any] = {"monotonic_usec": monotonic_offset(), "leaving": leaving}
        if offset is not None:
            details |= offset._asdict()
        self.note("clock", **details)

    def hurry(self) -> None:
        """Wait for no clock any more: luod stops."""
        self._hurried = True

    def give_up(self) -> None:
        """Close its memory. Where nobody else has it open, the kernel no longer holds it."""
        with self._lock:
            opened, self._open, self._box = self._open, None, None
            kept, self._kept = self._kept, Kept()
        if opened is not None:
            opened.close()
        kept.close()

    def _add(self, event: Event) -> None:
        if self._early is not None:
            if len(self._early) < EVENTS_MOST:
                self._early.append(event)
            return
        leaving = event["what"] in LEAVING or event.get("leaving") is True
        payload = self._history.add(self._history.generation + leaving, event)
        if self._box is not None and payload is not None and not self._box.append(payload):
            self._box.switch(self._history)

    def _tick(self, usec: int) -> None:
        if self._box is not None:
            self._box.tick(usec)

    def _beginnings(self) -> list[Event]:
        """When this process began; and the kernel and PID 1, where nobody has said it in this kernel."""
        began = {"begin": process_began("self", self._root)}
        if not self._history.has(self._history.generation, "kernel"):
            began |= {"kernel": since_boot(), "pid1": process_began("1", self._root)}
        return [event_of(what, None, usec, {}) for what, usec in began.items() if usec is not None]


def _on_the_wire(details: dict[str, Any]) -> dict[str, Any]:
    return {camel(name): value for name, value in details.items()}


# The beginning


def _begin(
    kernel: SharedKernel, fd_store: FdStore, kept: Kept, generation: int | None
) -> tuple[_Open, BlackBox, History]:
    """Go on with the memory of this kernel, or make new memory. Raises whatever fails; then `kept` has what is left."""
    there = _go_on(kernel, kept, generation)
    if there is None:
        history = _history_so_far(kernel, fd_store, kept, generation)
        _let_go(kept.outgoing, fd_store)  # of this name there can be only one
        there = _make(kernel, fd_store, history)
    try:
        _let_go(kept.incoming, fd_store, finish=True)
        _let_go(kept.outgoing, fd_store)
        while kept.memory:
            with kept.memory.pop() as memfd:
                fd_store.remove(memfd.fileno())
    except BaseException:
        there[0].close()
        raise
    return there


def _go_on(kernel: SharedKernel, kept: Kept, generation: int | None) -> tuple[_Open, BlackBox, History] | None:
    """Go on with what another luod of this kernel has left; None where there is no such thing."""
    if len(kept.outgoing) != 1 or len(kept.memory) != 1:
        return None
    with ExitStack() as undo:
        memory = undo.enter_context(mmap.mmap(kept.memory[0].fileno(), 0))
        try:
            box, history = BlackBox.open(memory)
        except Unreadable:
            return None  # which is said when it is passed over
        if history.boot_id != kernel.boot_id or generation not in (None, history.generation):
            return None
        undo.pop_all()
    return _Open(kept.outgoing.pop(), kept.memory.pop(), memory), box, history


def _history_so_far(kernel: SharedKernel, fd_store: FdStore, kept: Kept, generation: int | None) -> History:
    """What the last kernel left, or another luod of this one; an empty one where there is nothing."""
    found = []
    for data in _contents(kernel, fd_store, kept):
        try:
            box, history = BlackBox.open(data)
        except Unreadable as unreadable:
            log.warning("the flight recorder passes over what an earlier one wrote: %s", unreadable)
            continue
        if history.boot_id != kernel.boot_id:
            _enter(history, kernel.boot_id, box.last_tick)
        found.append(history)
    newest = max(found, key=lambda history: history.generation, default=None)
    if newest is not None and generation in (None, newest.generation):
        return newest
    if newest is not None:
        log.info("the flight recorder begins anew: what there is leads to generation %d", newest.generation)
    return History(kernel.boot_id, generation or 0)


def _contents(kernel: SharedKernel, fd_store: FdStore, kept: Kept) -> list[bytearray]:
    """What is in all memory that there is. What came over is in `kept` from then on."""
    contents = [_content(memfd) for memfd in kept.memory]
    if not kept.incoming:
        _retrieve(kernel, fd_store, kept)
    for session in kept.incoming:
        try:
            memfd = session.retrieve_fd(0)
        except KernelError as error:
            log.warning("the flight recorder can't have what came over: %s", error)
            continue
        with memfd:
            contents.append(_content(memfd))
    return contents


def _retrieve(kernel: SharedKernel, fd_store: FdStore, kept: Kept) -> None:
    """Retrieve what came over, if anything did, by its name."""
    with kernel.device() as device:
        try:
            kept.incoming.append(device.retrieve_session(NAME))
        except KernelError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):  # EINVAL: an earlier luod has had it
                raise
            return
        fd_store.put(kept.incoming[0].fileno())  # up to here a SIGKILL finishes it


def _content(memfd: OwnedFd) -> bytearray:
    size = min(os.fstat(memfd.fileno()).st_size, _READ_MOST)
    return bytearray(os.pread(memfd.fileno(), size, 0) if size else b"")


def _enter(history: History, boot_id: str, last_tick: int) -> None:
    """Be in the next kernel, with what the last one knew at its end."""
    before, generation = history.generation, history.generation + 1
    history.enter(boot_id, generation)
    if last_tick:
        history.add(generation, event_of("last", None, last_tick, {}))
    measured = [event for event in history.events(before) if event["what"] == "clock"]
    if measured and not history.has(generation, "clock"):
        _go_by_an_older_clock(history, measured[-1], last_tick)


def _go_by_an_older_clock(history: History, measured: Event, last_tick: int) -> None:
    """Where nobody announced the kexec: as far as the clock can't have gone far from the RTC since it was measured."""
    age = max(0, last_tick - measured["usec"])
    if age <= _CLOCK_KEEPS and isinstance(within := measured.get("withinUSec"), int):
        drift = int(age * _DRIFT)
        history.add(history.generation, {**measured, "leaving": True, "withinUSec": within + drift})


def _monotonic_offset_before(history: History, generation: int) -> int | None:
    """The last kernel's."""
    for event in history.events(generation):
        if event["what"] == "clock" and event.get("leaving") and isinstance(event.get("monotonicUSec"), int):
            return int(event["monotonicUSec"])
    return None


def _make(kernel: SharedKernel, fd_store: FdStore, history: History) -> tuple[_Open, BlackBox, History]:
    """New memory with this history, preserved and in the fd store. Raises whatever fails; then there is nothing."""
    with ExitStack() as undo:
        with answered("memfd_create"):
            memfd = undo.enter_context(new_memory(NAME, flags=0))
        with answered("fallocate"):
            os.posix_fallocate(memfd.fileno(), 0, BYTES)
        with answered("mmap"):
            memory = undo.enter_context(mmap.mmap(memfd.fileno(), BYTES))
        box = BlackBox.begin(memory, history)
        fd_store.remove()  # what couldn't be: the last session of this name
        with kernel.device() as device:
            session = device.create_session(NAME)
        undo.callback(session.give_up)
        session.preserve_fd(memfd.fileno(), 0)
        fd_store.put(session.fileno(), memfd.fileno())
        undo.pop_all()
    return _Open(session, memfd, memory), box, history


def _let_go(sessions: list[Session], fd_store: FdStore, *, finish: bool = False) -> None:
    while sessions:
        session = sessions.pop()
        if finish:
            try:
                session.finish()
            except KernelError as error:
                log.info("the kernel keeps an old flight recorder's memory until the next live update: %s", error)
        fd_store.remove(session.fileno())
        session.give_up()
