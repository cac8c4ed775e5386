"""Which bytes and which descriptors make a message, however the stream is cut."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luod.fds import FdBundle, OwnedFd
from luod.varlink.framing import Framer, Message
from luod.varlink.messages import ProtocolError

MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


def open_fds() -> set[str]:
    return {fd for fd in os.listdir("/proc/self/fd") if alive(fd)}


def alive(fd: str) -> bool:
    """Whether it outlived the listing, which opens one of its own."""
    try:
        os.fstat(int(fd))
    except OSError:
        return False
    return True


def memfd() -> OwnedFd:
    return OwnedFd(os.memfd_create("test"))


def bundle(count: int) -> FdBundle:
    return FdBundle(memfd() for _ in range(count))


def inodes(fds: FdBundle) -> list[int]:
    return [os.fstat(fd.fileno()).st_ino for fd in fds]


def packed(parameters: object) -> bytes:
    return json.dumps({"method": "a.B", "parameters": parameters}).encode() + b"\0"


def naming(*indexes: object) -> bytes:
    """A message whose files name descriptors by these indexes."""
    return packed({"files": [{"fileDescriptorIndex": index} for index in indexes]})


def refused(framer: Framer) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        framer.next_message()
    return caught.value


def refused_bytes(data: bytes) -> str:
    framer = Framer()
    framer.feed(data, FdBundle())
    error = refused(framer)
    assert error.parameter == "message"
    return error.reason


def wanted(framer: Framer) -> Message:
    message = framer.next_message()
    assert message is not None
    return message


# Bytes


def test_a_message_ends_with_its_nul():
    framer = Framer()
    framer.feed(b'{"a":1}\0{"b"', FdBundle())
    assert wanted(framer).body == {"a": 1}
    assert framer.next_message() is None
    assert framer.partial
    framer.feed(b":2}\0", FdBundle())
    assert not framer.partial
    assert wanted(framer).body == {"b": 2}
    assert framer.next_message() is None
    framer.end()


def test_a_message_cut_off_by_the_end_of_the_stream_is_refused():
    framer = Framer()
    framer.feed(b'{"a":1}', FdBundle())
    assert framer.next_message() is None
    with pytest.raises(ProtocolError, match="cut off"):
        framer.end()


def test_a_message_is_at_most_a_mebibyte():
    longest = b'{"a":"' + b"x" * (MIB - 8) + b'"}'
    framer = Framer()
    framer.feed(longest, FdBundle())
    assert framer.next_message() is None
    framer.feed(b"\0", FdBundle())
    assert len(wanted(framer).body["a"]) == MIB - 8
    assert refused_bytes(b" " + longest) == "is longer than 1048576 bytes"
    assert refused_bytes(b" " + longest + b"\0") == "is longer than 1048576 bytes"


def test_levels_are_counted_and_brackets_in_strings_are_not():
    framer = Framer()
    framer.feed(b'{"a":' + b"[" * 31 + b"]" * 31 + b"}\0", FdBundle())
    framer.feed(b'{"a":' + b"[" * 31 + b"]" * 31 + b',"b":' + b"[" * 31 + b"]" * 31 + b"}\0", FdBundle())
    framer.feed(json.dumps({"a": "[" * 99, "b": '\\"' + "{" * 99, '"\\': "\\"}).encode() + b"\0", FdBundle())
    for _ in range(3):
        wanted(framer)
    assert refused_bytes(b'{"a":' + b"[" * 32 + b"]" * 32 + b"}\0") == "is nested deeper than 32 levels"
    assert refused_bytes(b'{"a\\\\":' + b'{"a":' * 32 + b"1" + b"}" * 33 + b"\0") == "is nested deeper than 32 levels"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "is empty"),
        (b"[]", "is not a JSON object"),
        (b"1", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b'{"a":1', "is not JSON at character 6: Expecting ',' delimiter"),
        (b"{} {}", "is not JSON at character 3: Extra data"),
        (b'{"a":"\n"}', "is not JSON at character 6: Invalid control character at"),
        (b'{"a":"\xff"}', "is not UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "is not UTF-8 at byte 6"),
        ("\ufeff{}".encode(), "is not JSON at character 0: Expecting value"),
        ("{}".encode("utf-16-be"), "is empty"),
        (b'{"a":NaN}', "has a number that is not finite"),
        (b'{"a":-Infinity}', "has a number that is not finite"),
        (b'{"a":1e999}', "has a number that is not finite"),
        (b'{"a":18446744073709551616}', "has an integer of more than 64 bits"),
        (b'{"a":-9223372036854775809}', "has an integer of more than 64 bits"),
        (b'{"a":1' + b"0" * 5000 + b"}", "has an integer of more than 64 bits"),
        (b'{"more":true,"more":false}', "has 'more' twice in an object"),
        (b'{"a":{"b":1,"\\u0062":2}}', "has 'b' twice in an object"),
        (b"]" * 99 + b"[" * 99, "is not JSON at character 0: Expecting value"),
        (b'\\"' + b"[" * 999, "is nested deeper than 32 levels"),
        (b'{"a":[' + b"{}," * 4095 + b"{}]}", "has more than 8192 values"),
        (b'{"a":[' + b"0," * 8191 + b"0]}", "has more than 8192 values"),
        (b'{"a":' + b'"\\""' + b",0" * 8192, "has more than 8192 values"),
    ],
)
def test_what_is_no_json_object_is_refused_with_the_reason(frame, reason):
    assert refused_bytes(frame + b"\0") == reason


def test_a_number_of_64_bits_is_kept():
    framer = Framer()
    framer.feed(b'{"a":18446744073709551615,"b":-9223372036854775808,"c":-0.5}\0', FdBundle())
    assert wanted(framer).body == {"a": 2**64 - 1, "b": -(2**63), "c": -0.5}


def test_a_framer_that_refused_says_so_for_ever():
    framer = Framer()
    framer.feed(b"[]\0{}\0", FdBundle())
    first = refused(framer)
    framer.feed(b"{}\0", bundle(1))
    assert str(refused(framer)) == str(first) == "message: is not a JSON object"
    framer.take_fds().close()


WORST = {
    "openers": b"[" * MIB,
    "open objects": b'{"a":' * (MIB // 5),
    "closers": b"]" * MIB,
    "pairs": b"[" + b"[]," * (MIB // 3 - 1) + b"[]]",
    "as deep as allowed": b"[" + (b"[" * 31 + b"]" * 31 + b",") * (MIB // 63 - 1) + b"0]",
    "quotes": b'"' * MIB,
    "escaped quotes": b'"' + b'\\"' * (MIB // 2 - 1),
    "backslashes": b"\\" * MIB,
    "integers": b"[" + b"0," * (MIB // 2 - 2) + b"0]",
    "one integer": b"1" * MIB,
    "one float": b"0." + b"1" * (MIB - 2),
    "keys": b"{" + b",".join(b'"%x":0' % i for i in range(100_000)) + b',"0":0}',
    "indexes": b'{"parameters":[' + b'{"fileDescriptorIndex":9},' * (MIB // 27) + b"0]}",
    "long keys": b'{"parameters":{"' + b"k" * (MIB // 2) + b'":[' + b"[]," * (MIB // 7) + b"0]}}",
}


@pytest.mark.parametrize("frame", WORST.values(), ids=WORST.keys())
def test_the_worst_mebibyte_costs_little_time(frame):
    assert len(frame) <= MIB
    framer = Framer()
    framer.feed(frame + b"\0", FdBundle())
    start = time.process_time()
    with suppress(ProtocolError):
        framer.next_message()
    assert time.process_time() - start < 1


def test_a_mebibyte_in_small_chunks_costs_no_more_than_its_length():
    framer = Framer()
    data = b'{"a":"' + b"x" * (MIB - 8) + b'"}\0'
    start = time.process_time()
    for at in range(0, len(data), 8):
        framer.feed(data[at : at + 8], FdBundle())
        message = framer.next_message()
    assert time.process_time() - start < 5
    assert message is not None


# Descriptors


def test_parameters_name_descriptors_anywhere():
    fds = bundle(4)
    came = inodes(fds)
    framer = Framer()
    parameters = {
        "kernelFileDescriptor": 3,
        "files": [{"fileDescriptorIndex": 1}, {"a": [[{"fileDescriptorIndex": 0}]]}],
        "initrdFileDescriptor": None,
        "fileDescriptor": 9,
        "FileDescriptor": 2,
    }
    framer.feed(packed(parameters), fds)
    message = wanted(framer)
    assert len(fds) == 0
    assert inodes(message.fds) == came
    message.fds.close()


def test_only_parameters_name_descriptors():
    framer = Framer()
    framer.feed(b'{"fileDescriptorIndex":0,"parameters":[0]}\0{"parameters":7}\0{"parameters":null}\0', FdBundle())
    for _ in range(3):
        assert len(wanted(framer).fds) == 0


@pytest.mark.parametrize(
    ("indexes", "came", "parameter", "reason"),
    [
        ([0, 0], 2, "files[1].fileDescriptorIndex", "names descriptor 0 a second time"),
        ([0, 2], 2, "files[1].fileDescriptorIndex", "names descriptor 2, but nothing names 1"),
        ([1], 1, "files[0].fileDescriptorIndex", "names descriptor 1, but nothing names 0"),
        ([2**63], 1, "files[0].fileDescriptorIndex", f"names descriptor {2**63}, but nothing names 0"),
        ([0, -1], 2, "files[1].fileDescriptorIndex", "is not the index of a descriptor"),
        ([True], 1, "files[0].fileDescriptorIndex", "is not the index of a descriptor"),
        ([0.0], 1, "files[0].fileDescriptorIndex", "is not the index of a descriptor"),
        (["0"], 1, "files[0].fileDescriptorIndex", "is not the index of a descriptor"),
        ([{}], 0, "files[0].fileDescriptorIndex", "is not the index of a descriptor"),
        ([2, 0, 1], 2, "files[0].fileDescriptorIndex", "names descriptor 2, but only 2 came with the message"),
        ([0], 0, "files[0].fileDescriptorIndex", "names descriptor 0, but only 0 came with the message"),
        ([0], 2, "message", "came with more descriptors than the 1 that it names"),
        ([None], 1, "message", "came with more descriptors than the 0 that it names"),
    ],
)
def test_what_a_message_names_must_be_what_came(indexes, came, parameter, reason):
    fds = bundle(came)
    kept = inodes(fds)
    framer = Framer()
    framer.feed(naming(*indexes), fds)
    error = refused(framer)
    assert (error.parameter, error.reason) == (parameter, reason)
    with framer.take_fds() as left:
        assert inodes(left) == kept
    assert len(framer.take_fds()) == 0


def test_a_message_that_breaks_before_binding_leaves_its_descriptors():
    framer = Framer()
    framer.feed(b"broken\0", bundle(2))
    refused(framer)
    with framer.take_fds() as left:
        assert len(left) == 2


def test_messages_that_came_at_once_share_descriptors_in_order():
    fds = bundle(3)
    came = inodes(fds)
    framer = Framer()
    framer.feed(naming(0) + naming() + naming(1, 0), fds)
    bound = []
    while message := framer.next_message():
        with message.fds as own:
            bound.append(inodes(own))
    assert bound == [came[:1], [], came[1:]]


@pytest.mark.parametrize("rest", [b"", b"{"])
def test_a_surplus_descriptor_never_slides_to_the_next_message(rest):
    """However much of the next message is there: the surplus came before its first byte."""
    framer = Framer()
    first = naming(0)
    framer.feed(first[:5], bundle(2))
    framer.feed(first[5:] + rest, FdBundle())
    assert refused(framer).reason == "came with more descriptors than the 1 that it names"
    with framer.take_fds() as left:
        assert len(left) == 2


def test_a_descriptor_that_came_later_never_fills_a_gap():
    framer = Framer()
    framer.feed(naming(0), FdBundle())
    framer.feed(naming(0), bundle(1))
    assert refused(framer).parameter == "files[0].fileDescriptorIndex"
    with framer.take_fds() as left:
        assert len(left) == 1


def test_a_descriptor_amidst_a_message_belongs_to_none():
    framer = Framer()
    framer.feed(naming(0)[:9], FdBundle())
    framer.feed(naming(0)[9:], bundle(1))
    assert refused(framer).reason == "names descriptor 0, but only 0 came with the message"
    framer.take_fds().close()


def test_a_descriptor_without_a_byte_belongs_to_no_message():
    framer = Framer()
    framer.feed(b"", bundle(1))
    assert framer.next_message() is None
    framer.feed(naming(0) + b"{", bundle(1))
    refused(framer)
    with framer.take_fds() as left:
        assert len(left) == 2


def test_waiting_descriptors_are_bounded():
    framer = Framer()
    framer.feed(b"{", bundle(253))
    framer.feed(b" ", bundle(253))
    assert framer.next_message() is None
    framer.feed(b" ", bundle(1))
    assert refused(framer).reason == "more than 506 descriptors wait for it"
    with framer.take_fds() as left:
        assert len(left) == 507


# Properties


@st.composite
def streams(draw):
    """Messages, each with a number of descriptors and some padding, and where their stream is cut."""
    messages = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=8))
    frames = [
        packed({"pad": "é" * pad, "files": [{"fileDescriptorIndex": index} for index in reversed(range(count))]})
        for count, pad in messages
    ]
    cuts = draw(st.sets(st.integers(0, sum(map(len, frames)))))
    return [count for count, _ in messages], frames, sorted(cuts)


@given(streams(), st.booleans())
def test_descriptors_bind_however_the_stream_is_cut(stream, drain):
    counts, frames, cuts = stream
    data = b"".join(frames)
    starts = [sum(map(len, frames[:number])) for number in range(len(frames))]
    fds = [bundle(count) for count in counts]
    expected = [inodes(own) for own in fds]
    framer = Framer()
    bound, bodies = [], []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        here = [own for start, own in zip(starts, fds, strict=True) if begin <= start < end]
        framer.feed(data[begin:end], FdBundle(fd for own in here for fd in own.take_all()))
        while (drain or end == len(data)) and (message := framer.next_message()):
            with message.fds as own:
                bound.append(inodes(own))
            bodies.append(message.body)
    assert bound == expected
    assert bodies == [json.loads(frame[:-1]) for frame in frames]
    assert len(framer.take_fds()) == 0
    framer.end()


PIECES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"\0", b"{", b"}", b"[", b"]", b'"', b"\\", b'"parameters":', b'"fileDescriptorIndex":0', b"{}\0"]
    ),
    st.lists(st.one_of(st.integers(-1, 3), st.none(), st.booleans()), max_size=3).map(lambda names: naming(*names)),
)


@given(st.lists(st.tuples(PIECES, st.integers(0, 2))))
def test_whatever_comes_no_descriptor_is_lost(feeds):
    framer = Framer()
    came, seen = [], []
    for data, count in feeds:
        fds = bundle(count)
        came += inodes(fds)
        framer.feed(data, fds)
        try:
            while message := framer.next_message():
                with message.fds as own:
                    seen += inodes(own)
        except ProtocolError as error:
            assert error.reason  # noqa: PT017
    with framer.take_fds() as left:
        seen += inodes(left)
    assert seen == came


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6))
def test_a_message_that_lies_about_its_descriptors_takes_nobody_elses(messages):
    """Each message in a recvmsg of its own, as the kernel delivers those that carry descriptors."""
    framer = Framer()
    honest = True
    for named, count in messages:
        fds = bundle(count)
        own = inodes(fds)
        framer.feed(naming(*range(named)), fds)
        honest = honest and named == count
        if honest:
            with wanted(framer).fds as bound:
                assert inodes(bound) == own
        else:
            refused(framer)
    framer.take_fds().close()


def test_descriptors_bind_however_the_kernel_cuts():
    """Pipelined through a socket; the long message arrives in several pieces."""
    ours, theirs = socket.socketpair()
    expected, bound = [], []
    framer = Framer()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        for number in range(60):
            with bundle(number % 4) as fds:
                expected.append(inodes(fds))
                parameters = {f"{index}FileDescriptor": index for index in range(len(fds))}
                pad = "x" * (100_000 if number == 30 else 10)
                data = packed({"pad": pad} | parameters)
                assert socket.send_fds(theirs, [data], [fd.fileno() for fd in fds]) == len(data)
        theirs.shutdown(socket.SHUT_WR)
        while (came := socket.recv_fds(ours, 50_000, 253))[0]:
            framer.feed(came[0], FdBundle(map(OwnedFd, came[1])))
            while message := framer.next_message():
                with message.fds as own:
                    bound.append(inodes(own))
    framer.end()
    assert bound == expected
