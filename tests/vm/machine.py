"""A virtual machine, and the processes in it, as the host sees them."""

import base64
import io
import json
import os
import queue
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from vm.guest.call import RESULT
from vm.rootfs import AGENT, CHECKOUT

PATIENCE = 180
"""Seconds without what is waited for, after which a machine is lost: emulated, on a busy host, all is slow."""

KERNELS = "/opt/luod/kernels"
MEASURED = os.environ.get("LUOD_VM_COVERAGE") == "1"
CMDLINE = "console=ttyS0 root=/dev/vda rw liveupdate=on panic=-1 quiet"


class VmLost(Exception):
    """The machine is gone, or silent: a test can't say anything about luod then."""


class GuestError(AssertionError):
    """Something in the guest failed; the message has what it said."""


@dataclass(frozen=True)
class Boot:
    """A kernel that the machine has started. `number` counts the live updates up to it; 0 has nothing of before."""

    number: int
    id: str
    release: str
    cmdline: str


class Running:
    """A process in the guest. `lines` grows while it runs; `status` stays None where its kernel ended first."""

    def __init__(self, machine, number, argv):
        self._machine = machine
        self._number = number
        self.argv = argv
        self.lines = {"stdout": [], "stderr": []}
        self.status = None
        self.over = False

    @property
    def stdout(self):
        return "\n".join(self.lines["stdout"])

    @property
    def stderr(self):
        return "\n".join(self.lines["stderr"])

    def until(self, text, on="stdout"):
        """Wait for a line that begins with this text; returns it."""

        def line():
            return next((line for line in self.lines[on] if line.startswith(text)), None)

        self._machine.wait(lambda: line() is not None or self.over, f"{self} to say {text!r}")
        if line() is None:
            raise GuestError(f"{self} ended, status {self.status}, and never said {text!r}\n{self.said()}")
        return line()

    def ended(self):
        """Wait for its end, by itself or with its kernel; returns itself."""
        self._machine.wait(lambda: self.over, f"{self} to end")
        return self

    def succeeded(self):
        """Wait for its end, which is exit status 0; returns itself."""
        if self.ended().status != 0:
            raise GuestError(f"{self}: exit status {self.status}\n{self.said()}")
        return self

    def result(self):
        """What the function returned that this process was started to call."""
        last = self.succeeded().lines["stdout"][-1]
        return json.loads(last.removeprefix(RESULT))

    def signal(self, which=signal.SIGTERM):
        self._machine.send(signal=int(which), of=self._number)

    def said(self):
        return "\n".join([*self.lines["stdout"][-40:], *self.lines["stderr"][-40:]])

    def __str__(self):
        return " ".join(self.argv)[:200]


