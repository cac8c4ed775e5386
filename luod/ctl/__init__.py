"""luoctl: what luod holds, for operators. A command's module is imported when the command is used."""

import os
import sys
from collections.abc import Sequence

import click

from luod import __version__
from luod.ctl.command import Failed, LazyGroup, Options, misuse

EPILOG = """\
Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 luod is not running, 4 this boot can't give anything back.
"""


@click.group(
    cls=LazyGroup,
    commands_of={
        "status": ("luod.ctl.status", "Show how luod and its kernel are doing."),
        "list": ("luod.ctl.sessions", "List sessions."),
        "show": ("luod.ctl.sessions", "Show one session and its files."),
        "manifest": ("luod.ctl.manifest", "Show or verify what goes over with a live update."),
        "config": ("luod.ctl.config", "Show or check luod's configuration."),
        "call": ("luod.ctl.varlink", "Call a Varlink method."),
        "introspect": ("luod.ctl.varlink", "Describe luod and its interfaces."),
        "install-units": ("luod.ctl.units", "Put luod's systemd units in place."),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="luoctl", message="%(prog)s %(version)s")
@click.pass_context
def luoctl(context: click.Context) -> None:
    """Look into luod, which owns Live Update Orchestrator sessions across kexec."""
    context.ensure_object(Options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    if "_LUOCTL_COMPLETE" in os.environ:
        luoctl.main(prog_name="luoctl")
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        with open(os.devnull, "wb") as nowhere:  # for the flush at exit
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 141
    return status


def _run(arguments: Sequence[str]) -> int:
    try:
        with luoctl.make_context("luoctl", list(arguments)) as context:
            luoctl.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        print(f"luoctl: {misuse(error)}", file=sys.stderr)
        return 2
    except Failed as error:
        print(f"luoctl: {error}", file=sys.stderr)
        return error.exit_code
    return 0
