"""What happens in the demo, in its order: preserve, two crashes, a kexec, retrieve, finish."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from luod.client import Session
from luod.ctl.output import size
from luod.demo.ledger import Ledger
from luod.demo.reports import Event, Measured
from luod.demo.screen import Bar, Doing, Part, Screen, duration
from luod.demo.stage import Boot, Failed, Process, Stage
from luod.interface.update import StatusReply

CLIENTS: Final = ("archive", "cache", "vm")
VICTIM: Final = "cache"
BAD: Final = "bold red"
GOOD: Final = "green"


class Story:
    """The driver: it starts and kills everybody, and checks what comes back."""

    def __init__(self, stage: Stage, screen: Screen, file: Path | None) -> None:
        self._stage = stage
        self._screen = screen
        self._file = file
        self._ledger = Ledger()
        self._clients: dict[str, Process] = {}
        self._bars: list[Bar] = []
        self._blackouts: dict[str, tuple[float, float]] = {}
        self._at_fault: set[str] = set()

    async def tell(self) -> bool:
        """Let it happen. Whether all went well, and nothing was lost."""
        try:
            await self._happen()
        except Failed as failure:
            self._blame(failure.who, str(failure))
        if self._at_fault:
            for who in sorted(self._at_fault | {"luod"}):
                self._screen.log(who, self._stage.log(who))
        good = self._ledger.nothing_lost and not self._at_fault
        self._screen.last(self._ledger.total(), f"bold {GOOD}" if good else BAD)
        return good

    async def _happen(self) -> None:
        screen = self._screen
        screen.heading("Three clients give luod what they have in memory")
        first = await self._stage.start_kernel()
        screen.line("kernel", first.text, at=first.up)
        luod, ready = await self._start_luod()
        screen.note("(generation: live updates that luod's state has lived through)")
        await self._all(self._preserve)
        if self._at_fault:
            return
        status, sessions = await self._stage.ask_luod()
        names = ", ".join(session.name for session in sessions)
        screen.line("luod", f"holds {names}: in its hands {_fds(status.files)}, {size(status.bytes)}")
        screen.note("(vm is a delegated session: only its client knows what is in it)")

        screen.heading("luod itself crashes: kill -9 luod")
        killed, back = await self._kill_luod(luod, status, sessions)

        screen.heading(f"A client crashes: kill -9 {VICTIM}")
        await self._crash()

        screen.heading("The machine goes into its next kernel: nobody lives through a kexec")
        kexec, second = await self._kexec(first)
        life = [*_life(luod.started, ready, kexec), (Doing.DARK, killed, back)]
        self._bars.insert(0, Bar("luod", "starts, serves", life))
        self._bars.append(Bar("all", "kexec", [(Doing.DARK, kexec, second.up)]))

        screen.heading("In the next kernel luod gives everything back")
        luod, ready = await self._start_luod()
        place = len(self._bars)
        await self._all(lambda role: self._return_after_kexec(role, kexec))
        await self._end(luod)
        now = time.monotonic()
        self._bars.insert(place, Bar("luod", "starts, serves", _life(luod.started, ready, now)))
        if second.started == first.started:  # a simulated kernel lives through its own kexec
            self._bars.insert(0, Bar("kernel", "starts, runs", _life(first.started, first.up, now)))
        else:
            self._bars.insert(place, Bar("kernel", "starts, runs", _life(second.started, second.up, now)))
            self._bars.insert(0, Bar("kernel", "starts, runs", _life(first.started, first.up, kexec)))
        self._show_timeline(kexec, second, ready - luod.started)

    # What happens

    async def _start_luod(self) -> tuple[Process, float]:
        """Start luod, and say what it says of itself. Returns when it was ready, too."""
        luod = await self._stage.start_luod()
        ready = time.monotonic()
        status, sessions = await self._stage.ask_luod()
        has = f"generation {status.generation}, {len(sessions)} sessions"
        self._screen.line("luod", f"ready in {duration(ready - luod.started)}, {luod}: {has}", at=ready)
        return luod, ready

    async def _preserve(self, role: str) -> None:
        """A client's first incarnation: what it measures now is what must come back."""
        client = await self._start_client(role)
        connected = await client.report(Event.CONNECTED)
        prepared = await client.report(Event.PREPARED)
        preserved = await client.report(Event.PRESERVED)
        self._ledger.preserve(role, preserved.files)
        count, amount = _fds(len(preserved.files)), size(sum(file.size for file in preserved.files))
        if role == "vm":
            text = f"luod lent it a session; it preserved {count} there itself: {amount}"
        else:
            text = f"luod preserved {count} for it in {duration(preserved.at - prepared.at)}: {amount}"
        self._screen.line(role, text, at=preserved.at)
        if role == "archive":
            what = "Python's library as a tar" if self._file is None else f"the content of {self._file.name}"
            self._screen.note(f"(a memfd with {what})")
        parts = [
            (Doing.STARTING, client.started, connected.at),
            (Doing.WORK, connected.at, prepared.at),
            (Doing.LUOD, prepared.at, preserved.at),
        ]
        self._bars.append(Bar(role, f"preserves {count}", parts))

    async def _kill_luod(self, luod: Process, status: StatusReply, before: list[Session]) -> tuple[float, float]:
        """luod dies, and the next one holds what it held. Returns when it was killed, and when it answered again."""
        await luod.kill()
        killed = time.monotonic()
        given = _fds((status.fd_store or {}).get("entries", 0))
        self._screen.line("luod", f"killed with SIGKILL; it had given luod supervise {given} to keep", at=killed)
        self._screen.note("(so few, for a session's files are in the queue of one socket)")
        status, after = await self._stage.ask_luod()
        back = time.monotonic()
        self._screen.line("luod", f"the next one, {luod}, answers {duration(back - killed)} later", at=back)
        if changed := {session.name for session in (*before, *after) if session not in before or session not in after}:
            raise Failed("luod", f"it doesn't hold the same as before: {', '.join(sorted(changed))}")
        same = f"{len(after)} sessions, {_fds(status.files)} checked: names, tokens, sizes are the same"
        self._screen.line("luod", same, GOOD)
        self._bars.append(Bar("luod", "killed, all back", [(Doing.DARK, killed, back)]))
        return killed, back

    async def _crash(self) -> None:
        """A client dies while luod lives, and its next incarnation has its files again."""
        await self._clients[VICTIM].kill()
        killed = time.monotonic()
        count = _fds(len(self._ledger.of(VICTIM)))
        self._screen.line(VICTIM, f"killed with SIGKILL, but luod has duplicates of its {count}", at=killed)
        files, parts = await self._return(VICTIM, after_kexec=False)
        _, started, _ = parts[0]
        self._bars.append(Bar(VICTIM, f"killed, {_fds(len(files))} back", [(Doing.DARK, killed, started), *parts]))

    async def _kexec(self, before: Boot) -> tuple[float, Boot]:
        """From one kernel to the next: when it began, and the next one's start."""
        text, explanation = await self._stage.make_ready_for_kexec()
        self._screen.line("kernel", text)
        self._screen.note(explanation)
        kexec = time.monotonic()
        self._screen.line("kernel", "kexec", "bold", at=kexec)
        after = await self._stage.kexec()
        if after.id == before.id:
            raise Failed("kernel", "it is the same as before the kexec")
        self._screen.line("all", f"luod, {', '.join(CLIENTS)}: {self._stage.end_of_all}, nobody is left", at=after.up)
        self._screen.line("kernel", f"{after.text} {duration(after.up - kexec)} later", at=after.up)
        self._screen.line("kernel", f"was given {await self._stage.what_came_over()}")
        return kexec, after

    async def _return_after_kexec(self, role: str, kexec: float) -> None:
        """A client's next incarnation in the next kernel, to the end of its session."""
        files, parts = await self._return(role, after_kexec=True)
        finished = await self._clients[role].report(Event.FINISHED)
        self._screen.line(role, "FINISH: its session is over, its memory is its own again", at=finished.at)
        (_, started, connected), (_, _, retrieved), (_, _, measured) = parts
        self._blackouts[role] = retrieved - kexec, connected - started
        self._bars.append(Bar(role, f"{_fds(len(files))} back, FINISH", [*parts, (Doing.LUOD, measured, finished.at)]))

    async def _return(self, role: str, *, after_kexec: bool) -> tuple[list[Measured], list[Part]]:
        """A client's next incarnation takes back what it gave away, and this is held against what it was."""
        client = await self._start_client(role)
        connected = await client.report(Event.CONNECTED)
        retrieved = await client.report(Event.RETRIEVED)
        did = "lent it its session to retrieve from" if role == "vm" else "handed it its files"
        self._screen.line(role, f"is back; luod {did}, in {duration(retrieved.at - connected.at)}", at=retrieved.at)
        measured = await client.report(Event.MEASURED)
        problems = self._ledger.check(role, measured, after_kexec=after_kexec)
        for problem in problems:
            self._blame(role, problem)
        if not problems:
            same = f"{_fds(len(measured.files))} checked: SHA-256, size, position, seals are the same"
            self._screen.line(role, same, GOOD, at=measured.at)
        return measured.files, [
            (Doing.STARTING, client.started, connected.at),
            (Doing.LUOD, connected.at, retrieved.at),
            (Doing.WORK, retrieved.at, measured.at),
        ]

    async def _end(self, luod: Process) -> None:
        """Everybody goes, in order."""
        _, sessions = await self._stage.ask_luod()
        self._screen.line("luod", f"holds {len(sessions)} sessions")
        for process in self._clients.values():
            await process.leave()
        await luod.leave()

    # Who is asked

    async def _start_client(self, role: str) -> Process:
        arguments = ["--file", str(self._file)] if role == "archive" and self._file is not None else []
        self._clients[role] = client = await self._stage.start_client(role, *arguments)
        return client

    async def _all(self, act: Callable[[str], Awaitable[None]]) -> None:
        """Let all clients do this at once. One that fails doesn't stop the others."""

        async def attempt(role: str) -> None:
            try:
                await act(role)
            except Failed as failure:
                self._blame(failure.who, str(failure))

        async with trio.open_nursery() as nursery:
            for role in CLIENTS:
                nursery.start_soon(attempt, role)

    # What is shown

    def _show_timeline(self, kexec: float, kernel: Boot, start_of_luod: float) -> None:
        if self._blackouts:
            end = kexec + max(seconds for seconds, _ in self._blackouts.values())
            self._bars.append(Bar("all", "blackout", [(Doing.DARK, kexec, end)]))
        self._screen.heading("Timeline")
        self._screen.timeline(self._bars, kexec)
        if self._blackouts:
            self._screen.say("\nBlackout, from the kexec until a client has its descriptors again:")
            if kernel.started >= kexec:
                self._screen.say(f"  kernel   {duration(kernel.up - kexec)} to start, a part of each of these:")
        for role, (seconds, start) in sorted(self._blackouts.items()):
            starting = duration(start_of_luod + start)
            self._screen.say(f"  {role:<8} {duration(seconds)}, of it {starting} for Python to start luod and {role}")

    def _blame(self, who: str, text: str) -> None:
        self._at_fault.add(who)
        self._screen.line(who, text, BAD)


def _life(started: float, ready: float, end: float) -> list[Part]:
    return [(Doing.STARTING, started, ready), (Doing.UP, ready, end)]


def _fds(count: int) -> str:
    return f"{count} fd" if count == 1 else f"{count} fds"
