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
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from vm.guest.call import RESULT
from vm.rootfs import AGENT, CHECKOUT

PATIENCE = 180
"""Seconds that are waited for anything: emulated, on a busy host, all is slow."""

ANSWER = 20
"""Seconds after them in which a machine can still show that it lives."""

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
        self.number = number
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
        *_, last = ["", *self.succeeded().lines["stdout"]]
        if not last.startswith(RESULT):
            raise GuestError(f"{self} returned nothing\n{self.said()}")
        return json.loads(last.removeprefix(RESULT))

    def signal(self, which=signal.SIGTERM):
        self._machine.send(signal=int(which), of=self.number)

    def said(self):
        return "\n".join([*self.lines["stdout"][-40:], *self.lines["stderr"][-40:]])

    def __str__(self):
        return " ".join(self.argv)[:200]


class Machine:
    """A machine that boots `image`, a kernel's, which starts `init`. A `with` block around it ends it.

    `directory` gets what it said: `console.log`, and `guest.log` with every line of every process in it. `processes`
    are all that were started in it. For each of `wires`, a `Wire`, it has a network card.
    """

    def __init__(self, image, disks, directory, *, init=AGENT, memory="2G", cmdline="", restarts=False, wires=()):
        self._directory = directory
        self._image = image
        self._disks = disks
        self._memory = memory
        self._cmdline = " ".join([CMDLINE, f"init={init}", *["luod.coverage"] * MEASURED, cmdline]).strip()
        self._restarts = restarts
        self._wires = wires
        self._news = queue.SimpleQueue()
        self._began = time.monotonic()
        self._stack = ExitStack()
        self.boots = []
        self.processes = []

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
                with suppress(VmLost):  # the test has ended it
                    self._fetch_coverage()
        finally:
            self._stack.close()

    @property
    def boot(self):
        return self.boots[-1]

    def start(self, *argv, env=None):
        """Start a process in the guest."""
        running = Running(self, len(self.processes), [str(word) for word in argv])
        self.processes.append(running)
        self.send(id=running.number, argv=running.argv, env=env or {})
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
        return self.begin_load(kernel, cmdline).succeeded()

    def begin_load(self, kernel="bzImage", cmdline=None):
        """Start to load it."""
        cmdline = self.boot.cmdline if cmdline is None else cmdline
        return self.start("kexec", "--kexec-file-syscall", "--load", f"{KERNELS}/{kernel}", f"--append={cmdline}")

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
            self.hear(deadline, what)

    def hear(self, deadline, what):
        """Take in one thing that the guest says. A guest that says nothing is asked whether it lives."""
        if self._hears(deadline, what):
            return
        asked, deadline = self.start("true"), time.monotonic() + ANSWER
        while not asked.over:
            if not self._hears(deadline, what):
                raise self._lost(f"said nothing of {what} for {PATIENCE} s, and doesn't answer")
        raise GuestError(f"nothing of {what} for {PATIENCE} s, and the machine lives")

    def _hears(self, deadline, what):
        """Whether the guest has said something, until then; it is taken in."""
        try:
            news = self._news.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        if news is None:
            raise self._lost(f"ended, waiting for {what}; exit status of QEMU {self.qemu.wait()}")
        self._take_in(news)
        return True

    def _take_in(self, news):
        match news:
            case {"boot": boot}:
                for running in self.processes:
                    running.over = True
                self.boots.append(Boot(**boot))
                self._log(f"boot {boot}")
            case {"of": number, "line": line, "on": stream}:
                self.processes[number].lines[stream].append(line)
                self._log(f"{self.processes[number].argv[0]}: {line[:2000]}")
            case {"of": number, "status": status}:
                self.processes[number].status = status
                self.processes[number].over = True

    def _fetch_coverage(self):
        """Put what was measured in the guest, once every luod there has ended, beside what is measured here."""
        end = "pkill -QUIT -f 'luod [s]upervise' || pkill -f 'python3 -m luod( |$)'"
        ended = "while pgrep -f 'python3 -m luod( |$)'; do sleep 0.1; done"
        self.run("sh", "-c", f"{end}; {ended}; tar -C /var/coverage -cf /tmp/coverage.tar .")
        data = base64.b64decode(self.run("base64", "/tmp/coverage.tar").stdout)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(CHECKOUT, filter="data")

    def _log(self, line):
        self._guest_log.write(f"{time.monotonic() - self._began:8.2f} {line}\n")

    def _lost(self, why):
        logs = [self._directory / name for name in ("qemu.log", "console.log")]
        ends = ["\n".join(log.read_text(errors="replace").splitlines()[-25:]) for log in logs]
        said = [f"the end of {log}:\n{end}" for log, end in zip(logs, ends, strict=True)]
        return VmLost("\n".join([f"the virtual machine {why}", *said]))

    def _start(self):
        self._directory.mkdir(parents=True, exist_ok=True)
        self._guest_log = self._stack.enter_context((self._directory / "guest.log").open("w", buffering=1))
        console = self._directory / "console.log"
        console.write_text("")  # there, even where QEMU doesn't come to open it
        self._channel, qemus = socket.socketpair()
        self._stack.enter_context(self._channel)
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--"),  # it never outlives us
            "qemu-system-x86_64",
            *("-machine", "pc", "-cpu", "max", "-accel", os.environ.get("LUOD_VM_ACCEL", "tcg,thread=multi")),
            *("-m", self._memory, "-smp", "2", "-nodefaults", "-nographic"),
            *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=channel,fd={qemus.fileno()}"),
            *("-device", "virtserialport,chardev=channel,name=luod"),
            *("-kernel", str(self._image), "-append", self._cmdline),
        ]
        for disk in self._disks:
            command += ["-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
        for number, wire in enumerate(self._wires):
            command += ["-netdev", f"dgram,id=wire{number},local.type=fd,local.str={wire.theirs.fileno()}"]
            command += ["-device", f"virtio-net-pci,netdev=wire{number},mac={wire.card},romfile="]
        if not self._restarts:
            command.append("-no-reboot")
        with qemus, open(self._directory / "qemu.log", "w") as log:
            passed = [qemus.fileno(), *(wire.theirs.fileno() for wire in self._wires)]
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "pass_fds": passed}
            self.qemu = self._stack.enter_context(subprocess.Popen(command, process_group=0, **streams))
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        self._stack.callback(reader.join)
        self._stack.callback(self.qemu.kill)

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
