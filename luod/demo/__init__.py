"""A live update for whoever wants to see one: `luod demo`. Everything in it is real but for the kernel.

The same story plays on a real kernel, in a virtual machine: `make demo-vm`.
"""

import os
import signal
import stat
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from luod.demo.screen import Screen
    from luod.demo.stage import Stage

NAME: Final = "luod demo"
BAD_FILE: Final = 2
FAILED: Final = 1

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(path: Path | None) -> int:
    """Show it; the exit status: 0, 1 where anything was lost or failed, 2 where the file at `path` is no use."""
    problem = _problem_with(path)
    if problem is not None:
        print(f"{NAME}: {path}: {problem}", file=sys.stderr)
        return BAD_FILE
    try:
        import trio

        from luod.demo.screen import Screen
        from luod.demo.simulated import SimulatedStage

        screen = Screen()
        return trio.run(perform, NAME, SimulatedStage.set_up(screen), screen, path)
    except KeyboardInterrupt:  # before anything was started
        return 128 + signal.SIGINT


async def perform(name: str, place: "AbstractAsyncContextManager[Stage]", screen: "Screen", path: Path | None) -> int:
    """The whole demo of this name on this stage, until its end or a signal; the exit status."""
    import trio

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
                async with place as stage:
                    status = 0 if await Story(stage, screen, path).tell() else FAILED
            except* BrokenPipeError:  # whoever read this has seen enough
                stop_printing()
            except* OSError as group:
                if status == FAILED:  # else it was ended, and its terminal may be gone
                    print(f"{name}: {innermost(group)}", file=sys.stderr)
            nursery.cancel_scope.cancel()
    return status


def innermost(error: BaseException) -> BaseException:
    """The first error in a group of groups."""
    return innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def stop_printing() -> None:
    """Let what is still to be printed go nowhere."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


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
