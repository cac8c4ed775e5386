"""What the service manager and its services say to each other: descriptors kept, sockets handed over, readiness.

sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), systemd.exec(5). `luod supervise` says the same.
"""

import errno
import itertools
import logging
import os
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from luod.errors import KernelFailed, LuodError, QuotaExceeded, answered
from luod.fds import FIRST_HANDED, OwnedFd
from luod.sockets import ancillary

log = logging.getLogger(__name__)

PATIENCE: Final = 30.0
"""How long the service manager may take to listen, in seconds: with thousands of entries it is seen to be that slow."""

SURVIVES: Final = 255
CARRIES: Final = 261
"""From which systemd on a service can outlive the shutdown, and from which on the fd store lives through a kexec."""

SERVICE: Final = "luod.service"
KEXEC_SERVICE: Final = "luod-kexec.service"
"""What luod is under systemd, and what goes into the next kernel for it."""

NETWORK_SERVICE: Final = "luod-network.service"
SNAPSHOT_SERVICE: Final = "luod-network-snapshot.service"
"""What sets the network up again, and what writes it down: at the end of a boot, and whenever it is reloaded."""
NETWORK_SERVICES: Final = (NETWORK_SERVICE, SNAPSHOT_SERVICE)

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_SYSTEMD_RUNS: Final = Path("/run/systemd/system")


class Handed(NamedTuple):
    """A descriptor that was handed to this process, under a name."""

    name: str
    fd: OwnedFd

    @property
    def is_kept(self) -> bool:
        """Whether it comes from our own entries in the fd store."""
        return self.name.startswith("~")


