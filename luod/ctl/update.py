"""luoctl update, luoctl abort: a live update, from the first check until the machine is on its way."""

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import click

from luod.ctl.command import Command, Failed, Options
from luod.ctl.consent import agree, yes_option
from luod.ctl.link import luod_at
from luod.ctl.output import facts, print_json, print_line, show, styled
from luod.ctl.parameters import Number
from luod.ctl.preflight import failed_of, report, summary, via_option
from luod.ctl.progress import Display, display
from luod.ctl.status import who_takes_part
from luod.errors import NoUpdate, PreflightFailed, UpdateAborted, UpdateInProgress

if TYPE_CHECKING:
    from luod.client import Check, Client, Progress

INTERRUPTED: Final = 130

_TICK: Final = 0.25
"""How often the time that is left is looked at, in seconds."""

_REASONS: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "luoctl was ended (SIGTERM)"}

_PHASES: Final = ("preparing", "ready", "sealed", "executing")
"""Those of a live update that goes on."""

_SYSTEMD_RUNS: Final = Path("/run/systemd/system")

_STILL_HERE: Final = "luod ended on the way out, so the machine didn't go: this is still the same kernel"
_ON_ITS_WAY: Final = "the machine goes into its next kernel"
_AS_BEFORE: Final = "everything is as before"
_NO_WAY_BACK: Final = "there is no way back any more"

_THEN: Final = {
    "systemd": "systemd stops all services in their order, and goes into the next kernel",
    "direct": "luod pauses who owns sessions, syncs the disks, and goes into the next kernel at once",
    None: "the machine goes into the next kernel: through systemd where luod is its service, else directly",
}


