"""The words that commands take: each is checked, and can be completed."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from luod import names
from luod.ctl.command import set_option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    Word = click.ParamType[Any]
else:
    Word = click.ParamType  # before click 8.2 it is of no type in particular


class Owner(Word):
    """A uid, or the name of a user."""

    name = "uid"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        import pwd

        if isinstance(value, int):
            return value
        if (uid := _whole(value, 0, 2**32 - 2)) is not None:
            return uid
        try:
            return pwd.getpwnam(value).pw_uid
        except KeyError:
            self.fail(f"there is no user {value!r}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        from luod.ctl.completion import users

        return users(incomplete)


class SessionName(Word):
    """A name that a session can have."""

    name = "session"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return names.session_name(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class KnownSession(SessionName):
    """The name of a session that is there."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        from luod.ctl.completion import sessions

        return sessions(ctx, incomplete)


class FileName(Word):
    """An owner's own word for a file."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return names.file_name(value)
        except ValueError as error:
            self.fail(f"it {error}", param, ctx)


class LinkPattern(Word):
    """The name of a link, or a pattern of names."""

    name = "pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return names.link_pattern(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        from luod.ctl.completion import links

        return links(ctx, incomplete)


class Number(Word):
    """A whole number, from `least` on."""

    name = "number"

    def __init__(self, least: int, most: int = 2**31 - 1) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        number = _whole(value, self._least, self._most)
        if number is None:
            self.fail(f"{value!r} is not a number from {self._least} to {self._most}", param, ctx)
        return number


class Token(Number):
    """A token that an owner can choose."""

    name = "token"

    def __init__(self) -> None:
        super().__init__(0, names.TOKEN_MAX)


class KnownToken(Token):
    """The token of a file that is there, in the session that was named before."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        from luod.ctl.completion import tokens

        return tokens(ctx, incomplete)


class InheritedFd(Number):
    """A descriptor that luoctl was started with."""

    name = "fd"

    def __init__(self) -> None:
        super().__init__(0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        fd = super().convert(value, param, ctx)
        try:
            os.fstat(fd)
        except OSError:
            self.fail(f"descriptor {fd} is not open", param, ctx)
        return fd


def _whole(text: str, least: int, most: int) -> int | None:
    """The number that the text is, if it is one of these."""
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most:
        return int(text)
    return None


def _labels(context: click.Context, option: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for label in given:
        key, equals, value = label.partition("=")
        if not equals:
            raise click.BadParameter(f"{label!r} is not KEY=VALUE", context, option)
        if key in labels:
            raise click.BadParameter(f"{key!r} has two values", context, option)
        labels[key] = value
    try:
        return names.labels(labels)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


session_argument = click.argument("session", type=KnownSession())

owner_option = click.option(
    "--owner",
    type=Owner(),
    metavar="USER",
    expose_value=False,
    callback=set_option,
    help="Act for this user, by uid or name.",
)

labels_option = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_labels,
    help="Label it, several times if need be.",
)
