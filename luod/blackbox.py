"""The flight recorder's memory: what happened in live updates, by generation, as it stands in a memfd. No I/O here.

    head: magic, version, bytes of a half          the last sign of life: CLOCK_REALTIME in microseconds
    half: epoch, reserved, checksum (written last), then records
    record: length, checksum, JSON

There are two halves. When one is full, what is to be kept is written into the other one, whose header comes last: the
whole header with the higher epoch says which half is read. So at every instant one of them can be. A record's checksum
begins with its half's epoch, so that nothing is read that a half had in it before.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, TypeAlias

Event: TypeAlias = dict[str, Any]
"""What happened: `usec`, CLOCK_REALTIME in microseconds; `what`; `who`, where it is about somebody; and details."""

MAGIC: Final = b"LUODFLGT"
VERSION: Final = 1
BYTES: Final = 512 << 10
"""The size of the memory."""

EVENTS_MOST: Final = 500
"""Of a generation; and together they may have a quarter of a half."""

_ON_THE_WAY_OUT: Final = 0.6
"""How much of that what happens before the kexec may take, so that there is room for what comes after it."""

GENERATIONS_MOST: Final = 32

LEAVING: Final = frozenset(
    {
        *("prepare", "ready", "veto", "unready", "carried", "network", "loaded"),
        *("freeze", "frozen", "sealed", "leaving", "aborted"),
    }
)
"""What happens on the way out of a kernel: it belongs to the generation that the live update leads to."""

_HEAD: Final = struct.Struct("=8sII")
_TICK: Final = struct.Struct("=Q")
_TICK_AT: Final = 64
_HALVES_AT: Final = 128
_HALF: Final = struct.Struct("=QII")
_RECORD: Final = struct.Struct("=II")
_TEXT_MOST: Final = 200
_EVENT_MOST: Final = 1000
_OF_EARLIER_ATTEMPTS: Final = frozenset({"loaded", "aborted", "clock"})
_EARLIER_MOST: Final = 16


class Unreadable(Exception):
    """This is no flight recorder's memory that this luod can read. The text says why."""


