"""Bytes and descriptors in, messages out.

A message is a JSON object and a NUL. Its descriptors were sent with its first byte; its parameters name them by their
index in it, under `fileDescriptorIndex` or a key that ends in `FileDescriptor`, where null names none. They name
exactly 0..n-1, each once, and the message takes the next n in order of arrival: so it doesn't matter how the kernel
cuts the stream. A descriptor that the message it came for doesn't name is an error, never the next message's.
"""

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, takewhile
from math import isfinite
from typing import Any, Final, NamedTuple

from luod.fds import FdBundle, OwnedFd
from luod.varlink.messages import ProtocolError

Path = tuple[str | int, ...]

_BRACKETS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))


@dataclass
class Message:
    """A message's JSON object, and its own descriptors, by index."""

    body: dict[str, Any]
    fds: FdBundle


class Arrival(NamedTuple):
    """A descriptor, and the stretch of the stream that it came with: its message begins in there."""

    fd: OwnedFd
    start: int
    end: int


class Framer:
    """Cuts one direction of a connection into messages.

    Closes nothing: each descriptor is in a message, or waits for `take_fds`.
    """

    MAX_BYTES: Final = 1 << 20
    MAX_DEPTH: Final = 32
    MAX_VALUES: Final = 8192
    """The most values in a message: each costs far more time to read than its bytes."""
    MAX_FDS: Final = 253

    def __init__(self, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> None:
        self._max_bytes = max_bytes
        self._max_values = max_values
        self._buffer = bytearray()
        self._position = 0  # of the buffer's first byte in the stream
        self._searched = 0  # bytes of the buffer that are known to hold no NUL
        self._waiting: deque[Arrival] = deque()
        self._broken: tuple[str, str] | None = None

    def feed(self, data: bytes, fds: FdBundle) -> None:
        """Take over what one recvmsg brought. Call `next_message` until it is None before the next."""
        start = self._position + len(self._buffer)
        self._buffer += data
        self._waiting.extend(Arrival(fd, start, start + len(data)) for fd in fds.take_all())

    def next_message(self) -> Message | None:
        """The next message, or None until more bytes come. Raises ProtocolError, and from then on always the same."""
        if self._broken is None:
            try:
                return self._next_message()
            except ProtocolError as error:
                self._broken = error.parameter, error.reason
                raise
        raise ProtocolError(*self._broken)

    @property
    def partial(self) -> bool:
        """Whether bytes of an unfinished message are waiting."""
        return bool(self._buffer) and self._buffer[-1] != 0

    @property
    def waiting(self) -> bool:
        """Whether anything came that is in no message yet."""
        return bool(self._buffer or self._waiting)

    def end(self) -> None:
        """The stream ended. Raises ProtocolError if that cut a message off."""
        if self.partial:
            raise ProtocolError("message", "is cut off by the end of the stream")

    def take_fds(self) -> FdBundle:
        """Every descriptor that belongs to no message, for the caller to close."""
        fds = FdBundle(arrival.fd for arrival in self._waiting)
        self._waiting.clear()
        return fds

    def _next_message(self) -> Message | None:
        # At most those of an unfinished message and those of the recvmsg that finished it.
        if len(self._waiting) > 2 * self.MAX_FDS:
            raise ProtocolError("message", f"more than {2 * self.MAX_FDS} descriptors wait for it")
        nul = self._buffer.find(0, self._searched)
        self._searched = size = nul if nul >= 0 else len(self._buffer)
        if size > self._max_bytes:
            raise ProtocolError("message", f"is longer than {self._max_bytes} bytes")
        if nul < 0:
            return None
        body = _read(bytes(self._buffer[:nul]), self.MAX_DEPTH, self._max_values)
        # An error's parameters may speak of the call's descriptors; it carries none of its own.
        named = [] if body.get("error") is not None else _named_descriptors(body.get("parameters"))
        fds = self._bind(named, self._position, self._position + nul + 1)
        del self._buffer[: nul + 1]
        self._position += nul + 1
        self._searched = 0
        return Message(body, fds)

    def _bind(self, named: list[Path], start: int, end: int) -> FdBundle:
        """Take what the message from `start` to `end` names. Takes nothing if that fails."""
        came = sum(1 for _ in takewhile(lambda arrival: arrival.start <= start < arrival.end, self._waiting))
        if len(named) > came:
            raise ProtocolError(_text(named[came]), f"names descriptor {came}, but only {came} came with the message")
        # The next message begins at `end`: what came entirely before can't be its.
        if sum(arrival.end <= end for arrival in self._waiting) > len(named):
            raise ProtocolError("message", f"came with more descriptors than the {len(named)} that it names")
        return FdBundle(self._waiting.popleft().fd for _ in named)


def _read(frame: bytes, max_depth: int, max_values: int) -> dict[str, Any]:
    """The frame's JSON object. Raises ProtocolError."""
    if not frame:
        raise ProtocolError("message", "is empty")
    try:
        text = frame.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("message", f"is not UTF-8 at byte {error.start}") from None
    outside_strings = b"".join(frame.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    if 1 + sum(map(outside_strings.count, (b"{", b"[", b","))) > max_values:
        raise ProtocolError("message", f"has more than {max_values} values")
    if _depth(outside_strings) > max_depth:
        raise ProtocolError("message", f"is nested deeper than {max_depth} levels")
    try:
        body = _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise ProtocolError("message", f"is not JSON at character {error.pos}: {error.msg}") from None
    if not isinstance(body, dict):
        raise ProtocolError("message", "is not a JSON object")
    return body


def _depth(outside_strings: bytes) -> int:
    """How deep brackets nest in well-formed JSON; at least as deep as a parser gets in any other."""
    steps = memoryview(outside_strings.translate(_BRACKETS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ProtocolError("message", f"has {key!r:.40} twice in an object")
    return found


def _integer(digits: str) -> int:
    # Two's complement or unsigned: sd-json sends both. 20 characters hold either, and int() is slow on many.
    if len(digits) > 20 or not -(1 << 63) <= (value := int(digits)) < 1 << 64:
        raise ProtocolError("message", "has an integer of more than 64 bits")
    return value


def _float(digits: str) -> float:
    if not isfinite(value := float(digits)):
        raise ProtocolError("message", "has a number that is not finite")
    return value


_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_float,
    parse_constant=_float,  # NaN and the infinities
)


def _named_descriptors(parameters: Any) -> list[Path]:
    """The paths to the parameters that name a descriptor, by its index. Raises ProtocolError for any but 0..n-1."""
    named = list(_walk(parameters, ()))
    for path, index in named:
        if type(index) is not int or index < 0:
            raise ProtocolError(_text(path), "is not the index of a descriptor")
    named.sort(key=lambda pair: pair[1])
    for expected, (path, index) in enumerate(named):
        if index < expected:
            raise ProtocolError(_text(path), f"names descriptor {index} a second time")
        if index > expected:
            raise ProtocolError(_text(path), f"names descriptor {index}, but nothing names {expected}")
    return [path for path, _ in named]


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "fileDescriptorIndex" or key.endswith("FileDescriptor"):
                if inner is not None:
                    yield (*path, key), inner
            elif isinstance(inner, (dict, list)):
                yield from _walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, (dict, list)):
                yield from _walk(inner, (*path, index))


def _text(path: Path) -> str:
    """The path as `files[1].fileDescriptorIndex`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
