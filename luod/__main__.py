"""The command `luod`: the daemon, who keeps it alive, and a demonstration of it."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["supervise"]:  # it stays small
        from luod.supervisor import main as supervise

        return supervise(words[1:])

    import argparse
    from pathlib import Path

    import luod

    parser = argparse.ArgumentParser(prog="luod", description=luod.__doc__)
    parser.add_argument("--version", action="version", version=f"luod {luod.__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (default: /etc/luod/luod.toml)")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="where clients connect")
    parser.add_argument("--device", metavar="PATH", help="/dev/liveupdate, or the socket of `python -m luod.sim`")
    parser.add_argument("--runtime-directory", type=Path, metavar="DIR", help="where manifest.json is written")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser("demo", help="show a live update on a simulated kernel")
    demo.add_argument("--file", type=Path, metavar="PATH", help="what to carry over (default: Python's library)")
    commands.add_parser("supervise", help="keep luod's sessions when it dies, and start it again", add_help=False)
    given = parser.parse_args(words)
    if given.command == "demo":
        from luod import demo as demonstration

        return demonstration.main(given.file)

    from luod.config import Config, ConfigError
    from luod.daemon import main as be_luod

    try:
        config = Config.load(
            given.config, socket=given.socket, device=given.device, runtime_directory=given.runtime_directory
        )
    except ConfigError as error:
        print(f"luod: {error}", file=sys.stderr)
        return 1
    return be_luod(config)


if __name__ == "__main__":
    sys.exit(main())