class Writable(Protocol):
    """An mmap, or a bytearray."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes | bytearray: ...

    def __setitem__(self, place: slice, data: bytes, /) -> None: ...


@dataclass
class _Chapter:
    """What is known of a generation. `dropped` counts what found no room."""

    events: list[Event] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    size: int = 0
    dropped: int = 0

    def add(self, event: Event, payload: bytes, share: float) -> bool:
        """False where there is no room in this share of it."""
        size = self.size + _RECORD.size + len(payload)
        if len(self.events) >= share * EVENTS_MOST or size > share * ((BYTES - _HALVES_AT) // 8):
            self.dropped += 1
            return False
        self.events.append(event)
        self.payloads.append(payload)
        self.size = size
        return True

    def forget_earlier_attempts(self) -> None:
        """Keep of live updates that were aborted only how they ended."""
        kept = [place for place, event in enumerate(self.events) if event["what"] in _OF_EARLIER_ATTEMPTS]
        self.events = [self.events[place] for place in kept[-_EARLIER_MOST:]]
        self.payloads = [self.payloads[place] for place in kept[-_EARLIER_MOST:]]
        self.size = sum(_RECORD.size + len(payload) for payload in self.payloads)
        self.dropped = 0


class History:
    """What happened, by generation. `generation` and `boot_id` are those of the kernel that runs."""

    def __init__(self, boot_id: str = "", generation: int = 0) -> None:
        self.boot_id = boot_id
        self.generation = generation
        self._chapters: dict[int, _Chapter] = {}

    @property
    def generations(self) -> list[int]:
        """Those that something is known of."""
        return sorted(self._chapters)

    def events(self, generation: int) -> list[Event]:
        """What is known of it, by time; `dropped` says how much more there was."""
        if (chapter := self._chapters.get(generation)) is None:
            return []
        events = sorted(chapter.events, key=lambda event: event["usec"])
        if chapter.dropped:
            events.append({"usec": events[-1]["usec"] if events else 0, "what": "dropped", "count": chapter.dropped})
        return [dict(event) for event in events]

    def add(self, generation: int, event: Event) -> bytes | None:
        """Take an event in. Returns what is to be written of it; None where there is no room, and that is known."""
        chapter = self._chapters.setdefault(generation, _Chapter())
        if event["what"] == "prepare":
            chapter.forget_earlier_attempts()
        payload = _encoded(generation, event)
        if chapter.add(event, payload, _ON_THE_WAY_OUT if generation > self.generation else 1.0):
            return payload
        return _dropped(generation, chapter.dropped) if chapter.dropped.bit_count() == 1 else None

    def has(self, generation: int, what: str) -> bool:
        chapter = self._chapters.get(generation)
        return chapter is not None and any(event["what"] == what for event in chapter.events)

    def enter(self, boot_id: str, generation: int) -> None:
        """Be of another kernel."""
        self.boot_id, self.generation = boot_id, generation

    def payloads(self, most: int) -> list[bytes]:
        """What leads from nothing to the newest generations of this, as many as fit in `most` bytes."""
        newest: list[list[bytes]] = []
        for generation in sorted(self._chapters, reverse=True)[:GENERATIONS_MOST]:
            chapter = self._chapters[generation]
            said = [_dropped(generation, chapter.dropped)] if chapter.dropped else []
            most -= chapter.size + sum(_RECORD.size + len(payload) for payload in said)
            if most < 0:
                break
            newest.append([*chapter.payloads, *said])
        begin = json.dumps({"bootId": self.boot_id, "generation": self.generation}).encode()
        return [begin, *(payload for payloads in reversed(newest) for payload in payloads)]

    def apply(self, payload: bytes) -> None:
        """Take in what was written. Raises Unreadable."""
        try:
            match json.loads(payload):
                case {"bootId": str(boot_id), "generation": int(generation)}:
                    self.enter(boot_id, generation)
                case [int(generation), {"what": "dropped", "count": int(count)}]:
                    self._chapters.setdefault(generation, _Chapter()).dropped = count
                case [int(generation), {"what": str(), "usec": int()} as event]:
                    self.add(generation, event)
                case _:
                    raise Unreadable("it has a record that this luod doesn't know")
        except (ValueError, RecursionError):
            raise Unreadable("it has a record that is no JSON") from None


def event_of(what: str, who: str | None, usec: int, details: dict[str, Any]) -> Event:
    """An event, whatever is in it: long texts are cut, and so many details that they don't fit are left out."""
    named = {} if who is None else {"who": who[:_TEXT_MOST]}
    said = {name: _cut(value) for name, value in details.items() if value is not None}
    event = {**said, "usec": usec, "what": what[:_TEXT_MOST], **named}
    return event if len(_encoded(0, event)) <= _EVENT_MOST else {"usec": usec, "what": what[:_TEXT_MOST], **named}


