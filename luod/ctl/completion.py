"""luoctl completion: what completes luoctl's words in a shell, and what it completes them with."""

import os
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from luod.ctl.command import Late, Options, within
from luod.ctl.output import size

if TYPE_CHECKING:
    from luod.client import Session

PATIENCE: Final = 1.0
"""How long somebody who has pressed Tab waits for luod, in seconds."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
def completion_command(shell: str) -> None:
    """Print what completes luoctl's words in SHELL: commands, options, your sessions and their tokens.

    \b
    In ~/.bashrc:                     eval "$(luoctl completion bash)"
    In ~/.zshrc, behind compinit:     eval "$(luoctl completion zsh)"
    In ~/.config/fish/config.fish:    luoctl completion fish | source
    """
    known = get_completion_class(shell)
    assert known is not None
    made = known(click.Command("luoctl"), {}, "luoctl", "_LUOCTL_COMPLETE")
    print(ShellComplete.source(made))  # bash's own would ask bash for its version first


def sessions(context: click.Context, incomplete: str) -> list[CompletionItem]:
    given = context.params.get("sessions") or ()
    return [
        CompletionItem(session.name, help=f"{'lost' if session.lost else session.direction} {session.mode}")
        for session in _known_sessions(context)
        if session.name.startswith(incomplete) and session.name not in given
    ]


def tokens(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Those of the session that was named before, but for those that were named, too."""
    if context.params.get("command") is not None:  # behind its `--`
        return []
    given = context.params.get("tokens") or ()
    return [
        CompletionItem(str(file.token), help=file.name or size(file.size))
        for session in _known_sessions(context)
        if session.name == context.params.get("session")
        for file in session.files
        if str(file.token).startswith(incomplete) and file.token not in given
    ]


def links(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Those of this host, but for those that were named."""
    given = context.params.get("patterns") or ()
    try:
        there = sorted(os.listdir("/sys/class/net"))
    except OSError:
        return []
    return [CompletionItem(link) for link in there if link.startswith(incomplete) and link not in given]


def users(incomplete: str) -> list[CompletionItem]:
    import pwd

    return [CompletionItem(user.pw_name) for user in pwd.getpwall() if user.pw_name.startswith(incomplete)]


def _known_sessions(context: click.Context) -> "list[Session]":
    """The sessions that are meant; none where luod doesn't say so at once."""
    from luod.client import LuodError, connect

    options = context.ensure_object(Options)
    try:
        with within(PATIENCE), connect(options.socket, patience=0) as luod:
            return luod.list(owner=options.owner)
    except (LuodError, OSError, Late):
        return []
