"""Three clients of luod, to be read as examples: `python -m luod.demo.clients ROLE`.

A client can't know why it starts: for the first time, after a crash, or after a live update. So it asks luod for its
session. None: it starts afresh, and preserves what it has. Files in it: they are its own from before, and it takes
them back. Only after a live update the session is an incoming one, to be finished once all of it is in hand.

luod holds a duplicate of what it was given. So a client may be killed at any time, and loses nothing by it.
"""

import argparse
import fcntl
import os
import shutil
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Final

from luod.client import Client, Direction, KernelError, LuodError, OwnedFd, Session, ToPreserve, connect
from luod.demo.reports import Event, Measured, report
from luod.errors import RetrieveFailed
from luod.fds import FdBundle
from luod.memory import new_memory

CACHE_ENTRIES: Final = 100
CACHE_SEALS: Final = (
    0,
    fcntl.F_SEAL_SHRINK,
    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW,
    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL,
)
VM_PARTS: Final = {1: 8 << 20, 2: 64 << 10, 3: 4 << 10, 4: 0}
"""Tokens and sizes in bytes. In a delegated session tokens are its client's affair: luod doesn't know them."""


def archive(luod: Client, source: Path | None) -> FdBundle:
    """One large file, half read. luod preserves it."""
    return in_custody(luod, "archive", lambda: [archive_of(source)])


def cache(luod: Client, _: Path | None) -> FdBundle:
    """Many small files of all sizes, positions and seals. luod preserves them, all at once."""
    return in_custody(luod, "cache", lambda: [cache_entry(number) for number in range(CACHE_ENTRIES)])


def vm(luod: Client, _: Path | None) -> FdBundle:
    """A delegated session: luod lends it, what is in it is its client's own doing.

    It is for what luod can't do for its client: ioctls between retrieve and finish, or descriptors that can't be sent.
    """
    session = luod.find("vm")
    if session is not None and session.direction is Direction.INCOMING:
        return take_back_vm(luod)
    if session is not None:  # from before a crash: only the next kernel could give back what is in it
        luod.discard("vm")
    return start_vm(luod)


def in_custody(luod: Client, name: str, make: Callable[[], list[OwnedFd]]) -> FdBundle:
    """The files of a session that luod fills and empties: its own from before, or new ones."""
    session = luod.find(name) or luod.create(name)
    if session.files:
        return take_back(luod, session)
    if session.direction is Direction.INCOMING:  # the last incarnation came no further than create
        luod.finish(name)
        luod.create(name)
    return start(luod, name, FdBundle(make()))


def start(luod: Client, name: str, files: FdBundle) -> FdBundle:
    measured = measure(enumerate(files))
    report(Event.PREPARED)
    luod.preserve_all(name, [ToPreserve(fd, token, f"{name} {token}") for token, fd in enumerate(files)])
    report(Event.PRESERVED, measured)
    return files


def take_back(luod: Client, session: Session) -> FdBundle:
    back, failed = retrieve_all_that_can_be_had(luod, session.name, [file.token for file in session.files])
    report(Event.RETRIEVED)
    report(Event.MEASURED, measure(back.items()), failed)
    if session.direction is Direction.INCOMING:
        luod.finish(session.name)
        report(Event.FINISHED)
    return FdBundle(back.values())


def retrieve_all_that_can_be_had(
    luod: Client, name: str, tokens: list[int]
) -> tuple[dict[int, OwnedFd], dict[int, str]]:
    """The files by token, and why the others are lost. A file that can't be retrieved once never can be."""
    failed: dict[int, str] = {}
    while wanted := [token for token in tokens if token not in failed]:
        try:
            return luod.retrieve(name, wanted), failed
        except RetrieveFailed as error:
            failed[error.token] = str(error)
    return {}, failed


def start_vm(luod: Client) -> FdBundle:
    files = {token: memfd(f"vm {token}", os.urandom(size)) for token, size in VM_PARTS.items()}
    measured = measure(files.items())
    report(Event.PREPARED)
    _, lent = luod.create_delegated("vm")
    with lent:  # its end isn't the session's: luod holds that, with all that is in it
        for token, fd in files.items():
            lent.preserve_fd(fd.fileno(), token)
    report(Event.PRESERVED, measured)
    return FdBundle(files.values())


def take_back_vm(luod: Client) -> FdBundle:
    back: dict[int, OwnedFd] = {}
    failed: dict[int, str] = {}
    with luod.claim("vm") as lent:
        for token in VM_PARTS:
            try:
                back[token] = lent.retrieve_fd(token)
            except KernelError as error:
                failed[token] = str(error)
    report(Event.RETRIEVED)
    report(Event.MEASURED, measure(back.items()), failed)
    luod.finish("vm")
    report(Event.FINISHED)
    return FdBundle(back.values())


def archive_of(source: Path | None) -> OwnedFd:
    """The content of a file, or of Python's standard library as a tar, in memory."""
    fd = new_memory("archive")
    with open(fd.fileno(), "wb", closefd=False) as memory:
        if source is None:
            pack_the_library(memory)
        else:
            with source.open("rb") as file:
                shutil.copyfileobj(file, memory, 1 << 20)
    os.lseek(fd.fileno(), os.fstat(fd.fileno()).st_size // 2, os.SEEK_SET)
    return fd


def pack_the_library(memory: IO[bytes]) -> None:
    def chosen(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(member.name).name
        return None if name in ("__pycache__", "site-packages") or name.startswith("config-") else member

    with tarfile.open(fileobj=memory, mode="w|") as tar:
        tar.add(sysconfig.get_path("stdlib"), "lib", filter=chosen)


def cache_entry(number: int) -> OwnedFd:
    size = number * number * 7
    fd = memfd(f"cache {number}", os.urandom(size))
    os.lseek(fd.fileno(), size * number // CACHE_ENTRIES, os.SEEK_SET)
    fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, CACHE_SEALS[number % len(CACHE_SEALS)])
    return fd


def memfd(name: str, content: bytes) -> OwnedFd:
    fd = new_memory(name)
    with open(fd.fileno(), "wb", closefd=False) as memory:
        memory.write(content)
    return fd


def measure(files: Iterable[tuple[int, OwnedFd]]) -> list[Measured]:
    return [Measured.of(token, fd.fileno()) for token, fd in files]


def main() -> int:
    """Play a role until standard input ends; the exit status."""
    roles = {"archive": archive, "cache": cache, "vm": vm}
    parser = argparse.ArgumentParser(prog="python -m luod.demo.clients", description="A client in luod's demo.")
    parser.add_argument("role", choices=roles)
    parser.add_argument("--file", type=Path, help="what the archive is of")
    given = parser.parse_args()
    try:
        with connect() as luod:
            report(Event.CONNECTED)
            with roles[given.role](luod, given.file):
                sys.stdin.read()  # here it would do its work
    except (LuodError, OSError) as error:
        print(f"{given.role}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
