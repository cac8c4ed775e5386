"""luoctl preserve, retrieve, unpreserve: the files of a session."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import click

from luod.ctl.command import Command, Failed, Given, Launcher, Options
from luod.ctl.consent import agree, loss_of, yes_option
from luod.ctl.content import copy, memory_of, write_to
from luod.ctl.link import called, luod_at, session_named
from luod.ctl.output import amount, count, print_json, print_line, size
from luod.ctl.output import tokens as tokens_of
from luod.ctl.parameters import FileName, InheritedFd, KnownToken, Number, Token, owner_option, session_argument
from luod.errors import SessionLost, TokenNotFound, WrongMode
from luod.fds import FdBundle, OwnedFd
from luod.names import file_name

if TYPE_CHECKING:
    from luod.client import File, Session


@dataclass(frozen=True)
class Source:
    """Where a file to preserve comes from: a descriptor, what its user calls it, and the owner's word for the file.

    `is_memory`: it is to be preserved itself. Otherwise what can be read from it is.
    """

    fd: OwnedFd
    words: str
    name: str | None
    is_memory: bool = False

    @property
    def given(self) -> Given:
        return Given(self.words, os.fstat(self.fd.fileno()).st_uid if self.is_memory else os.getuid())


@click.command("preserve", cls=Command)
@session_argument
@click.argument("file", required=False, type=click.Path(readable=False))
@click.option("--token", type=Token(), metavar="N", help="Its token in the session. [default: a free one]")
@click.option("--name", type=FileName(), help="Your word for it. [default: the name of the file]")
@click.option("--fd", type=InheritedFd(), metavar="N", help="Preserve memory that luoctl has inherited.")
@click.option("--pid", type=Number(1), metavar="PID", help="Preserve memory of this process.")
@click.option("--remote-fd", type=Number(0), metavar="N", help="Which descriptor of that process it is.")
@owner_option
@click.pass_obj
def preserve_command(
    options: Options,
    *,
    session: str,
    file: str | None,
    token: int | None,
    name: str | None,
    fd: int | None,
    pid: int | None,
    remote_fd: int | None,
) -> None:
    """Preserve what is in FILE, or comes from standard input (-), in SESSION: a copy in memory, of which luod holds a
    duplicate.

    With --fd, or --pid and --remote-fd, there is no copy: that memory itself is preserved, and what its owner writes to
    it goes over. With --json: a File. For example:

    \b
        luoctl preserve ram checkpoint.img --token 0
        make-checkpoint | luoctl preserve ram --name checkpoint
        luoctl preserve ram --pid 4242 --remote-fd 7 --owner qemu
    """
    with _source(file, fd, pid, remote_fd) as source, luod_at(options, given=[source.given]) as luod:
        session_named(luod, options, session)  # before much is copied for nothing
        word = name or source.name
        with _memory(source, word) as memory:
            preserved = luod.preserve(session, memory, token, word, options.owner)
    if options.json:
        print_json(preserved.wire())
    else:
        what = f"{source.words} in {called(options, session)} as token {preserved.token}"
        print_line(f"preserved {what}: {size(preserved.size)}")


@click.command("retrieve", cls=Launcher, launches="[-- COMMAND...]")
@session_argument
@click.argument("tokens", type=KnownToken(), nargs=-1, metavar="[TOKEN]...")
@click.option(
    "--output", "-o", type=click.Path(readable=False), metavar="FILE", help="Where to write what is in the file to."
)
@owner_option
@click.pass_obj
def retrieve_command(
    options: Options, *, session: str, tokens: Sequence[int], output: str | None, command: Sequence[str] | None
) -> None:
    """Get back what is in the file of SESSION that TOKEN names, on standard output or in FILE. Where there is only one,
    TOKEN may be left out.

    With COMMAND, run it with the files themselves, these or all, as descriptors from 3 on in the order of their tokens.
    They are handed over by sd_listen_fds(3), named by your words for them where there are any.

    FILE appears whole or not at all. With --json and FILE: a File. For example:

    \b
        luoctl retrieve ram 0 --output checkpoint.img
        luoctl retrieve ram -- sh -c 'cat /proc/self/fd/3'
    """
    if output == "/dev/stdout":
        output = "-"
    if command is not None:
        if output is not None:
            raise click.UsageError("--output and -- COMMAND exclude each other")
        _run_with_files(options, session, tokens, command)
    if len(tokens) > 1:
        raise click.UsageError("one token at a time, or -- COMMAND for all of them")
    if options.json and output in (None, "-"):
        raise click.UsageError("with --json, --output says where what is in the file goes")
    if output is None and os.isatty(1):
        raise click.UsageError("this is a terminal: name --output FILE, or --output - to see it here")
    with luod_at(options) as luod:
        files = _files(session_named(luod, options, session), tokens)
        if len(files) > 1:
            raise Failed(f"session {session!r} has {count(len(files), 'file')}, name one: {tokens_of(files)}")
        file = files[0]
        with luod.retrieve(session, [file.token], options.owner)[file.token] as memory:
            _write(memory, output)
    if output in (None, "-"):
        return
    if options.json:
        print_json(file.model_copy(update={"retrieved": True}).wire())
    else:
        print_line(f"retrieved token {file.token} of {called(options, session)} into {output}: {size(file.size)}")


@click.command("unpreserve", cls=Command)
@session_argument
@click.argument("tokens", type=KnownToken(), nargs=-1, required=True, metavar="TOKEN...")
@yes_option
@owner_option
@click.pass_obj
def unpreserve_command(options: Options, *, session: str, tokens: Sequence[int], yes: bool) -> None:
    """Take the files that each TOKEN names out of SESSION, which hasn't gone over yet.

    On a terminal it asks before. With --json: {"released"}, whether their memory is known to be free.
    """
    with luod_at(options) as luod:
        there = session_named(luod, options, session)
        files = _files(there, tokens)
        numbers = ", ".join(str(file.token) for file in files)
        named = f"{'token' if len(files) == 1 else 'tokens'} {numbers} of {called(options, session)}"
        if there.direction == "outgoing":
            agree(f"Unpreserve {named}", loss_of(files), yes=yes)
        released = luod.unpreserve(session, [file.token for file in files], options.owner)
    if options.json:
        print_json({"released": released})
    else:
        until = "" if released else "; the kernel may keep the memory until the session ends"
        print_line(f"unpreserved {named}: {amount(files)}{until}")


def _files(session: "Session", tokens: Sequence[int]) -> "list[File]":
    """The files that these tokens name, or all, in the order of their tokens. Raises what luod would, and Failed."""
    if session.lost is not None:
        raise SessionLost(session.name, session.lost)
    if session.mode == "delegated":
        raise WrongMode(session.name, session.mode)
    there = {file.token: file for file in session.files}
    if missing := [token for token in tokens if token not in there]:
        raise TokenNotFound(session.name, missing[0])
    if not there:
        raise Failed(f"session {session.name!r} has no files")
    return [there[token] for token in sorted(set(tokens) or there)]


def _run_with_files(options: Options, session: str, tokens: Sequence[int], command: Sequence[str]) -> NoReturn:
    from luod.ctl.launch import executable, hand_to, listen_name

    program = executable(command)
    with luod_at(options) as luod:
        files = _files(session_named(luod, options, session), tokens)
        names = [listen_name(file.name, otherwise=str(file.token)) for file in files]
        back = luod.retrieve(session, [file.token for file in files], options.owner)
        with FdBundle(back.values()):
            hand_to(program, command, names, [back[file.token].fileno() for file in files])


def _write(memory: OwnedFd, output: str | None) -> None:
    """Write all of it where it is to go. Raises Failed, and BrokenPipeError."""
    try:
        if output in (None, "-"):
            sys.stdout.flush()
            copy(memory.fileno(), 1, 0)
        else:
            write_to(output, memory.fileno())
    except BrokenPipeError:
        raise
    except OSError as error:
        where = "standard output" if output in (None, "-") else output
        raise Failed(f"can't write {where}: {error.strerror}") from None


@contextmanager
def _source(file: str | None, fd: int | None, pid: int | None, remote_fd: int | None) -> Iterator[Source]:
    """What is to be preserved. Its descriptor is closed at the end. Raises click.UsageError and Failed."""
    if (pid is None) != (remote_fd is None):
        raise click.UsageError("--pid and --remote-fd go together")
    if [file, fd, pid].count(None) < 2:
        raise click.UsageError("FILE, --fd and --pid exclude each other")
    if fd is not None:
        source = _memory_behind(OwnedFd.duplicate_of(fd), f"descriptor {fd}")
    elif pid is not None and remote_fd is not None:
        from luod.ctl.processes import descriptor_of

        source = _memory_behind(descriptor_of(pid, remote_fd), f"descriptor {remote_fd} of process {pid}")
    elif file in (None, "-"):
        if file is None and os.isatty(0):
            raise click.UsageError("there is nothing to preserve: name a FILE, --fd or --pid")
        source = Source(OwnedFd.duplicate_of(0), "standard input", None)
    else:
        source = Source(_opened(file), file, _file_name(os.path.basename(file)))
    with source.fd:
        yield source


def _opened(file: str) -> OwnedFd:
    try:
        return OwnedFd(os.open(file, os.O_RDONLY))
    except OSError as error:
        raise Failed(f"can't read {file}: {error.strerror}") from None


def _memory_behind(fd: OwnedFd, words: str) -> Source:
    """A source that is memory itself, called as its memfd is."""
    path = os.readlink(f"/proc/self/fd/{fd.fileno()}").removesuffix(" (deleted)")
    return Source(fd, words, _file_name(os.path.basename(path).removeprefix("memfd:")), is_memory=True)


def _file_name(text: str) -> str | None:
    """A file's name as its owner's word for it, where luod takes it."""
    try:
        return file_name(text)
    except ValueError:
        return None


def _memory(source: Source, word: str | None) -> OwnedFd:
    """The memory to preserve, the caller's to close. Raises Failed."""
    if source.is_memory:
        return source.fd.duplicate()
    try:
        return memory_of(source.fd.fileno(), word or "luoctl")
    except OSError as error:
        raise Failed(f"can't copy {source.words} into memory: {error.strerror}") from None