class Machine:
    """A machine that boots `image`, a kernel's, which starts `init`. A `with` block around it ends it.

    `directory` gets what it said: `console.log`, and `guest.log` with every line of every process in it.
    """

    def __init__(self, image, disks, directory, *, init=AGENT, memory="2G", cmdline="", restarts=False):
        self._directory = directory
        self._image = image
        self._disks = disks
        self._memory = memory
        self._cmdline = " ".join([CMDLINE, f"init={init}", *["luod.coverage"] * MEASURED, cmdline]).strip()
        self._restarts = restarts
        self._news = queue.SimpleQueue()
        self._running = {}
        self._began = time.monotonic()
        self._stack = ExitStack()
        self.boots = []

    def __enter__(self):
        try:
            self._start()
            self.wait(lambda: self.boots, "the first boot")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, failed, *exception):
        try:
            if MEASURED and not failed:
                self._fetch_coverage()
        finally:
            self._stack.close()

    @property
    def boot(self):
        return self.boots[-1]

    def start(self, *argv, env=None):
        """Start a process in the guest."""
        number = len(self._running)
        running = self._running[number] = Running(self, number, [str(word) for word in argv])
        self.send(id=number, argv=running.argv, env=env or {})
        return running

    def run(self, *argv, env=None):
        """Run a process in the guest to its good end; returns it."""
        return self.start(*argv, env=env).succeeded()

    def begin(self, function, **arguments):
        """Start a function, of a module that the guest has too, in a process of its own."""
        name = (function.__module__, function.__qualname__)
        return self.start("python3", "-m", "vm.guest.call", *name, json.dumps(arguments))

    def call(self, function, **arguments):
        """Call a function in the guest; what it returns."""
        return self.begin(function, **arguments).result()

    def load(self, kernel="bzImage", cmdline=None):
        """Load a kernel's image, as another process than luod would."""
        cmdline = self.boot.cmdline if cmdline is None else cmdline
        self.run("kexec", "--kexec-file-syscall", "--load", f"{KERNELS}/{kernel}", f"--append={cmdline}")

    def kexec(self, kernel="bzImage", cmdline=None):
        """Load a kernel and go into it at once, without a word to anybody; waits for it and returns its `Boot`."""
        self.load(kernel, cmdline)
        return self.next_boot(self.start("kexec", "--exec"))

    def next_boot(self, cause):
        """Wait for the kernel that a process in the guest has caused, or for the end of that process."""
        boots = len(self.boots)
        self.wait(lambda: len(self.boots) > boots or cause.over, "the next kernel")
        if len(self.boots) == boots:
            raise GuestError(f"{cause} ended, status {cause.status}, and there is no next kernel\n{cause.said()}")
        return self.boot

    def send(self, **what):
        try:
            self._channel.sendall(json.dumps(what).encode() + b"\n")
        except OSError as error:
            raise self._lost(f"can't be told anything ({error})") from None

    def wait(self, is_so, what):
        """Take in what the guest says until `is_so()`."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            try:
                news = self._news.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._lost(f"said nothing of {what} for {PATIENCE} s") from None
            if news is None:
                raise self._lost(f"ended, waiting for {what}; exit status of QEMU {self._qemu.wait()}")
            self._take_in(news)

    def _take_in(self, news):
        match news:
            case {"boot": boot}:
                for running in self._running.values():
                    running.over = True
                self.boots.append(Boot(**boot))
                self._log(f"boot {boot}")
            case {"of": number, "line": line, "on": stream}:
                self._running[number].lines[stream].append(line)
                self._log(f"{self._running[number].argv[0]}: {line[:2000]}")
            case {"of": number, "status": status}:
                self._running[number].status = status
                self._running[number].over = True

    def _fetch_coverage(self):
        """Put what was measured in the guest, once every luod there has ended, beside what is measured here."""
        ended = "while pgrep -f 'python3 -m luod( |$)'; do sleep 0.1; done"
        self.run("sh", "-c", f"pkill -f 'python3 -m luod( |$)'; {ended}; tar -C /var/coverage -cf /tmp/coverage.tar .")
        data = base64.b64decode(self.run("base64", "/tmp/coverage.tar").stdout)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(CHECKOUT, filter="data")

    def _log(self, line):
        self._guest_log.write(f"{time.monotonic() - self._began:8.2f} {line}\n")

    def _lost(self, why):
        with open(self._directory / "console.log", errors="replace") as console:
            tail = "".join(console.readlines()[-25:])
        return VmLost(f"the virtual machine {why}\nthe end of its console, {console.name}:\n{tail}")

    def _start(self):
        self._directory.mkdir(parents=True, exist_ok=True)
        self._guest_log = self._stack.enter_context((self._directory / "guest.log").open("w", buffering=1))
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="luod-vm-")))
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(scratch / "channel"))
        listener.listen()
        command = [
            "qemu-system-x86_64",
            *("-machine", "pc", "-cpu", "max", "-accel", os.environ.get("LUOD_VM_ACCEL", "tcg,thread=multi")),
            *("-m", self._memory, "-smp", "2", "-nodefaults", "-nographic"),
            *("-chardev", f"file,id=console,path={self._directory / 'console.log'}", "-serial", "chardev:console"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=channel,path={scratch / 'channel'}"),
            *("-device", "virtserialport,chardev=channel,name=luod"),
            *("-kernel", str(self._image), "-append", self._cmdline),
        ]
        for disk in self._disks:
            command += ["-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
        if not self._restarts:
            command.append("-no-reboot")
        with open(self._directory / "qemu.log", "w") as log:
            self._qemu = self._stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )
        self._stack.callback(self._qemu.kill)
        listener.settimeout(PATIENCE)
        try:
            self._channel = self._stack.enter_context(listener.accept()[0])
        except TimeoutError:
            raise VmLost(f"QEMU doesn't start: {(self._directory / 'qemu.log').read_text()}") from None
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        self._stack.callback(reader.join)
        self._stack.callback(self._qemu.kill)

    def _read(self):
        """Pass on what the guest says. A kexec cuts its last line off wherever it was."""
        with suppress(ConnectionResetError), self._channel.makefile("rb") as lines:  # QEMU was killed, and left unread
            for line in lines:
                for part in (line, line[line.find(b'{"boot"') :]):
                    try:
                        self._news.put(json.loads(part))
                        break
                    except ValueError:
                        continue
        self._news.put(None)
