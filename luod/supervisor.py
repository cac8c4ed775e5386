"""`luod supervise`: the fd store for machines without systemd. It says to luod what systemd says.

sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3). What luod holds is lost if this process ends, so it is small, it
imports all that it needs at its start (an upgrade may replace the files under it), it never waits for anybody, and
nothing ends it but whoever says that all may be let go of.
"""

import array
import contextlib
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NoReturn

from luod.fds import FIRST_HANDED, FdBundle, OwnedFd, hand_over, listen_environment

ENTRIES_MAX: Final = 8192
"""How many descriptors are kept at most, where RLIMIT_NOFILE is high enough."""

WATCHDOG: Final = 30.0
"""How long luod may be silent, in seconds, where nobody says otherwise."""

PAUSES: Final = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
"""How long to wait before each start after a death, in seconds; from the first on again once a luod did well."""

WELL: Final = 10.0
"""A luod did well if it was ready, and lived for so many seconds."""

PATIENCE: Final = 90.0
"""How long luod may take to end before it is killed, in seconds; it can ask for more (EXTEND_TIMEOUT_USEC)."""

LETTING_GO: Final = 15.0
"""The same, where everything is let go of."""

ABORTING: Final = 10.0
"""The same, where it was silent."""

SECOND_THOUGHT: Final = 1.0
"""How long what another Ctrl-C would do has been on the screen before it does it, in seconds."""

_FDS_MAX: Final = 253
_OWN_DESCRIPTORS: Final = 64
_NAME_MAX: Final = 255
_NAMES_MAX: Final = 128 * 1024 - len("LISTEN_FDNAMES=") - 1
"""MAX_ARG_STRLEN: with longer ones no luod could be started any more."""

_TEXT_MAX: Final = 4096
_QUEUED_MAX: Final = 65536
"""More messages than a queue has room for (net.unix.max_dgram_qlen)."""

_UCRED: Final = struct.Struct("=iII")
_SENDER_BYTES: Final = socket.CMSG_SPACE(_UCRED.size)
_CONTROL_BYTES: Final = _SENDER_BYTES + socket.CMSG_SPACE(_FDS_MAX * array.array("i").itemsize)
_NEVER: Final = float("inf")
_LATE: Final = 1.0
_BREATH: Final = 0.1

_HEARD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD)
_MEANINGLESS: Final = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR),
    *(signal.SIGPIPE, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGTTOU, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)),
)

USAGE: Final = f"""\
usage: luod supervise [--watchdog SECONDS] [--] [ARGUMENTS ...]

Run `luod ARGUMENTS`, start it again whatever it ends with, and keep for it what must outlive it: for machines without
systemd.

  --watchdog SECONDS  how long luod may be silent; 0: as long as it likes (default: {WATCHDOG:g})

SIGHUP starts luod anew. SIGTERM and Ctrl-C stop it; what it held is kept. SIGQUIT, or Ctrl-C once more, lets go of it.
"""


class _Wish(Enum):
    """What is to be: luod runs, or what it held is kept without it, or all is let go of."""

    RUN = 1
    HOLD = 2
    END = 3


