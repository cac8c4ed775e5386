"""The command `luod`: the daemon, who keeps it alive, and a demonstration of it."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["supervise"]:  # it stays small
        from luod.supervisor import main as supervise

        return supervise(words[1:])
    if words[:1] == ["kexec"]:  # the machine stands still for it
        from luod.leave import main as leave

        return leave(words[1:])

    import argparse
    from pathlib import Path

    import luod

    parser = argparse.ArgumentParser(prog="luod", description=luod.__doc__)
    parser.add_argument("--version", action="version", version=f"luod {luod.__version__}")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: luod.toml and drop-ins in /etc/luod, /run/luod, /usr/lib/luod)",
    )
    parser.add_argument("--check-config", action="store_true", help="only say whether the configuration can be used")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="where clients connect")
    parser.add_argument("--device", metavar="PATH", help="/dev/liveupdate, or the socket of `python -m luod.sim`")
    parser.add_argument("--runtime-directory", type=Path, metavar="DIR", help="where manifest.json is written")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser("demo", help="show a live update on a simulated kernel")
    demo.add_argument("--file", type=Path, metavar="PATH", help="what to carry over (default: Python's library)")
    commands.add_parser("supervise", help="keep luod's sessions when it dies, and start it again", add_help=False)
    commands.add_parser(
        "kexec", help="go into the next kernel: luod starts it, at the end of a live update", add_help=False
    )
    given = parser.parse_args(words)
    if given.command == "demo":
        from luod import demo as demonstration

        return demonstration.main(given.file)

    from functools import partial

    from luod.config import Config
    from luod.daemon import check
    from luod.daemon import main as be_luod

    names = ("socket", "device", "runtime_directory")
    load = partial(Config.load, given.config, **{name: getattr(given, name) for name in names})
    return check(load) if given.check_config else be_luod(load)


if __name__ == "__main__":
    sys.exit(main())