def listen_fds() -> list[Handed]:
    """The descriptors that were handed to this process; close-on-exec from now on.

    The environment is cleared, so they can be taken only once and no child takes them for its own.
    """
    pid, count, names = (os.environ.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    numbers = range(FIRST_HANDED, FIRST_HANDED + int(count))
    for number in numbers:
        os.set_inheritable(number, False)  # noqa: FBT003 - it has no keyword
    known = names.split(":") if names else []
    known += ["unknown"] * (len(numbers) - len(known))
    return [Handed(name, OwnedFd(number)) for name, number in zip(known, numbers, strict=False)]


def notify(*assignments: str) -> bool:
    """Tell the service manager, for instance `READY=1`. False where there is none to tell, or it can't be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    try:
        with _connected(address) as sock:
            sock.send("\n".join(assignments).encode())
    except OSError as error:
        log.warning("the service manager at NOTIFY_SOCKET=%s can't be told %s: %s", address, assignments[0], error)
        return False
    return True


def _connected(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        # Not by settimeout(), which asks before every message whether it can be sent.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", *divmod(int(PATIENCE * 1e6), 10**6)))
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
    except BaseException:
        sock.close()
        raise
    return sock


class FdStore:
    """The service manager's store: copies of our descriptors that outlive this process. Thread-safe.

    What is put in goes by the number that its first descriptor has here, and must be removed before that is closed.
    Names are short, for all of them must find room in one string of 128 KiB when they are handed back (LISTEN_FDNAMES).
    """

    def __init__(self, address: str = "", most: int = 0) -> None:
        """`most` is how many entries there may be: whoever keeps them doesn't say when it is full. With 0 there is no
        store: nothing is kept, and nothing fails.
        """
        self.most = most
        self._names: dict[int, str] = {}
        self._fds: dict[str, tuple[int, ...]] = {}
        self._over: set[str] = set()
        self._count = 0
        self._numbers = itertools.cycle(range(len(_DIGITS) ** 3))
        self._lock = threading.Lock()
        self._manager = _connected(address) if most else None

    @classmethod
    def of_environment(cls) -> "FdStore":
        """The store of whoever started this process: $NOTIFY_SOCKET, with $FDSTORE entries (systemd 254).

        Raises OSError where nobody listens there.
        """
        address, most = os.environ.get("NOTIFY_SOCKET", ""), os.environ.get("FDSTORE", "")
        return cls(address, int(most)) if address and most.isdecimal() else cls()

    def close(self) -> None:
        """Say no more. What is kept is still kept."""
        if self._manager is not None:
            self._manager.close()

    def __len__(self) -> int:
        return self._count

    def brought(self, handed: Handed) -> None:
        """Count in an entry that was there before this process."""
        number = handed.fd.fileno()
        self._names[number] = handed.name
        self._fds[handed.name] = (*self._fds.get(handed.name, ()), number)
        self._count += 1

    def room_for(self, count: int) -> None:
        """Raises QuotaExceeded where there can't be so many entries."""
        if self.most and count > self.most:
            raise QuotaExceeded("fd store entries", self.most)

    def put(self, *fds: int) -> None:
        """Keep these borrowed descriptors, together: once this returns they outlive this process.

        Raises QuotaExceeded, or KernelFailed where the service manager can't be told.
        """
        with self.place(len(fds)) as keep:
            keep(*fds)

    @contextmanager
    def place(self, count: int = 1) -> Iterator[Callable[..., None]]:
        """Have room for so many, and a `put` that does nothing but tell it: for what mustn't be here alone for long.

        Raises QuotaExceeded; the `put`, KernelFailed.
        """
        if self._manager is None:
            yield lambda *fds: None
            return
        with self._lock:
            self.room_for(self._count + count)
            name = next(name for name in map(_name, self._numbers) if name not in self._fds)
            self._fds[name] = ()
            self._count += count
        message = [f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0".encode()]
        kept: tuple[int, ...] = ()

        def keep(*fds: int) -> None:
            nonlocal kept
            self._send("FDSTORE", message, fds)
            kept = fds

        try:
            yield keep
        finally:
            with self._lock:
                self._fds[name] = kept
                self._count -= count - len(kept)
                if kept:
                    self._names[kept[0]] = name
                else:
                    del self._fds[name]

    def remove(self, *fds: int) -> None:
        """Keep these, and what was put with them, no longer; wait until they are closed there.

        So our own close can be the last one, and what that does to a session is done when it returns. Where the service
        manager can't be told, the next `remove` tells it, of nothing else if need be.
        """
        with self._lock:
            names = self._over | {self._names[fd] for fd in fds if fd in self._names}
            self._over.clear()
            for name in names:
                self._unnumber(name)
        if not names:
            return
        try:
            for name in names:
                self._say("FDSTOREREMOVE", f"FDSTOREREMOVE=1\nFDNAME={name}")
            self.barrier()
        except KernelFailed as error:
            log.warning("the service manager may keep what is over, until it is told of more: %s", error)
            with self._lock:
                self._over |= names
            return
        with self._lock:
            self._count -= sum(len(self._fds.pop(name)) for name in names)

    def closing(self, fd: int) -> None:
        """This copy is about to be closed here, and its number may be another's then. It is kept all the same, and goes
        by the number of what was put in with it.
        """
        with self._lock:
            self._names.pop(fd, None)

    def barrier(self) -> None:
        """Wait until the service manager has done all that it was told. Raises KernelFailed."""
        if self._manager is None:
            return
        with answered("BARRIER"):
            done, told = os.pipe2(os.O_CLOEXEC)
        with OwnedFd(done):
            with OwnedFd(told):
                self._say("BARRIER", "BARRIER=1", told)
            poll = select.poll()
            poll.register(done, 0)
            if not poll.poll(PATIENCE * 1000):
                raise KernelFailed("BARRIER", errno.ETIMEDOUT)

    def _say(self, call: str, text: str, *fds: int) -> None:
        self._send(call, [text.encode()], fds)

    def _send(self, call: str, message: list[bytes], fds: tuple[int, ...]) -> None:
        assert self._manager is not None
        try:
            self._manager.sendmsg(message, ancillary(fds), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise KernelFailed(call, errno.ETIMEDOUT) from None
        except OSError as error:
            raise KernelFailed(call, error.errno or 0) from None

    def _unnumber(self, name: str) -> None:
        """Its descriptors are about to be closed here: their numbers will be others'."""
        for fd in self._fds[name]:
            if self._names.get(fd) == name:
                del self._names[fd]


def _name(number: int) -> str:
    """The number in three digits, behind what tells our entries from those of socket units."""
    return "~" + "".join(_DIGITS[number // len(_DIGITS) ** place % len(_DIGITS)] for place in (2, 1, 0))


def watchdog_seconds() -> float | None:
    """How often the service manager wants to hear `WATCHDOG=1` at least, in seconds; None where it doesn't."""
    pid, microseconds = os.environ.get("WATCHDOG_PID"), os.environ.get("WATCHDOG_USEC", "")
    if pid not in (None, str(os.getpid())) or not microseconds.isdecimal():
        return None
    return int(microseconds) / 1_000_000


def systemd_runs() -> bool:
    """Whether PID 1 is systemd (sd_booted(3))."""
    return _SYSTEMD_RUNS.exists()


def is_service() -> bool:
    """Whether systemd has started this process, as a service (systemd.exec(5))."""
    return systemd_runs() and "INVOCATION_ID" in os.environ and "NOTIFY_SOCKET" in os.environ


class CantAsk(LuodError):
    """systemd can't be asked. The text says why."""


class NoAnswer(CantAsk):
    """It was asked, and may do all the same what it was asked for."""


class Said(NamedTuple):
    """What systemctl, or systemd-analyze, said."""

    status: int
    out: str
    err: str


def systemctl(*words: str, patience: float = PATIENCE) -> Said:
    """Ask systemd. It is given so many seconds. Raises CantAsk; that it refuses is an answer."""
    return _ask("systemctl", ["--no-pager", "--no-ask-password"], words, patience)


def systemd_analyze(*words: str, patience: float = PATIENCE) -> Said:
    """Ask systemd what only this program asks. As `systemctl`."""
    return _ask("systemd-analyze", ["--no-pager"], words, patience)


def _ask(program: str, options: Sequence[str], words: Sequence[str], patience: float) -> Said:
    import subprocess

    command = [program, *options, *words]
    try:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=patience
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{program} {words[0]}: no answer for {patience:g} s") from None
    except OSError as error:
        raise CantAsk(f"{program} can't be run: {error.strerror}") from None
    return Said(ran.returncode, ran.stdout, ran.stderr)


def shown(properties: Iterable[str], *units: str, patience: float = PATIENCE) -> list[dict[str, str]]:
    """These properties of each unit, as far as systemd has them; without units, of systemd itself. Raises CantAsk."""
    said = systemctl("show", f"--property={','.join(properties)}", *units, patience=patience)
    if said.status:
        raise CantAsk(f"systemctl show: {said.err.strip()}")
    return [dict(line.partition("=")[::2] for line in unit.splitlines()) for unit in said.out.split("\n\n") if unit]


def machine_is_going_down() -> bool:
    """Whether a SIGTERM is that of a shutdown. Where systemd isn't there to tell, any may be."""
    if not systemd_runs():
        return True
    begun = shutdown_has_begun()
    if begun is None:
        log.warning("systemd can't be asked whether the machine is going down, so it may be")
    return begun is not False


def shutdown_has_begun() -> bool | None:
    """Whether PID 1 stops everything. None where it doesn't say."""
    try:
        said = systemctl("is-system-running")
    except CantAsk:
        return None
    return said.out.strip() == "stopping"


def logs_to_journal() -> bool:
    """Whether stderr is the journal, which understands a `<priority>` before each line."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def unit_of(pid: int) -> str | None:
    """The systemd unit that a process belongs to, or None. For people: by then the number may be another's."""
    try:
        cgroup = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    units = re.findall(r"(?<=/)[A-Za-z0-9:_.\\@-]+\.(?:service|scope)(?=/|$)", cgroup, re.MULTILINE)
    return units[-1] if units else None
