"""What all commands have in common: their options, their failures, and that they are imported late."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass
class Options:
    """What can be said before a command as well as after it."""

    socket: str | None = None
    json: bool = False


class Failed(Exception):
    """A command failed: one line that says what was wrong, with what, and what to do next."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def misuse(error: click.ClickException) -> str:
    """The one line for what click refuses, with where to read more."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        text = f"there is no option {error.option_name}{nearest(error.option_name, error.possibilities or [])}"
    else:
        text = " ".join(error.format_message().split()).removesuffix(".")
    return f"{text[:1].lower()}{text[1:]} (see {context.command_path if context else 'luoctl'} -h)"


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean …?` with the one that looks like `word`, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _set(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value:
        setattr(context.ensure_object(Options), option.name or "", value)


def _common() -> list[click.Parameter]:
    return [
        click.Option(
            ["--socket"],
            metavar="PATH",
            expose_value=False,
            callback=_set,
            help="Where luod listens. [default: $LUOD_SOCKET, else /run/luod/io.luod]",
        ),
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_set, help="Print JSON, with the interface's names."
        ),
    ]


class Command(click.Command):
    """A command that takes the common options, too."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.params += _common()


class Group(click.Group):
    """Commands, of which the near one is suggested for one that is not there."""

    command_class = Command

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.params += _common()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            message = f"there is no command {args[0]!r}{nearest(args[0], self.list_commands(ctx))}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group that knows of each command its module and its line in the help, and imports it when it is used."""

    def __init__(self, *args: Any, commands_of: Mapping[str, tuple[str, str]], **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._commands_of = commands_of

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._commands_of)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._commands_of:
            return None
        module, _ = self._commands_of[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._commands_of.items()])