@click.command("update", cls=Command)
@click.option(
    "--deadline",
    type=Number(1, 86400),
    metavar="SECONDS",
    default=30,
    help="How long those who take part have to get ready. [default: 30]",
)
@click.option(
    "--unready",
    type=click.Choice(["abort", "proceed"]),
    default="abort",
    help="What is done where somebody isn't ready then; a refusal always aborts. [default: abort]",
)
@via_option
@click.option("--force", is_flag=True, help="Go in spite of failed checks, and lose what they name.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@yes_option
@click.pass_obj
def update_command(
    options: Options, *, deadline: int, unready: str, via: str | None, force: bool, dry_run: bool, yes: bool
) -> None:
    """Do a live update: check, let those who take part get ready, and go into the kernel that luoctl load has loaded.

    Until the machine is on its way, Ctrl-C brings everything back, as luoctl abort does.

    With direct, luod goes by itself: the shortest pause. Owners of sessions are stopped where they are, disks are
    written; should the kernel refuse, all goes on. All else is cut off, and what other services keep in systemd's fd
    store is lost by it.

    With systemd, PID 1 stops all services in their order, as for a reboot. Once it has begun THERE IS NO WAY BACK: a
    kexec that fails then becomes a plain reboot, and all that luod holds is lost. So what can fail is checked once more
    before.

    With --json: each progress on a line, as io.luod.Update.Start tells of it.
    """
    with luod_at(options) as luod:
        if dry_run:
            _say_what_would_happen(luod, options, deadline, unready, via)
            return
        if force:
            _agree_to_losses(luod.preflight(via), options, yes=yes)
        try:
            before = _boot(luod) if via == "direct" or not _SYSTEMD_RUNS.exists() else None
            with luod.update(via=via, deadline=deadline, unready=unready, force=force) as steps:
                _see_it_through(luod, steps, display(as_json=options.json))
            if before is not None and _boot_now(options) == before:
                raise Failed(_STILL_HERE)
        except PreflightFailed as error:
            _say_why(luod.preflight(via), options)
            raise Failed(f"{error}; do what the checks say, or lose what they name with --force") from None


def _boot(luod: "Client") -> str | None:
    """The boot that luod is in; None where it doesn't say."""
    from luod.client import LuodError

    with suppress(LuodError, OSError):
        boot: str | None = luod.status().kernel.get("bootId")
        return boot
    return None


def _boot_now(options: Options) -> str | None:
    """The boot of the luod that comes after the one that was lost on its way out; None where none comes.

    One that is killed there leaves it to the next one to let everything go on. PID 1, once asked, goes without luod.
    """
    from luod.client import LuodError, connect

    with suppress(LuodError, OSError), connect(options.socket, patience=0) as luod:
        return _boot(luod)
    return None


@click.command("abort", cls=Command)
@click.argument("reason", required=False)
@click.pass_obj
def abort_command(options: Options, *, reason: str | None) -> None:
    """Bring everything back from a live update that is being prepared, and tell everyone REASON.

    It waits until that is done: what luod is at must come to its end. With --json: {}.
    """
    with luod_at(options) as luod, luod.follow() as steps:
        try:
            luod.abort_update(reason)
        except UpdateInProgress:
            raise Failed(f"{_NO_WAY_BACK}: {_ON_ITS_WAY}") from None
        _wait_until_over(steps)
    if options.json:
        print_json({})
    else:
        print_line(f"aborted: {_AS_BEFORE}")


def _wait_until_over(steps: "Iterator[Progress]") -> None:
    """Until the live update that goes on is over, or another one goes on."""
    number = None
    for progress in steps:
        number = progress.update if number is None else number
        if progress.phase not in _PHASES or progress.update != number:
            return


# Before it


def _say_what_would_happen(luod: "Client", options: Options, deadline: int, unready: str, via: str | None) -> None:
    """Raises Failed where a check fails."""
    checks, status = luod.preflight(via), luod.status()
    taking_part = status.participants or []
    if options.json:
        print_json({"checks": [check.wire() for check in checks], "participants": taking_part})
    else:
        image = status.image or {}
        show(
            *report(checks),
            summary(checks),
            facts(
                {
                    "Takes part": [who_takes_part(each) for each in taking_part] or "nobody",
                    "First": f"they have {deadline} s to get ready" if taking_part else None,
                    "Unready": _UNREADY[unready] if taking_part else None,
                    "Then": _THEN[via],
                    "Into": image.get("release") or "no kernel: none is loaded",
                }
            ),
            styled("Nothing was done.", "dim"),
        )
    if failed := failed_of(checks):
        raise Failed(str(PreflightFailed(failed)))


_UNREADY: Final = {
    "abort": "if one of them isn't, the update is off",
    "proceed": "if one of them isn't, what luod holds of it goes over as it is",
}


def _agree_to_losses(checks: "Sequence[Check]", options: Options, *, yes: bool) -> None:
    """Show what failed and what that loses, and ask. Raises Failed."""
    failed = failed_of(checks)
    if not failed:
        return
    if not options.json:
        show(*report([check for check in checks if check.outcome == "fail"]))
    agree("Go all the same", f"{', '.join(failed)} failed: what that loses will be gone.", yes=yes)


def _say_why(checks: "Sequence[Check]", options: Options) -> None:
    """Show what doesn't pass."""
    troubled = [check for check in checks if check.outcome != "pass"]
    if options.json:
        print_line(json.dumps({"checks": [check.wire() for check in troubled]}))  # a line, as all before it
    elif troubled:
        show(*report(troubled))


# While it goes on


class Stop(NamedTuple):
    """A signal that asks luoctl to end."""

    number: int


class Over(NamedTuple):
    """luod says no more, because of this; `error` is None where it came to its end."""

    error: BaseException | None


class NotAborted(NamedTuple):
    """What became of luoctl's own wish to abort, where it wasn't granted."""

    error: Exception


_Happens: TypeAlias = "Progress | Stop | Over | NotAborted"


def _see_it_through(luod: "Client", steps: "Iterator[Progress]", screen: Display) -> None:
    """Show how it goes on until it is over. Raises Failed, what luod says, and click's Exit where it was stopped."""
    events: SimpleQueue[_Happens] = SimpleQueue()
    try:
        with _stopped_by_signals(events):
            _beside(_tell, steps, events)  # once it has begun, Ctrl-C takes it off
            _Course(luod, screen, events).run()
    finally:
        screen.close()


class _Course:
    """The course of a live update, as luoctl sees it."""

    def __init__(self, luod: "Client", screen: Display, events: "SimpleQueue[_Happens]") -> None:
        self._luod = luod
        self._screen = screen
        self._events = events
        self._phase = ""
        self._stopping = False

    def run(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=_TICK)
            except Empty:
                self._screen.tick()
                continue
            match event:
                case Stop(number):
                    if self._stop(number):
                        return
                case NotAborted(error):
                    self._not_aborted(error)
                case Over(error):
                    self._over(error)
                    return
                case progress if progress.phase in _PHASES:  # else it is over, and why comes next
                    self._phase = progress.phase
                    self._screen.show(progress)

    def _stop(self, number: int) -> bool:
        """Whether that is all: the system ends everybody when the machine is on its way."""
        if self._phase == "executing" and number == signal.SIGTERM:
            self._end("gone", _ON_ITS_WAY)
            return True
        if self._stopping:
            self._end("left", "luoctl doesn't wait for it")
            raise click.exceptions.Exit(INTERRUPTED)
        self._stopping = True
        self._screen.stop(_REASONS[signal.Signals(number)])
        _beside(_abort, self._luod, _REASONS[signal.Signals(number)], self._events)
        return False

    def _not_aborted(self, error: Exception) -> None:
        match error:
            case UpdateInProgress():
                self._screen.say(self._phase, _NO_WAY_BACK)
            case NoUpdate() if not self._phase:  # who hangs up before it has begun takes it off, too
                self._end("aborted", _AS_BEFORE)
                raise click.exceptions.Exit(INTERRUPTED)

    def _over(self, error: BaseException | None) -> None:
        from luod.client import Disconnected

        match error:
            case UpdateAborted(reason) if self._stopping:
                self._end("aborted", f"{reason}: {_AS_BEFORE}")
                raise click.exceptions.Exit(INTERRUPTED)
            case Disconnected() | None:
                if self._phase != "executing":
                    raise Failed("luod ended: the live update is off", INTERRUPTED if self._stopping else 1)
                self._end("gone", _ON_ITS_WAY)
            case _:
                raise error

    def _end(self, what: str, text: str) -> None:
        self._screen.close()
        self._screen.say(what, text)


def _tell(steps: "Iterator[Progress]", events: "SimpleQueue[_Happens]") -> None:
    try:
        for step in steps:
            events.put(step)
    except BaseException as error:
        events.put(Over(error))
    else:
        events.put(Over(None))


def _abort(luod: "Client", reason: str, events: "SimpleQueue[_Happens]") -> None:
    try:
        luod.abort_update(reason)
    except Exception as error:
        events.put(NotAborted(error))


def _beside(work: Any, *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


@contextmanager
def _stopped_by_signals(events: "SimpleQueue[_Happens]") -> Iterator[None]:
    """For the `with` block, what would end luoctl is an event."""

    def stop(number: int, frame: object) -> None:
        events.put(Stop(number))

    before = {number: signal.signal(number, stop) for number in _REASONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
