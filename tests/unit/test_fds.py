"""A descriptor is closed or handed on exactly once; one that is forgotten is reported and left open."""

import errno
import os
from contextlib import suppress

import pytest

from luod.fds import FdBundle, OwnedFd


def a_descriptor():
    return OwnedFd(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))


def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_it_is_lent_as_long_as_it_is_owned():
    fd = a_descriptor()
    number = fd.fileno()
    assert is_open(number)
    assert repr(fd) == f"<OwnedFd {number}>"
    fd.close()
    assert not is_open(number)
    assert repr(fd) == "<OwnedFd closed>"
    with pytest.raises(ValueError, match="closed or handed on"):
        fd.fileno()
    fd.close()


def test_closing_twice_spares_whoever_has_the_number_now():
    fd = a_descriptor()
    number = fd.fileno()
    fd.close()
    with a_descriptor() as other:
        assert other.fileno() == number
        fd.close()
        assert is_open(number)


def test_the_end_of_the_block_closes_it_even_after_a_failure():
    fd = a_descriptor()
    number = fd.fileno()
    with suppress(ZeroDivisionError), fd:
        raise ZeroDivisionError
    assert not is_open(number)


def test_what_was_handed_on_is_the_receivers():
    with a_descriptor() as fd:
        number = fd.hand_on()
        with pytest.raises(ValueError, match="handed on"):
            fd.hand_on()
        with pytest.raises(ValueError, match="handed on"):
            fd.duplicate()
    assert is_open(number)
    os.close(number)


def test_a_duplicate_is_another_descriptor_of_the_same_file_and_no_childs():
    with a_descriptor() as fd, fd.duplicate() as again, OwnedFd.duplicate_of(fd.fileno()) as third:
        assert len({fd.fileno(), again.fileno(), third.fileno()}) == 3
        assert os.path.sameopenfile(fd.fileno(), again.fileno())
        assert not os.get_inheritable(again.fileno())
        assert not os.get_inheritable(third.fileno())


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="-1"):
        OwnedFd(-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        OwnedFd.duplicate_of(1 << 20)


def test_one_that_is_forgotten_is_reported_and_left_open():
    forgotten = [a_descriptor()]
    number = forgotten[0].fileno()
    with pytest.warns(ResourceWarning, match=f"descriptor {number} was never closed"):
        forgotten.clear()
    assert is_open(number)
    os.close(number)


def test_a_bundle_closes_what_nobody_took():
    first, second = a_descriptor(), a_descriptor()
    numbers = [first.fileno(), second.fileno()]
    with FdBundle([first]) as bundle:
        bundle.add(second)
        assert len(bundle) == 2
        assert list(bundle) == [first, second]
        assert bundle[1] is second
    assert not any(map(is_open, numbers))
    assert len(bundle) == 0


def test_what_was_taken_out_of_a_bundle_is_the_takers():
    with FdBundle([a_descriptor()]) as bundle:
        [fd] = bundle.take_all()
        assert bundle.take_all() == []
    assert is_open(fd.fileno())
    fd.close()


def test_a_close_that_fails_spares_none_of_the_others():
    broken, good = a_descriptor(), a_descriptor()
    os.close(broken.fileno())
    bundle = FdBundle([broken, good])
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        bundle.close()
    assert caught.value.errno == errno.EBADF
    with pytest.raises(ValueError, match="closed"):
        good.fileno()
    with suppress(OSError):
        bundle.close()
