"""luoctl status."""

from typing import TYPE_CHECKING, Any

import click

from luod.ctl.command import Command, Options
from luod.ctl.link import luod_at
from luod.ctl.output import count, facts, print_json, show, size, styled

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command("status", cls=Command)
@click.pass_obj
def status_command(options: Options) -> None:
    """Show how luod and its kernel are doing. With --json: the reply of io.luod.Update.Status.

    Phase `unavailable` means that this boot can't give anything back: nobody should start afresh.
    """
    with luod_at(options) as luod:
        status = luod.status()
    if options.json:
        print_json(status.wire())
        return
    unavailable = status.phase == "unavailable"
    holds = f"{count(status.sessions, 'session')}, {count(status.files, 'file')}, {size(status.bytes)}"
    show(
        facts(
            {
                "Phase": styled(status.phase, "bold red" if unavailable else "green"),
                "Holds": None if unavailable else holds,
                "Generation": None if unavailable else status.generation,
                "Kernel": _words({**status.kernel, "bootId": None}, "release"),
                "Boot": status.kernel.get("bootId"),
                "Next kernel": _words(status.image or {}, "version"),
                "Device": _words(status.device, "path"),
                "Fd store": _kept(status.fd_store or {}),
                "Unclear": (status.fd_store or {}).get("unclear") or None,
            }
        )
    )


def _kept(said: dict[str, Any]) -> "RenderableType | None":
    """What the service manager keeps when luod ends."""
    if not said:
        return None
    if not said.get("limit"):
        return styled("none: what luod holds is lost when it ends", "yellow")
    return f"{said.get('entries')} of {said['limit']} entries"


def _words(said: dict[str, Any], first: str) -> str | None:
    """What an object says: the member `first` as it is, the others with their names."""
    words = [str(said[first])] if first in said else []
    for name, value in said.items():
        if value is False:
            words.append(f"not {name}")
        elif value is True:
            words.append(name)
        elif name != first and value is not None:
            words.append(f"{name}: {value}")
    return ", ".join(words) or None
