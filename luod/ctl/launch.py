"""luoctl becomes a command that takes descriptors by sd_listen_fds(3)."""

import os
import shutil
import signal
from collections.abc import Sequence
from typing import NoReturn

from luod.ctl.command import Failed
from luod.fds import hand_over, listen_environment

_NAME_MAX = 255


def executable(command: Sequence[str]) -> str:
    """Where the command's program is. Raises Failed, before anything was asked for."""
    program = shutil.which(command[0])
    if program is None:
        missing = "there is no such program" if not os.path.exists(command[0]) else "it can't be executed"
        raise Failed(f"can't run {command[0]}: {missing}")
    return program


def listen_name(wanted: str | None, *, otherwise: str) -> str:
    """A name for LISTEN_FDNAMES: `wanted` where systemd would take it (fdname_is_valid() in src/basic/fd-util.c)."""
    if wanted and wanted.isascii() and wanted.isprintable() and ":" not in wanted and len(wanted) <= _NAME_MAX:
        return wanted
    return otherwise


def hand_to(program: str, command: Sequence[str], names: Sequence[str], fds: Sequence[int]) -> NoReturn:
    """Become the command, with these borrowed descriptors from 3 on. Raises Failed: after that luoctl has to end.

    All else that luoctl has opened is closed by exec.
    """
    try:
        hand_over(fds)
    except OSError:
        raise Failed(f"there is no room for {len(fds)} descriptors: raise the limit (ulimit -n)") from None
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, list(command), os.environ | listen_environment(names))
    except OSError as error:
        raise Failed(f"can't run {program}: {error.strerror}") from None