def _cut(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else str(value)[:_TEXT_MOST]


def _encoded(generation: int, event: Event) -> bytes:
    return json.dumps([generation, event], separators=(",", ":")).encode()


def _dropped(generation: int, count: int) -> bytes:
    return json.dumps([generation, {"what": "dropped", "count": count}]).encode()


class BlackBox:
    """A flight recorder's memory, which is written in place. Not thread-safe."""

    def __init__(self, memory: Writable) -> None:
        """Nothing is in it until `begin` or `open`."""
        self._memory = memory
        self._half_bytes = (len(memory) - _HALVES_AT) // 16 * 8
        self._epoch = 0
        self._end = 0

    @classmethod
    def begin(cls, memory: Writable, history: History) -> Self:
        """Make one of memory that is all zeros, with what is to be kept of `history`."""
        box = cls(memory)
        memory[: _HEAD.size] = _HEAD.pack(MAGIC, VERSION, box._half_bytes)
        box.switch(history)
        return box

    @classmethod
    def open(cls, memory: Writable) -> tuple[Self, History]:
        """One that there is, and what is in it. Raises Unreadable."""
        if len(memory) < _HALVES_AT or not is_black_box(bytes(memory[: len(MAGIC)])):
            raise Unreadable("it doesn't start as a flight recorder's memory does")
        box, history = cls(memory), History()
        _, version, half = _HEAD.unpack(bytes(memory[: _HEAD.size]))
        if (version, half) != (VERSION, box._half_bytes):
            raise Unreadable(f"its version is {version}, with {len(memory)} bytes: another luod wrote it")
        box._epoch = max(box._epoch_of(half) for half in (0, 1))
        if not box._epoch:
            raise Unreadable("neither of its halves has a whole header")
        box._read(history)
        return box, history

    @property
    def last_tick(self) -> int:
        """When the last sign of life was; 0 where there was none."""
        usec: int = _TICK.unpack(bytes(self._memory[_TICK_AT : _TICK_AT + _TICK.size]))[0]
        return usec

    def tick(self, usec: int) -> None:
        """Write down that somebody is alive."""
        self._memory[_TICK_AT : _TICK_AT + _TICK.size] = _TICK.pack(usec)

    def append(self, payload: bytes) -> bool:
        """Write a record; False where there is no room, and `switch` has to make some."""
        data = _record(self._epoch, payload)
        if self._end + len(data) > self._half_bytes:
            return False
        # Length and checksum last: a reader sees the whole record or none.
        start = self._start_of(self._epoch) + self._end
        self._memory[start + _RECORD.size : start + len(data)] = data[_RECORD.size :]
        self._memory[start : start + _RECORD.size] = data[: _RECORD.size]
        self._end += len(data)
        return True

    def switch(self, history: History) -> None:
        """Go on in the other half, with what is to be kept of `history` in it: at most half of it is full then."""
        epoch = self._epoch + 1
        snapshot = b"".join(_record(epoch, payload) for payload in history.payloads(self._half_bytes // 2))
        start = self._start_of(epoch)
        self._memory[start : start + _HALF.size] = bytes(_HALF.size)
        self._memory[start + _HALF.size : start + _HALF.size + len(snapshot)] = snapshot
        self._memory[start : start + _HALF.size] = _half_header(epoch)
        self._epoch, self._end = epoch, _HALF.size + len(snapshot)

    def _start_of(self, epoch: int) -> int:
        return _HALVES_AT + epoch % 2 * self._half_bytes

    def _epoch_of(self, half: int) -> int:
        """Its epoch; 0 where its header isn't whole."""
        start = self._start_of(half)
        header = bytes(self._memory[start : start + _HALF.size])
        epoch: int = _HALF.unpack(header)[0]
        return epoch if header == _half_header(epoch) and epoch % 2 == half else 0

    def _read(self, history: History) -> None:
        """Let `history` be what is in the half that counts. Raises Unreadable."""
        start = self._start_of(self._epoch)
        self._end = _HALF.size
        for payload in _payloads(bytes(self._memory[start : start + self._half_bytes]), self._epoch):
            history.apply(payload)
            self._end += _RECORD.size + len(payload)
        if self._end == _HALF.size:
            raise Unreadable("it has no whole record")


def is_black_box(start: bytes) -> bool:
    """Whether memory that starts like this is a flight recorder's, of whichever version."""
    return start.startswith(MAGIC)


def _half_header(epoch: int) -> bytes:
    start = _HALF.pack(epoch, 0, 0)[:-4]
    return start + struct.pack("=I", zlib.crc32(start))


def _record(epoch: int, payload: bytes) -> bytes:
    return _RECORD.pack(len(payload), zlib.crc32(payload, epoch & 0xFFFFFFFF)) + payload


def _payloads(half: bytes, epoch: int) -> Iterator[bytes]:
    """What its whole records say, up to the first that isn't."""
    place = _HALF.size
    while place + _RECORD.size <= len(half):
        length, checksum = _RECORD.unpack_from(half, place)
        payload = half[place + _RECORD.size : place + _RECORD.size + length]
        if not length or len(payload) < length or zlib.crc32(payload, epoch & 0xFFFFFFFF) != checksum:
            return
        yield payload
        place += _RECORD.size + length
