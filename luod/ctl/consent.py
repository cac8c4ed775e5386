"""Before something is gone for good: what that is, and whether it may be."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from luod.ctl.command import Failed
from luod.ctl.output import amount, visible

if TYPE_CHECKING:
    from luod.client import File, Session

yes_option = click.option("--yes", "-y", is_flag=True, help="Don't ask.")


def agree(what: str, gone: str, *, yes: bool) -> None:
    """Say what will be gone, and ask whether to do `what`: of whoever sits at a terminal and hasn't said `yes`.

    Where nobody sits there, it is agreed. Raises Failed.
    """
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    print(f"{visible(gone)}\n{visible(what)}? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # Ctrl-D: the line is still to be ended
        print(file=sys.stderr)
    if answer.strip().lower() not in ("y", "yes"):
        raise Failed("nothing was done")


def loss(session: "Session") -> str:
    """What is gone with a session, in a sentence."""
    if session.lost is not None:
        return "It is lost, and will be forgotten."
    if session.mode == "delegated":
        return "Only its owner knows what will be gone."
    return loss_of(session.files)


def loss_of(files: "Sequence[File]") -> str:
    if not files:
        return "It has no files."
    unseen = sum(not file.retrieved for file in files)
    if not unseen:
        who = "It was retrieved." if len(files) == 1 else "All were retrieved."
    elif unseen == len(files):
        who = f"Nobody has retrieved {'it' if len(files) == 1 else 'them'}."
    else:
        who = f"Nobody has retrieved {unseen} of them."
    return f"{amount(files)}, will be gone. {who}"
