"""luoctl's commands, and how they end."""

import importlib
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from luod import __version__
from luod.ctl.command import Failed, Group, Options, misuse
from luod.ctl.help import COMMANDS, VERSION, help_text
from luod.ctl.output import visible


class Luoctl(Group):
    """The commands of the table. Each is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        _, module, _, _ = COMMANDS[cmd_name]
        found = importlib.import_module(f"luod.ctl.{module}")
        command: click.Command = getattr(found, f"{cmd_name.replace('-', '_')}_command")
        return command

    def get_help(self, ctx: click.Context) -> str:
        return help_text()

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [CompletionItem(name, help=what) for name, (_, _, _, what) in COMMANDS.items()]
        near = [item for item in commands if item.value.startswith(incomplete)]
        return near + click.Command.shell_complete(self, ctx, incomplete)


@click.group("luoctl", cls=Luoctl, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message=VERSION)
@click.pass_context
def luoctl(context: click.Context) -> None:
    context.ensure_object(Options)


def run(arguments: Sequence[str]) -> int:
    """Run a command, or complete the words of one; the exit status. What can't be written is raised: OSError."""
    if "_LUOCTL_COMPLETE" in os.environ:
        return _complete()
    try:
        with luoctl.make_context("luoctl", list(arguments)) as context:
            luoctl.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        return _failed(misuse(error), 2)
    except Failed as error:
        return _failed(str(error), error.exit_code)
    return 0


def _complete() -> int:
    """Print what could come next in a line that is being typed: no place to say what is wrong with it."""
    try:
        luoctl.main(prog_name="luoctl", standalone_mode=False)
    except SystemExit as end:
        return int(end.code or 0)
    except Exception:
        return 1
    return 0


def _failed(why: str, status: int) -> int:
    print(f"luoctl: {visible('; '.join(why.splitlines()))}", file=sys.stderr)
    return status
