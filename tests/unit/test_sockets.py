"""What can be told of a socket that somebody kept."""

import os
import socket

import pytest

from luod.sockets import is_over


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def pair(request):
    one, other = socket.socketpair(socket.AF_UNIX, request.param)
    with one, other:
        yield one, other


def test_a_socket_whose_other_end_is_there_is_not_over(pair):
    one, other = pair
    assert not is_over(one.fileno())
    other.send(b"something")
    assert not is_over(one.fileno())


def test_a_socket_with_something_in_it_is_not_over(pair):
    one, other = pair
    other.send(b"something")
    other.close()
    assert not is_over(one.fileno())
    assert one.recv(100) == b"something"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_an_empty_socket_without_another_end_is_over(kind):
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one:
        other.close()
        assert is_over(one.fileno())


def test_what_is_no_socket_or_listens_is_not_over(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        assert not is_over(sock.fileno())
        sock.bind(str(tmp_path / "socket"))
        sock.listen()
        assert not is_over(sock.fileno())
    reader, writer = os.pipe()
    os.close(writer)
    assert not is_over(reader)
    os.close(reader)
