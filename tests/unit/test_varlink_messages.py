"""Calls and replies, as they are read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luod.fds import FdBundle
from luod.varlink.framing import Framer
from luod.varlink.messages import Call, ProtocolError, Reply

KEYS = st.text().filter(lambda key: key != "fileDescriptorIndex" and not key.endswith("FileDescriptor"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
PARAMETERS = st.dictionaries(KEYS, JSON, max_size=4)
CALLS = st.builds(
    lambda method, parameters, flag: Call(method, parameters, **({flag: True} if flag else {})),
    st.text(),
    PARAMETERS,
    st.sampled_from(["", "more", "oneway", "upgrade"]),
)
REPLIES = st.builds(Reply, PARAMETERS, st.booleans()) | st.builds(
    lambda *of: Reply(of[0], error=of[1]), PARAMETERS, st.text()
)


def body(data: bytes):
    framer = Framer()
    framer.feed(data, FdBundle())
    message = framer.next_message()
    assert message is not None
    framer.end()
    return message.body


@given(CALLS)
def test_a_call_is_read_as_it_was_written(call):
    assert Call.read(body(call.encode())) == call


@given(REPLIES)
def test_a_reply_is_read_as_it_was_written(reply):
    assert Reply.read(body(reply.encode())) == reply


def test_messages_are_compact_utf_8_and_end_with_a_nul():
    assert (
        Call("a.B", {"ü": [1, None]}, more=True).encode()
        == '{"method":"a.B","parameters":{"ü":[1,null]},"more":true}\0'.encode()
    )
    assert Reply().encode() == b'{"parameters":{}}\0'
    assert Reply({"a": "\0"}, continues=True).encode() == b'{"parameters":{"a":"\\u0000"},"continues":true}\0'
    assert Reply(error="a.E").encode() == b'{"error":"a.E","parameters":{}}\0'


def test_a_lone_surrogate_is_written_as_a_question_mark():
    assert Reply({"method": "\ud800\udc80!"}).encode() == b'{"parameters":{"method":"??!"}}\0'
    assert body(Reply({"a": body(b'{"a":"\\ud800"}\0')["a"]}).encode()) == {"parameters": {"a": "?"}}


def test_what_is_not_finite_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        Reply({"a": float("nan")}).encode()


def test_a_member_that_is_null_is_left_out():
    assert Call.read({"method": "a.B", "parameters": None, "more": None}) == Call("a.B")
    assert Reply.read({"parameters": None, "error": None}) == Reply()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({}, "has no method"),
        ({"method": None}, "has no method"),
        ({"method": 1}, "method must be a string"),
        ({"method": "a.B", "parameters": []}, "parameters must be an object"),
        ({"method": "a.B", "more": 1}, "more must be a boolean"),
        ({"method": "a.B", "oneway": "true"}, "oneway must be a boolean"),
        ({"method": "a.B", "more": True, "oneway": True}, "is flagged more and oneway"),
        ({"method": "a.B", "more": True, "oneway": True, "upgrade": True}, "is flagged more and oneway and upgrade"),
        ({"method": "a.B", "flags": []}, "has an unknown member 'flags'"),
        ({"method": "a.B", "x" * 99: []}, "has an unknown member '" + "x" * 39),
    ],
)
def test_what_is_no_call_is_refused_with_the_reason(call, reason):
    with pytest.raises(ProtocolError) as caught:
        Call.read(call)
    assert (caught.value.parameter, caught.value.reason) == ("message", reason)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"parameters": 1}, "parameters must be an object"),
        ({"continues": 1}, "continues must be a boolean"),
        ({"error": {}}, "error must be a string"),
        ({"error": "a.E", "continues": True}, "is an error and continues"),
    ],
)
def test_what_is_no_reply_is_refused_with_the_reason(reply, reason):
    with pytest.raises(ProtocolError) as caught:
        Reply.read(reply)
    assert (caught.value.parameter, caught.value.reason) == ("message", reason)


def test_a_reply_may_have_members_that_nobody_knows_yet():
    assert Reply.read({"parameters": {"a": 1}, "later": 2}) == Reply({"a": 1})
