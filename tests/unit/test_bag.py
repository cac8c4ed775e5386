"""Bags, on real sockets and memory files."""

import errno
import itertools
import os
import resource
import socket

import pytest

from luod.bag import Bag, BagFull, NotABag
from luod.fds import FdBundle, OwnedFd
from memory import content, memfd, memfds


@pytest.fixture
def bag():
    made = Bag(7)
    yield made
    made.close()


def put(bag, *tokens):
    """Put a file for each token in, whose content says which it is."""
    with memfds(*(b"file %d" % token for token in tokens)) as files:
        bag.put(dict(zip(tokens, files, strict=True)))


def filled(bag):
    """Put files in one by one until it is full; how many went in."""
    with memfd() as file:
        for token in itertools.count():
            try:
                bag.put({token: file})
            except BagFull:
                return token


def contents(bag, tokens):
    got = bag.get(tokens)
    with FdBundle(got.values()):
        return {token: content(fd) for token, fd in got.items()}


def survivor(bag):
    """What is left of a bag when its writer has died."""
    kept = OwnedFd.duplicate_of(bag.fileno())
    bag.close()
    return kept


def expected(*tokens):
    return {token: b"file %d" % token for token in tokens}


def test_what_is_put_in_can_be_had_any_number_of_times(bag):
    put(bag, 0, 5, 2**64 - 1)
    for _ in range(3):
        assert contents(bag, [5, 2**64 - 1, 0]) == expected(0, 5, 2**64 - 1)


def test_only_what_is_wanted_and_there_is_given(bag):
    put(bag, 1, 2, 3)
    put(bag, 4)
    assert contents(bag, [4, 2, 9]) == expected(2, 4)
    assert bag.tokens == {1, 2, 3, 4}


def test_an_empty_bag_gives_nothing(bag):
    assert contents(bag, [1]) == {}


def test_a_bag_outlives_its_writer():
    bag = Bag(7)
    put(bag, 1, 2)
    put(bag, 3)
    adopted = Bag.adopt(survivor(bag))
    assert adopted.session == 7
    assert adopted.tokens == {1, 2, 3}
    for _ in range(2):
        assert contents(adopted, [3, 1]) == expected(1, 3)
    adopted.close()


def test_a_bag_is_adopted_again_and_again():
    bag = Bag(7)
    put(bag, *range(300))
    for _ in range(3):
        bag = Bag.adopt(survivor(bag))
        assert contents(bag, range(300)) == expected(*range(300))
    bag.close()


def test_nothing_can_be_put_into_an_adopted_bag():
    bag = Bag(7)
    put(bag, 1)
    adopted = Bag.adopt(survivor(bag))
    with pytest.raises(BagFull):
        put(adopted, 2)
    assert contents(adopted, [1, 2]) == expected(1)
    adopted.close()


def test_ten_thousand_files_fit_when_they_come_together(bag):
    with memfd(b"one for all") as file:
        bag.put(dict.fromkeys(range(10_000), file))
        got = bag.get(range(10_000 - 300, 10_000))
        with FdBundle(got.values()):
            same = {os.fstat(fd.fileno()).st_ino for fd in got.values()}
            assert same == {os.fstat(file.fileno()).st_ino}
            assert len(got) == 300


def test_a_full_bag_says_so_and_its_files_fit_into_a_new_one(bag):
    token = filled(bag)
    assert bag.tokens == set(range(token))
    successor = Bag(7)
    got = bag.get(bag.tokens)
    with FdBundle(got.values()):
        successor.put(got)
        for later in range(token, token + 100):
            successor.put({later: got[0]})
    assert successor.tokens == set(range(token + 100))
    successor.close()


def test_what_a_full_bag_refused_was_not_put_in(bag):
    token = filled(bag)
    adopted = Bag.adopt(survivor(bag))
    assert adopted.tokens == set(range(token))
    adopted.close()


def test_too_few_descriptors_are_an_error_and_leave_none_open(bag):
    put(bag, *range(200))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as failed:
            bag.get(range(200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed.value.errno == errno.EMFILE
    assert contents(bag, [199]) == expected(199)


def test_more_descriptors_on_their_way_than_a_user_may_have_are_an_error_and_lose_nothing(bag):
    put(bag, 1, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    privileged = os.geteuid() == 0  # whom CAP_SYS_RESOURCE exempts
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    if privileged:
        os.seteuid(65534)
    try:
        with pytest.raises(OSError, match="Too many references") as failed:
            filled(bag)
    finally:
        if privileged:
            os.seteuid(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed.value.errno == errno.ETOOMANYREFS
    assert contents(bag, [1, 2]) == expected(1, 2)


def stream_socket():
    ours, theirs = socket.socketpair()
    theirs.close()
    return OwnedFd(ours.detach())


def packet_socket(*messages):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        for message in messages:
            theirs.send(message)
    return OwnedFd(ours.detach())


def head(session, tokens=b""):
    return b"LUOD bag" + session.to_bytes(8, "little") + tokens


@pytest.mark.parametrize(
    "make",
    [
        memfd,
        stream_socket,
        packet_socket,
        lambda: packet_socket(b"short"),
        lambda: packet_socket(b"something else than a bag"),
        lambda: packet_socket(head(7), b"and something else than a bag"),
        lambda: packet_socket(head(7), head(8)),
        lambda: OwnedFd(os.open("/dev/null", os.O_RDONLY)),
    ],
)
def test_something_else_is_no_bag_and_stays_the_callers(make):
    with make() as fd:
        with pytest.raises(NotABag):
            Bag.adopt(fd)
        os.fstat(fd.fileno())


def test_a_bag_that_lost_its_descriptors_gives_an_error_and_no_wrong_file():
    with packet_socket(head(7, bytes(16))) as fd:
        bag = Bag.adopt(fd)
        with pytest.raises(OSError, match="descriptors"):
            bag.get([0])
        bag.close()
