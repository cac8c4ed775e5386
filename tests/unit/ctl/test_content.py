"""What is in a file becomes memory that luod takes, whatever kind of file it is."""

import os
import socket
import threading

import pytest

from luod.ctl.content import copy, memory_of, write_to
from luod.fds import OwnedFd
from luod.memory import Given, check, without_memory
from luod.policy import Owner
from memory import content, memfd

LARGE = os.urandom((3 << 20) + 17)


def feed(descriptor, data):
    """Write all of it from a thread, and close the descriptor."""

    def run():
        with open(descriptor, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def regular_file(tmp_path):
    (tmp_path / "file").write_bytes(LARGE)
    return os.open(tmp_path / "file", os.O_RDONLY), None


def pipe(tmp_path):
    reading, writing = os.pipe()
    return reading, feed(writing, LARGE)


def unix_socket(tmp_path):
    reading, writing = socket.socketpair()
    return reading.detach(), feed(writing.detach(), LARGE)


@pytest.mark.parametrize("source", [regular_file, pipe, unix_socket])
def test_all_of_it_is_copied_whatever_it_comes_from(tmp_path, source):
    fd, thread = source(tmp_path)
    with memory_of(fd, "checkpoint.img") as memory:
        os.close(fd)
        assert content(memory) == LARGE
        assert os.lseek(memory.fileno(), 0, os.SEEK_CUR) == 0
        assert os.readlink(f"/proc/self/fd/{memory.fileno()}") == "/memfd:checkpoint.img (deleted)"
    if thread is not None:
        thread.join()


def test_holes_become_memory_that_luod_takes(tmp_path):
    with (tmp_path / "sparse").open("w+b") as sparse:
        sparse.truncate(5 << 20)
        with memory_of(sparse.fileno(), "sparse") as memory:
            status = os.fstat(memory.fileno())
            assert (status.st_size, without_memory(status)) == (5 << 20, 0)
            check(Given(0, memory), Owner(os.getuid(), os.getgid(), os.getuid()))


def test_an_empty_file_is_empty_memory():
    with open(os.devnull, "rb") as nothing, memory_of(nothing.fileno(), "x" * 300) as memory:
        assert content(memory) == b""


def test_a_copy_from_an_offset_leaves_the_position_alone(tmp_path):
    with memfd(LARGE) as memory, (tmp_path / "copy").open("ab") as appended:  # which the kernel refuses to copy into
        os.lseek(memory.fileno(), 5, os.SEEK_SET)
        copy(memory.fileno(), appended.fileno(), 0)
        assert os.lseek(memory.fileno(), 0, os.SEEK_CUR) == 5
    assert (tmp_path / "copy").read_bytes() == LARGE


def test_what_can_not_be_written_whole_is_not_written(tmp_path):
    (tmp_path / "file").write_text("old")
    with OwnedFd(os.open(tmp_path, os.O_RDONLY)) as directory, pytest.raises(IsADirectoryError):
        write_to(str(tmp_path / "file"), directory.fileno())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_directory_is_no_place_for_what_is_in_a_file(tmp_path):
    with memfd() as memory, pytest.raises(IsADirectoryError):
        write_to(str(tmp_path), memory.fileno())
    assert list(tmp_path.iterdir()) == []
