"""The simulated kernel's command: `python -m luod.sim`."""

import argparse
import errno
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from luod.sim import image, wire

_DESCRIPTION = """\
Simulates a kernel with the Live Update Orchestrator, for tests and for authors of clients.

Without a command it serves until SIGTERM or SIGINT: luod and its clients use the socket in place of
/dev/liveupdate. The commands work on a simulator that is running:

  state   what it holds, as JSON
  kexec   start the next kernel: outgoing sessions become incoming, every descriptor of the old one is dead
  fault   let a call fail:   fault PRESERVE_FD ENOMEM --nth 2
  delay   make a call slow:  delay PRESERVE_FD 5
  clear   forget all faults and delays

And one that works without:

  image   write the image of a kernel that a simulated one can go into: image FILE
"""

_STRINGS = {"kho": image.KHO, "luo": image.LUO, "handlers": image.HANDLERS}


def _parser() -> argparse.ArgumentParser:
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--socket", metavar="PATH", default=argparse.SUPPRESS, help=f"default here: {wire.default_path()}"
    )
    parser = argparse.ArgumentParser(
        prog="python -m luod.sim",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[where],
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("state", parents=[where])
    kexec = commands.add_parser("kexec", parents=[where])
    kexec.add_argument("--no-carry", action="store_true", help="the next kernel can't read what was handed over")
    kexec.add_argument(
        "--open-error",
        metavar="ERRNO",
        type=_errno,
        default=0,
        help="every open of its device fails: EIO, it can't restore; ENOENT, it has no live update",
    )
    fault = commands.add_parser("fault", parents=[where])
    fault.add_argument("call", help="a call of luod.kernel.api.Call, or FREEZE, which counts files")
    fault.add_argument("errno", type=_errno, help="its name: ENOMEM")
    fault.add_argument("--nth", type=int, default=1, help="which one from now that would have succeeded; default 1")
    delay = commands.add_parser("delay", parents=[where])
    delay.add_argument("call")
    delay.add_argument("seconds", type=float)
    commands.add_parser("clear", parents=[where])
    made = commands.add_parser("image")
    made.add_argument("file")
    made.add_argument("--release", default=image.RELEASE)
    for whose, usual in _STRINGS.items():
        names = made.add_argument(f"--{whose}", metavar="NAME", nargs="*", default=usual)
        names.help = f"the names of what it can take over, {' '.join(usual)}"
    return parser


def _errno(name: str) -> int:
    number = getattr(errno, name, None)
    if not isinstance(number, int):
        raise argparse.ArgumentTypeError(f"{name} is no errno's name")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve, or do what the command says. Returns the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    path = getattr(chosen, "socket", wire.default_path())
    try:
        if chosen.command == "image":
            path = chosen.file
            return _write_image(chosen)
        return _serve(path) if chosen.command is None else _control(path, chosen)
    except OSError as error:
        print(f"{parser.prog}: {path}: {error.strerror}", file=sys.stderr)
        return 1


def _serve(path: str) -> int:
    from luod.sim.listener import AlreadyRunning, Listener
    from luod.sim.server import Server

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        listener = Listener(path)
    except AlreadyRunning as refused:
        print(refused, file=sys.stderr)
        return 1
    server = Server(listener)
    with _told_to_stop() as stop:
        print(f"listening on {path}", flush=True)
        server.serve(stop)
    server.close()
    listener.close()
    return 0


@contextmanager
def _told_to_stop() -> Iterator[socket.socket]:
    """A socket that has something to read once SIGTERM or SIGINT came."""
    stop, signalled = socket.socketpair()
    with stop, signalled:
        signalled.settimeout(0)
        signal.set_wakeup_fd(signalled.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: None)
        yield stop
        signal.set_wakeup_fd(-1)


def _write_image(chosen: argparse.Namespace) -> int:
    strings = {whose: getattr(chosen, whose) for whose in _STRINGS}
    with open(chosen.file, "wb") as file:
        file.write(image.bzimage(release=chosen.release, **strings))
    return 0


def _control(path: str, chosen: argparse.Namespace) -> int:
    from luod.sim.client import Control

    control = Control(path)
    match chosen.command:
        case "state":
            state = control.state()
            sessions = [
                {**session._asdict(), "files": [file._asdict() for file in session.files]} for session in state.sessions
            ]
            print(json.dumps({**state._asdict(), "sessions": sessions}, indent=2))
        case "kexec":
            control.kexec(carry=not chosen.no_carry, open_error=chosen.open_error)
        case "fault":
            control.fault(chosen.call, chosen.errno, chosen.nth)
        case "delay":
            control.delay(chosen.call, chosen.seconds)
        case "clear":
            control.clear_faults()
    return 0


if __name__ == "__main__":
    sys.exit(main())
