"""luoctl call, luoctl introspect: Varlink as it is."""

import json
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from luod.ctl.command import Command, Failed, Options, nearest
from luod.ctl.link import luod_at
from luod.ctl.output import facts, print_json, show, size, visible
from luod.ctl.parameters import InheritedFd

if TYPE_CHECKING:
    from rich.text import Text

    from luod.client import Answer, Client
    from luod.fds import FdBundle

SERVICE = "org.varlink.service"


@click.command("call", cls=Command)
@click.argument("method")
@click.argument("parameters", required=False, metavar="[JSON]", default="{}")
@click.option("--more", is_flag=True, help="Ask for several replies.")
@click.option("--fd", "fds", type=InheritedFd(), multiple=True, metavar="N", help="Send descriptor N, too.")
@click.pass_obj
def call_command(options: Options, method: str, parameters: str, *, more: bool, fds: tuple[int, ...]) -> None:
    """Call METHOD, by its full name, with a JSON object of parameters; print each reply on a line.

    The parameters name the descriptors of --fd by their index, from 0. Those that come with a reply are described on
    standard error and closed. For example:

        luoctl call io.luod.Custody.Retrieve '{"session": "ram"}'
    """
    given = _object(parameters)
    if isinstance(owner := given.get("owner"), int):
        options.owner = owner  # whose sessions an error is about
    with luod_at(options, raw=True) as luod:
        for answer in _answers(luod, method, given, fds, more=more):
            with answer.fds:
                print(json.dumps(answer.parameters), flush=True)
                _describe(answer.fds)


@click.command("introspect", cls=Command)
@click.argument("interface", required=False)
@click.pass_obj
def introspect_command(options: Options, interface: str | None) -> None:
    """Describe luod, or one of its interfaces. With --json: the reply of org.varlink.service."""
    from luod.errors import InterfaceNotFound

    with luod_at(options) as luod:
        if interface is None:
            answer = luod.call(f"{SERVICE}.GetInfo")
        else:
            try:
                answer = luod.call(f"{SERVICE}.GetInterfaceDescription", {"interface": interface})
            except InterfaceNotFound:
                known = luod.call(f"{SERVICE}.GetInfo").parameters.get("interfaces", [])
                raise Failed(f"luod has no interface {interface!r}{nearest(interface, known)}") from None
        answer.fds.close()
    said = answer.parameters
    if options.json:
        print_json(said)
    elif interface is None:
        show(facts({name.capitalize(): value for name, value in said.items()}))
    else:
        show(_coloured(str(said.get("description"))))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"{error.msg} at character {error.pos}", param_hint="JSON") from None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint="JSON")
    return value


def _answers(
    luod: "Client", method: str, parameters: dict[str, Any], fds: tuple[int, ...], *, more: bool
) -> "Iterator[Answer]":
    if not more:
        yield luod.call(method, parameters, fds)
        return
    with luod.stream(method, parameters, fds) as answers:
        yield from answers


def _describe(fds: "FdBundle") -> None:
    for index, fd in enumerate(fds):
        about = os.fstat(fd.fileno())
        what = visible(os.readlink(f"/proc/self/fd/{fd.fileno()}"))
        much = f", {size(about.st_size)}" if stat.S_ISREG(about.st_mode) else ""
        click.echo(f"luoctl: descriptor {index} was {what}{much}; closed", err=True)


def _coloured(description: str) -> "Text":
    from rich.text import Text

    text = Text("\n".join(visible(line) for line in description.splitlines()))
    text.highlight_regex(r"(?m)^\s*\w+(?=: )|(?<=\()\w+(?=: )|(?<=, )\w+(?=: )", "cyan")
    text.highlight_regex(r"\b(bool|int|float|string|object)\b", "green")
    text.highlight_regex(r"(?m)^(interface|type|method|error)\b", "bold magenta")
    text.highlight_regex(r"(?m)(?<=^method )\w+|(?<=^type )\w+|(?<=^error )\w+|(?<=^interface )\S+", "bold")
    text.highlight_regex(r"(?m)#.*$", "not bold dim")
    return text
