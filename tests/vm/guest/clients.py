"""What luod's clients in the guest do. The host calls each function, and each runs in a process of its own.

What they say of files is a table: session, token, SHA-256. Tokens are strings in it, as JSON has them.
"""

import ctypes
import errno
import hashlib
import os
import random
import signal
import socket
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress

from luod.client import LuodError, OwnedFd, ToPreserve, connect
from luod.client.failures import DEFAULT_SOCKET
from luod.errors import SessionLost
from luod.lifecycle import Mode
from luod.sockets import FDS_MAX
from luod.varlink.messages import Call
from vm.guest.traffic import LOST

PAGE = 4096
MEBIBYTE = 1 << 20
DELEGATED = 3
"""How many files there are in a delegated session: luod doesn't know."""

RESTART, KEXEC = 0x01234567, 0x45584543
"""What reboot() can be told to do (include/uapi/linux/reboot.h)."""


# Memory


@contextmanager
def memory(*chunks):
    """A memory file with this content."""
    with OwnedFd(os.memfd_create("memory", os.MFD_CLOEXEC)) as fd:
        for chunk in chunks:
            os.write(fd.fileno(), chunk)
        yield fd


def mebibytes(count):
    """So many mebibytes, no page of them like another: host and guest know them without telling each other."""
    noise = random.Random(count).randbytes(MEBIBYTE)
    for number in range(count):
        yield noise[number:] + noise[:number]


def sha256(fd):
    """The digest of all that is in a file."""
    digest = hashlib.sha256()
    for start in range(0, os.fstat(fd.fileno()).st_size, MEBIBYTE):
        digest.update(os.pread(fd.fileno(), MEBIBYTE, start))
    return digest.hexdigest()


class Stopwatch:
    """Says how long each kind of work took, in the guest's own time."""

    def __init__(self):
        self.seconds = defaultdict(float)

    @contextmanager
    def __call__(self, work):
        began = time.monotonic()
        yield
        self.seconds[work] += time.monotonic() - began


# Owners


def preserve(sessions=1, files=1, name="session"):
    """Make sessions with as many files each, a page of noise in every one."""
    table, timed = {}, Stopwatch()
    with connect() as luod:
        for session in (f"{name}-{number}" for number in range(sessions)):
            noise = [os.urandom(PAGE) for _ in range(files)]
            table[session] = {str(token): hashlib.sha256(page).hexdigest() for token, page in enumerate(noise)}
            with ExitStack() as stack:
                given = [ToPreserve(stack.enter_context(memory(page)), token) for token, page in enumerate(noise)]
                with timed("create"):
                    luod.create(session)
                with timed("preserve"):
                    for start in range(0, files, FDS_MAX):
                        luod.preserve_all(session, given[start : start + FDS_MAX])
    return {"table": table, "seconds": timed.seconds}


def preserve_as(uid, **what):
    """The same, as another user than root."""
    os.setuid(uid)
    return preserve(**what)


def preserve_large(size):
    """Make a session with one file of so many mebibytes."""
    timed = Stopwatch()
    with connect() as luod, ExitStack() as stack:
        with timed("fill"):
            fd = stack.enter_context(memory(*mebibytes(size)))
        luod.create("large")
        with timed("preserve"):
            luod.preserve("large", fd, token=0)
    return {"seconds": timed.seconds}


def preserve_delegated():
    """Make a delegated session, and preserve in it without luod."""
    table, timed = {}, Stopwatch()
    with connect() as luod, luod.create_delegated("delegated")[1] as kernel:
        for token in range(DELEGATED):
            page = os.urandom(PAGE)
            table[str(token)] = hashlib.sha256(page).hexdigest()
            with memory(page) as fd, timed("preserve"):
                kernel.preserve_fd(fd.fileno(), token)
    return {"table": {"delegated": table}, "seconds": timed.seconds}


def look(*, finish=False, rearm=False):
    """Retrieve all that there is, for whoever owns it, and finish it. Says what luod says that it holds, before."""
    owners, timed = {}, Stopwatch()
    with connect() as luod:
        sessions = luod.list(all_owners=True)
        for session in sessions:
            table = owners.setdefault(str(session.uid), {})
            try:
                with timed("retrieve"):
                    files = _retrieve(luod, session)
            except SessionLost:
                table[session.name] = LOST
                continue
            except LuodError as error:
                table[session.name] = repr(error)
                continue
            with timed("hash"):
                table[session.name] = {str(token): sha256(fd) for token, fd in files.items()}
            for fd in files.values():
                assert os.fstat(fd.fileno()).st_uid == session.uid
                fd.close()
        held = _held(luod, sessions)
        if finish or rearm:
            with timed("finish"):
                for session in sessions:
                    luod.finish(session.name, rearm=rearm, owner=session.uid)
    return {"owners": owners, "table": owners.get("0", {}), "held": held, "seconds": timed.seconds}


def wait_for_carry_over():
    """Wait until luod has carried over all that nobody has come for."""
    with connect() as luod:
        while not all(session.carried_over for session in luod.list(all_owners=True)):
            time.sleep(0.1)


def _retrieve(luod, session):
    if session.mode is Mode.CUSTODIAL:
        return luod.retrieve(session.name, owner=session.uid)
    with luod.claim(session.name) as kernel:
        return {token: kernel.retrieve_fd(token) for token in range(DELEGATED)}


def _held(luod, listed):
    """How much luod holds: what Status, the manifest and List say."""
    status, manifest = luod.status(), luod.manifest()["sessions"]
    return {
        "generation": status.generation,
        "sessions": [status.sessions, len(manifest), len(listed)],
        "files": [status.files, *(sum(len(s["files"]) for s in manifest), sum(len(s.files) for s in listed))],
    }


def ask():
    """What luod answers to somebody who looks for his session, whatever there is: status, and each answer's error."""
    with connect() as luod:
        answers = {"status": luod.status().wire()}
        for question, asked in {
            "find": lambda: luod.find("session-0"),
            "list": luod.list,
            "retrieve": lambda: luod.retrieve("session-0"),
            "finish": lambda: luod.finish("session-0"),
            "discard": lambda: luod.discard("session-0"),
            "manifest": lambda: luod.manifest()["generation"],
            "create": lambda: luod.create("session-0").name,
        }.items():
            try:
                answers[question] = asked()
            except LuodError as error:
                answers[question] = [type(error).__name__, str(error)]
        return answers


def freeze():
    """Be stopped half-way: with a call that is half sent, and with answers that nobody reads."""
    half, deaf = (socket.socket(socket.AF_UNIX) for _ in range(2))
    for sock in (half, deaf):
        sock.connect(DEFAULT_SOCKET)
    half.send(Call("io.luod.Custody.Create", {"name": "never"}).encode()[:-1])
    deaf.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            deaf.send(Call("io.luod.Update.Manifest", {}).encode())
    print("frozen", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


# The kernel


def reboot(how):
    """Call reboot() as it is, and tell why it came back."""
    libc = ctypes.CDLL(None, use_errno=True)
    print("going", flush=True)
    libc.reboot(how)
    return errno.errorcode[ctypes.get_errno()]
