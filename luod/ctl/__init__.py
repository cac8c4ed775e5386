"""luoctl: what luod holds, for operators and for authors of clients.

A command's module is imported when the command is used, and click when there is a command.
"""

import os
import sys

from luod.ctl.help import VERSION, help_text


def main(arguments: "list[str] | tuple[str, ...] | None" = None) -> int:
    """Run luoctl; the exit status."""
    _open_what_is_closed()
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _write_no_more()
        return 141
    except OSError as error:
        _write_no_more()
        print(f"luoctl: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 1
    return status


def _run(arguments: list[str]) -> int:
    match arguments:
        case [] if "_LUOCTL_COMPLETE" not in os.environ:
            print(help_text(), file=sys.stderr)
            return 2
        case ["-h" | "--help", *_]:
            print(help_text())
            return 0
        case ["--version", *_]:
            print(VERSION)
            return 0
    from luod.ctl.run import run

    return run(arguments)


def _open_what_is_closed() -> None:
    """Where luoctl was started without stdin, stdout or stderr: nothing else may get that number, and be taken for it.

    The use of either of the first two fails, as it should.
    """
    for name, flags, mode in (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))


def _write_no_more() -> None:
    """What stdout didn't take, Python would try again at its end."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