def say(text: str) -> None:
    """On stderr, unless nobody reads there: this process doesn't wait for a reader."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poll.poll(0):
            os.write(2, f"luod supervise: {text}\n".encode(errors="replace"))


class Kept:
    """The descriptors that are kept, each under a name, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._entries: list[tuple[str, OwnedFd]] = []
        self._letters = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self._entries]

    def add(self, name: str, fds: FdBundle) -> None:
        """Take what there is room for. The rest stays in `fds`."""
        room = min(self.most - len(self), (_NAMES_MAX - self._letters) // (len(name) + 1))
        taken = fds.take_all()
        for fd in taken[room:]:
            fds.add(fd)
        self._entries += [(name, fd) for fd in taken[:room]]
        self._letters += (len(name) + 1) * len(taken[:room])

    def remove(self, name: str) -> None:
        """Close all of this name."""
        going = [entry for entry in self._entries if entry[0] == name]
        self._entries = [entry for entry in self._entries if entry[0] != name]
        self._letters -= (len(name) + 1) * len(going)
        FdBundle(fd for _, fd in going).close()

    def hand_on(self) -> tuple[list[str], list[int]]:
        """Give all of it to the caller."""
        entries, self._entries = self._entries, []
        return [name for name, _ in entries], [fd.hand_on() for _, fd in entries]

    def close(self) -> None:
        entries, self._entries = self._entries, []
        FdBundle(fd for _, fd in entries).close()


class _Mail:
    """The socket at which luod says what it has to say, and nobody else is heard."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._sock.bind("")
        self.address = "@" + self._sock.getsockname()[1:].decode()
        self._refused = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def hand_on(self) -> int:
        """Give the descriptor to the caller."""
        return self._sock.detach()

    def messages_of(self, pid: int) -> Iterator[tuple[dict[str, str], FdBundle]]:
        """What this process sent, up to now: its words, and the descriptors beside them. What nobody takes is closed.

        A stranger's descriptors never arrive here: to close them may take as long as the stranger likes.
        """
        for _ in range(_QUEUED_MAX):
            try:
                sender = self._next_sender()
            except BlockingIOError:
                return
            if sender != pid:
                self._refuse(sender)
                continue
            text, control, flags, _ = self._sock.recvmsg(_TEXT_MAX, _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
            with FdBundle.received(control) as fds:
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    say("a message was too long, or not all of its descriptors arrived: ignored")
                elif b"\0" in text:
                    say("a message has a NUL in it: ignored")
                else:
                    yield _words(text), fds

    def _next_sender(self) -> int:
        _, control, _, _ = self._sock.recvmsg(1, _SENDER_BYTES, socket.MSG_PEEK)
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, _, _ = _UCRED.unpack(data)
                return int(pid)
        return 0

    def _refuse(self, sender: int) -> None:
        self._sock.recv(1)  # without room for descriptors: the kernel drops them
        self._refused += 1
        if self._refused & (self._refused - 1) == 0:  # ever more rarely: nobody is to fill the log
            say(f"{self._refused} messages of strangers refused; the last is of process {sender}")


def _words(text: bytes) -> dict[str, str]:
    """The assignments of a message; of two to the same variable, the first."""
    lines = text.decode(errors="replace").split("\n")
    return {key: value for key, is_one, value in (line.partition("=") for line in reversed(lines)) if is_one}


def _is_name(name: str) -> bool:
    """Whether systemd would take it: fdname_is_valid() in src/basic/fd-util.c."""
    return len(name) <= _NAME_MAX and name.isascii() and all(" " <= letter <= "~" for letter in name.replace(":", "\0"))


class _Signals:
    """The signals that say what to do. Others that would end this process do nothing, while there is one of these."""

    def __init__(self) -> None:
        self._arrivals, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a shell's background jobs get no Ctrl-C
        heard = [number for number in _HEARD if not (number == signal.SIGINT and ignored)]
        self._before = {number: signal.signal(number, _do_nothing) for number in heard}
        self._before |= {number: signal.signal(number, signal.SIG_IGN) for number in _MEANINGLESS}
        self.mask_before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)

    def fileno(self) -> int:
        return self._arrivals

    def arrived(self) -> bytes:
        """The numbers of those that came, in order."""
        try:
            return os.read(self._arrivals, _TEXT_MAX)
        except BlockingIOError:
            return b""

    def as_before(self) -> None:
        """Leave them all to whoever had them before."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask_before)

    def close(self) -> None:
        self.as_before()
        os.close(self._arrivals)
        os.close(self._bell)


def _do_nothing(_number: int, _frame: object) -> None:
    """SIG_IGN wouldn't wake anybody."""


class _Child:
    """One life of luod."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.started = self.heard = time.monotonic()
        self.is_ready = False
        self.is_ending = False
        self.kill_at = _NEVER

    def end(self, number: signal.Signals, patience: float) -> None:
        """Make it end by a signal, and by SIGKILL if it takes longer than this."""
        os.kill(self.pid, number)
        self.is_ending = True
        self.kill_at = min(self.kill_at, time.monotonic() + patience)

    def has_ended(self) -> bool:
        """Whether it has. It is still a zombie then, so its number is nobody else's."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Supervisor:
    """Keeps luod running, and for it what must outlive it. One for a process, which has one thread and no children."""

    def __init__(
        self,
        run: Callable[[dict[str, str]], NoReturn],
        *,
        watchdog: float = 0.0,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        """`run` is luod: what a forked process does with this environment, otherwise as if it had been started afresh.
        `watchdog` is how long it may be silent, in seconds; 0, for ever.

        Raises OSError, and ValueError where the limit of open files leaves no room for an entry.
        """
        _open_standard_descriptors()
        self.kept = Kept(_room_for_entries())
        self._run = run
        self._watchdog = watchdog
        self._pauses = pauses
        self._mail = _Mail()
        self._wish = _Wish.RUN
        self._child: _Child | None = None
        self._start_at = 0.0
        self._deaths = 0
        self._was_ready = False
        self._is_interrupted = False
        self._lets_go_from = _NEVER
        self._status = 0

    def serve(self) -> int:
        """Until all may be let go of; the exit status."""
        self._signals = _Signals()
        poll = select.poll()
        poll.register(self._mail, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        while self._child or self._wish is not _Wish.END:
            try:
                poll.poll(self._milliseconds_left())
                self._go_on()
            except Exception as error:
                # Whatever this is, it must not end the process, which keeps what luod held.
                say(f"going on after {error!r}")
                time.sleep(_BREATH)
        if self.kept:
            say(f"letting go of {len(self.kept)} descriptors")
        self.kept.close()
        self._mail.close()
        self._signals.close()
        return self._status

    def _go_on(self) -> None:
        """Signals come first: at a shutdown luod has got one, too, and may have ended of it already."""
        for number in self._signals.arrived():
            self._obey(number)
        if os.getpid() == 1:
            self._bury_orphans()
        if self._child:
            has_ended = self._child.has_ended()  # before the last look at what it said
            self._hear(self._child)
            if has_ended:
                self._bury(self._child)
        self._keep_time()

    # What luod says

    def _hear(self, child: _Child) -> None:
        for words, fds in self._mail.messages_of(child.pid):
            self._take_in(child, words, fds)

    def _take_in(self, child: _Child, words: Mapping[str, str], fds: FdBundle) -> None:
        if "BARRIER" in words:
            return  # that its descriptor is closed now says that all before it is done
        name = words.get("FDNAME")
        if words.get("FDSTOREREMOVE") == "1":
            if name is not None and _is_name(name):
                self.kept.remove(name)
        elif words.get("FDSTORE") == "1":
            self._keep(name if name is not None and _is_name(name) else "stored", fds)
        if words.get("READY") == "1":
            child.is_ready = self._was_ready = True
            child.heard = time.monotonic()
        if words.get("STOPPING") == "1" and not child.is_ending and self._wish is _Wish.RUN:
            child.is_ending = True
            child.kill_at = time.monotonic() + PATIENCE
        if more := words.get("EXTEND_TIMEOUT_USEC"):
            self._give_more_time(child, more)
        match words.get("WATCHDOG"):
            case "1":
                child.heard = time.monotonic()
            case "trigger":
                self._abort(child, "luod asked for it")

    def _keep(self, name: str, fds: FdBundle) -> None:
        self.kept.add(name, fds)
        if fds:
            say(f"no room for {len(fds)} descriptors named {name}: {len(self.kept)} are kept")

    def _give_more_time(self, child: _Child, microseconds: str) -> None:
        if child.kill_at < _NEVER and self._wish is not _Wish.END and microseconds.isdecimal():
            child.kill_at = max(child.kill_at, time.monotonic() + min(int(microseconds), 10**12) / 1e6)

    # What everybody else says

    def _obey(self, number: int) -> None:
        """Do what a signal says, unless the end has begun."""
        if self._wish is _Wish.END:
            return
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            is_second = self._child is None and time.monotonic() >= self._lets_go_from
            self._lets_go_from = _NEVER
        match number:
            case signal.SIGHUP:
                self._wish = _Wish.RUN
                self._deaths = 0
                self._start_at = 0.0
                self._is_interrupted = False
                self._stop_child(PATIENCE)
            case signal.SIGTERM:  # the machine goes down: luod may take all the time that there is
                self._wish = _Wish.HOLD
                self._is_interrupted = False
                self._stop_child(_NEVER)
            case signal.SIGINT if not is_second:
                self._wish = _Wish.HOLD
                self._is_interrupted = True
                self._stop_child(PATIENCE)
            case signal.SIGINT | signal.SIGQUIT:
                self._wish = _Wish.END
                self._stop_child(LETTING_GO)

    def _stop_child(self, patience: float) -> None:
        if self._child:
            self._child.end(signal.SIGTERM, patience)
        elif self._wish is _Wish.HOLD:
            self._rest()

    def _rest(self) -> None:
        """There is no luod, and none is wanted: keep what it held, if it did."""
        if not self.kept:
            self._wish = _Wish.END
            return
        last = "Ctrl-C or SIGQUIT" if self._is_interrupted else "SIGQUIT"
        say(f"keeping {len(self.kept)} descriptors without luod: SIGHUP starts it again, {last} lets go of them")
        if self._is_interrupted:
            self._lets_go_from = time.monotonic() + SECOND_THOUGHT

    # What time says

    def _milliseconds_left(self) -> float | None:
        if self._child:
            deadline = min(self._child.kill_at, self._silent_at(self._child))
        else:
            deadline = self._start_at if self._wish is _Wish.RUN else _NEVER
        return None if deadline == _NEVER else min(max(0.0, deadline - time.monotonic()) * 1000 + 1, 1e9)

    def _silent_at(self, child: _Child) -> float:
        """When it has been silent for too long."""
        return child.heard + self._watchdog if self._watchdog and child.is_ready and not child.is_ending else _NEVER

    def _keep_time(self) -> None:
        now, child = time.monotonic(), self._child
        if child is None:
            if self._wish is _Wish.RUN and now >= self._start_at:
                self._start()
        elif now >= child.kill_at:
            say(f"luod (process {child.pid}) takes too long to end: killing it")
            os.kill(child.pid, signal.SIGKILL)
            child.kill_at = _NEVER
        elif now >= self._silent_at(child) + _LATE:
            child.heard = now  # whoever was frozen himself can't tell who was silent
        elif now >= self._silent_at(child):
            self._abort(child, f"not heard of for {self._watchdog:g} seconds")

    def _abort(self, child: _Child, why: str) -> None:
        say(f"aborting luod (process {child.pid}): {why}")
        child.end(signal.SIGABRT, ABORTING)

    # Life and death

    def _start(self) -> None:
        # Until the child has its own signals, one that it gets would be taken for one of this process.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if not pid:
                self._be_luod()
        except OSError as error:
            self._wait_to_start(f"luod can't be started: {error}")
        else:
            self._child = _Child(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _be_luod(self) -> NoReturn:
        try:
            os.setsid()  # a terminal's Ctrl-C is for the supervisor, which decides what luod hears of it
            self._signals.as_before()
            most, address = self.kept.most, self._mail.address
            names, fds = self.kept.hand_on()
            self._mail.hand_on()
            _hand_over(fds)
            self._run(_environment(address, most, names, self._watchdog))
        except OSError as error:
            say(f"luod can't be started: {error}")
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(127)

    def _bury(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._child = None
        code = os.waitstatus_to_exitcode(status)
        how = f"ended with status {code}" if code >= 0 else f"was ended by signal {-code} ({signal.strsignal(-code)})"
        told = f"luod (process {child.pid}) {how}"
        if child.is_ready and time.monotonic() - child.started >= WELL:
            self._deaths = 0
        if self._wish is _Wish.HOLD:
            self._rest()
        elif self._wish is _Wish.RUN and code > 0 and not self._was_ready and not self.kept:
            # Most likely for its arguments or configuration, and nothing is lost.
            say(f"{told} before it ever was ready")
            self._wish, self._status = _Wish.END, code
        elif self._wish is _Wish.RUN:
            self._wait_to_start(f"{told}; {len(self.kept)} descriptors are kept")

    def _wait_to_start(self, why: str) -> None:
        pause = self._pauses[min(self._deaths, len(self._pauses) - 1)]
        self._deaths += 1
        self._start_at = time.monotonic() + pause
        say(f"{why}; starting it again" + (f" in {pause:g} seconds" if pause else ""))

    def _bury_orphans(self) -> None:
        """The first process of a container, or of an initrd, inherits them."""
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if self._child and ended.si_pid == self._child.pid:
                    return
                os.waitpid(ended.si_pid, 0)


def _open_standard_descriptors() -> None:
    """Where one of them is closed, what luod gives to keep would take its number, and be written to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < FIRST_HANDED:
        os.set_inheritable(fd, True)  # noqa: FBT003 - it has no keyword
    os.close(fd)


def _room_for_entries() -> int:
    """Have room for as many descriptors as this process may; how many entries that makes. Raises ValueError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = _OWN_DESCRIPTORS + _FDS_MAX
    if hard < others + 2:
        raise ValueError(f"the limit of {hard} open files (ulimit -n) is too low: {others + 2} at least")
    most = min(ENTRIES_MAX, (hard - others) // 2)  # each is twice there for a moment when luod starts
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * most + others), hard))
    return most


def _environment(address: str, most: int, names: Sequence[str], watchdog: float) -> dict[str, str]:
    """What a service finds in its environment (systemd.exec(5)). It is for this process."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LISTEN_", "WATCHDOG_"))}
    environment |= {"NOTIFY_SOCKET": address, "FDSTORE": str(most)}
    if names:
        environment |= listen_environment(names)
    if watchdog:
        environment |= {"WATCHDOG_PID": str(os.getpid()), "WATCHDOG_USEC": str(int(watchdog * 1_000_000))}
    return environment


def _hand_over(fds: Sequence[int]) -> None:
    """Give these the numbers from 3 on, for whoever is executed, too. Close all others but 0, 1 and 2."""
    hand_over(fds)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(FIRST_HANDED + len(fds), soft)


def luod(arguments: Sequence[str]) -> Callable[[dict[str, str]], NoReturn]:
    """What starts luod with these arguments in place of ours, in the way in which this process was started."""
    own = len(sys.argv) - 1
    command = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - own], *arguments]
    return lambda environment: os.execve(command[0], command, environment)


def main(arguments: Sequence[str]) -> int:
    """Run `luod supervise` with these arguments; the exit status."""
    watchdog, rest = str(WATCHDOG), list(arguments)
    while rest and rest[0].startswith("-"):
        match rest:
            case ["-h" | "--help", *_]:
                print(USAGE, end="")
                return 0
            case ["--watchdog", watchdog, *rest]:
                continue
            case ["--", *rest]:
                pass
        break
    try:
        seconds = float(watchdog)
        if not 0 <= seconds <= 1e6:
            raise ValueError(f"--watchdog: not so many seconds: {watchdog}")
        supervisor = Supervisor(luod(rest), watchdog=seconds)
    except (OSError, ValueError) as error:
        print(f"luod supervise: {error}", file=sys.stderr)
        return 2
    return supervisor.serve()
