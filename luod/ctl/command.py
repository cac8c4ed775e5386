"""What all commands have in common: their options, and their failures."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import click


@dataclass
class Options:
    """What commands take, `--socket` and `--json` before their names as well. `owner` is whose sessions are meant: the
    caller's own where it is None.
    """

    socket: str | None = None
    json: bool = False
    owner: int | None = None


class Given(NamedTuple):
    """A descriptor that is sent to luod: what luoctl's user calls it, and whose file it is (a uid)."""

    called: str
    uid: int


class Failed(Exception):
    """A command failed: one line that says what was wrong, with what, and what to do next."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Late(Exception):
    """It took too long."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise Late in what takes longer than this; 0 is for ever."""

    def late(number: int, frame: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def misuse(error: click.ClickException) -> str:
    """The one line for what click refuses, with where to read more."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        text = f"there is no option {error.option_name}{nearest(error.option_name, error.possibilities or [])}"
    else:
        text = " ".join(error.format_message().split()).removesuffix(".")
    if text[1:2].islower():  # not the name of an argument
        text = text[0].lower() + text[1:]
    return f"{text} (see {context.command_path if context else 'luoctl'} -h)"


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean …?` with the one that looks like `word`, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def set_option(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep an option's value in the Options, unless it isn't given here."""
    if value is not None and value is not False:
        setattr(context.ensure_object(Options), option.name or "", value)


def _common() -> list[click.Parameter]:
    return [
        click.Option(
            ["--socket"],
            metavar="PATH",
            expose_value=False,
            callback=set_option,
            help="Where luod listens. [default: $LUOD_SOCKET, else /run/luod/io.luod]",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=set_option,
            help="Print JSON, with the interface's names.",
        ),
    ]


class Command(click.Command):
    """A command that takes the common options, too."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.params += _common()


class Launcher(Command):
    """A command that takes another one, behind `--`: its parameter `command`, None where there is no `--`."""

    def __init__(self, *args: Any, launches: str, **keywords: Any) -> None:
        """`launches` is how the usage shows it."""
        super().__init__(*args, **keywords)
        self._launches = launches

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), self._launches]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:end])
        ctx.params["command"] = args[end + 1 :] if end < len(args) else None
        if ctx.params["command"] == [] and not ctx.resilient_parsing:
            raise click.UsageError("there is no COMMAND behind --", ctx)
        return rest


class Group(click.Group):
    """Commands, of which the near one is suggested for one that is not there."""

    command_class = Command

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.params += _common()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
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
