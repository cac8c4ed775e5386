"""What a kernel does when something fails in it, where it can be made to."""

from errno import EBUSY, EEXIST, EINVAL, EIO, ENOENT, ENOMEM, ENOSPC

import pytest

from luod.kernel.api import Call

from .steps import incoming, memfd, outgoing, preserve, refused, retrieve


@pytest.fixture
def came_over(kernel, kexec):
    """A session that came over with two files, tokens 1 and 2."""
    with outgoing(kernel, "came over") as session:
        preserve(session, b"one", 1)
        preserve(session, b"two", 2)
        kexec()
    with incoming(kernel, "came over") as session:
        yield session


def test_a_failed_open_leaves_the_device_free(kernel, control):
    control.fault(Call.OPEN, ENOMEM)
    with refused(Call.OPEN, ENOMEM):
        kernel.open()
    kernel.open().close()


def test_a_failed_create_leaves_the_name_free(kernel, control):
    control.fault(Call.CREATE_SESSION, ENOSPC)
    with refused(Call.CREATE_SESSION, ENOSPC), outgoing(kernel, "a"):
        pass
    with outgoing(kernel, "a"):
        pass


def test_a_failed_preserve_leaves_file_and_token_free(kernel, control):
    with outgoing(kernel, "a") as session, memfd(b"x") as fd:
        control.fault(Call.PRESERVE_FD, ENOMEM)
        with refused(Call.PRESERVE_FD, ENOMEM):
            session.preserve_fd(fd, 1)
        session.preserve_fd(fd, 1)


def test_a_failed_retrieve_of_a_session_can_be_repeated(kernel, control, kexec):
    with outgoing(kernel, "a"):
        kexec()
    control.fault(Call.RETRIEVE_SESSION, ENOMEM)
    with refused(Call.RETRIEVE_SESSION, ENOMEM), incoming(kernel, "a"):
        pass
    with incoming(kernel, "a"):
        pass


def test_a_failed_retrieve_of_a_file_fails_the_same_way_for_ever(came_over, control):
    control.fault(Call.RETRIEVE_FD, ENOMEM)
    for _ in range(3):
        with refused(Call.RETRIEVE_FD, ENOMEM):
            came_over.retrieve_fd(1)
    assert retrieve(came_over, 2) == b"two"
    came_over.finish()
    with refused(Call.RETRIEVE_FD, ENOENT):
        came_over.retrieve_fd(1)


def test_a_retrieved_file_is_had_again_whatever_fails(came_over, control):
    assert retrieve(came_over, 1) == b"one"
    control.fault(Call.RETRIEVE_FD, ENOMEM)
    assert retrieve(came_over, 1) == b"one"


def test_a_failed_finish_keeps_everything(came_over, control):
    control.fault(Call.FINISH, EBUSY)
    with refused(Call.FINISH, EBUSY):
        came_over.finish()
    assert retrieve(came_over, 1) == b"one"
    came_over.finish()


def test_a_session_that_fails_to_finish_at_its_last_close_is_out_of_reach(kernel, came_over, control):
    with came_over.retrieve_fd(1) as file, outgoing(kernel, "new") as new:
        control.fault(Call.FINISH, EBUSY)
        came_over.give_up()
        with refused(Call.RETRIEVE_SESSION, EINVAL), incoming(kernel, "came over"):
            pass
        with refused(Call.PRESERVE_FD, EBUSY):
            new.preserve_fd(file.fileno(), 1)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_kexec_that_cannot_freeze_a_file_changes_nothing(kernel, control, nth):
    boot = kernel.boot_id()
    with outgoing(kernel, "a") as one, outgoing(kernel, "b") as two, memfd(b"x") as fd:
        preserve(one, b"1", 1)
        preserve(one, b"2", 2)
        two.preserve_fd(fd, 3)
        control.fault("FREEZE", EIO, nth)
        with pytest.raises(OSError, check=lambda error: error.errno == EIO):
            control.kexec()
        assert kernel.boot_id() == boot
        with refused(Call.PRESERVE_FD, EEXIST):
            two.preserve_fd(fd, 3)
        preserve(two, b"4", 4)
        control.kexec()
    with incoming(kernel, "a") as one, incoming(kernel, "b") as two:
        assert [retrieve(one, 1), retrieve(one, 2), retrieve(two, 3), retrieve(two, 4)] == [b"1", b"2", b"x", b"4"]


def test_what_the_next_kernel_cannot_read_is_gone(kernel, control):
    with outgoing(kernel, "a"):
        control.kexec(carry=False)
    with refused(Call.RETRIEVE_SESSION, ENOENT), incoming(kernel, "a"):
        pass


@pytest.mark.parametrize("number", [EIO, ENOENT])
def test_a_device_that_cannot_be_opened_stays_so_until_the_next_kernel(kernel, control, number):
    with outgoing(kernel, "a"):
        control.kexec(open_error=number)
    for _ in range(3):
        with refused(Call.OPEN, number):
            kernel.open()
    control.kexec()
    with refused(Call.RETRIEVE_SESSION, ENOENT), incoming(kernel, "a"):
        pass
