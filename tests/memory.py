"""Memory files for tests."""

import os
from contextlib import contextmanager

from luod.memory import new_memory


def memfd(content=b"content", flags=os.MFD_ALLOW_SEALING):
    """A memfd of the caller's, its position after its content."""
    fd = new_memory("test", flags)
    os.write(fd.fileno(), content)
    return fd


@contextmanager
def memfds(*contents):
    """One memfd for each content, closed at the end."""
    made = [memfd(content) for content in contents]
    try:
        yield made
    finally:
        for fd in made:
            fd.close()


def content(fd):
    return os.pread(fd.fileno(), os.fstat(fd.fileno()).st_size, 0)
