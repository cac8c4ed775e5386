"""A live update for whoever wants to see one: `luod demo`. Everything in it is real but for the kernel."""

import os
import signal
import stat
import sys
from pathlib import Path
from typing import Final

BAD_FILE: Final = 2
FAILED: Final = 1

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(path: Path | None) -> int:
    """Show it; the exit status: 0, 1 where anything was lost or failed, 2 where the file at `path` is no use."""
    problem = _problem_with(path)
    if problem is not None:
        print(f"luod demo: {path}: {problem}", file=sys.stderr)
        return BAD_FILE
    try:
        import trio

        return trio.run(_perform, path)
    except KeyboardInterrupt:  # before anything was started
        return 128 + signal.SIGINT


async def _perform(path: Path | None) -> int:
    """The whole demo, until its end or a signal."""
    import trio

    from luod.demo.screen import Screen
    from luod.demo.stage import Stage
    from luod.demo.story import Story

    status = FAILED
    with trio.open_signal_receiver(*_ENDING) as signals:
        async with trio.open_nursery() as nursery:

            async def be_ended() -> None:
                nonlocal status
                status = 128 + await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(be_ended)
            try:
                async with Stage.set_up() as stage:
                    status = 0 if await Story(stage, Screen(), path).tell() else FAILED
            except* BrokenPipeError:  # whoever read this has seen enough
                with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230 - it doesn't block
                    os.dup2(nowhere.fileno(), sys.stdout.fileno())
            except* OSError as group:
                print(f"luod demo: {group.exceptions[0]}", file=sys.stderr)
            nursery.cancel_scope.cancel()
    return status


def _problem_with(path: Path | None) -> str | None:
    """Why this file can't be carried over, found out before anything is started."""
    if path is None:
        return None
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a regular file"
        path.open("rb").close()
    except OSError as error:
        return error.strerror
    return None
