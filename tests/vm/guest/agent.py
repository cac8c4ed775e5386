"""PID 1 of a virtual machine, or a service: runs what the host asks for, and says what comes of it, on a virtio port.

A line of JSON each way. From the host: {"id": 1, "argv": […], "env": {…}} starts a process, {"signal": 15, "of": 1}
signals it. To the host: {"boot": {…}} once, {"of": 1, "line": "…", "on": "stdout"}, and {"of": 1, "status": 0} after
the last line.

Which boot this is stands in a session of its own, as in the kernel's own tests: a boot that finds it has come by a
live update, and any other is number 0.
"""

import json
import os
import resource
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from luod.fds import OwnedFd
from luod.kernel.api import KernelError
from luod.kernel.device import LuoKernel
from luod.kernel.shared import SharedKernel

PORT = "luod"
STATE = "vm-state"
DESCRIPTORS = 1 << 19


class Agent:
    def __init__(self, port):
        self._port = port
        self._writing = threading.Lock()
        self._running = {}

    def say(self, **what):
        line = json.dumps(what).encode() + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self._port, line) :]

    def obey(self):
        """Do what the host asks for, until there is no host."""
        with open(self._port, "rb", closefd=False) as lines:
            for line in lines:
                match json.loads(line):
                    case {"id": number, "argv": argv, "env": env}:
                        threading.Thread(target=self._run, args=(number, argv, env), daemon=True).start()
                    case {"signal": which, "of": number} if process := self._running.get(number):
                        process.send_signal(which)

    def _run(self, number, argv, env):
        try:
            process = subprocess.Popen(
                argv,
                env=os.environ | env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                errors="replace",
            )
        except OSError as error:
            self.say(of=number, line=f"{argv[0]}: {error}", on="stderr")
            self.say(of=number, status=127)
            return
        self._running[number] = process
        streams = [
            threading.Thread(target=self._relay, args=(number, name, stream), daemon=True)
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        ]
        for stream in streams:
            stream.start()
        status = process.wait()
        for stream in streams:  # a process that it left behind may keep them open
            stream.join(timeout=30)
        del self._running[number]
        self.say(of=number, status=status)

    def _relay(self, number, name, stream):
        for line in stream:
            self.say(of=number, line=line.rstrip("\n"), on=name)


def which_boot():
    """The number of this boot: 0, and one more after each live update; and the session that tells the next one.

    Without a session, None in its place, there is no next one to tell.
    """
    number = 0
    try:
        with SharedKernel(LuoKernel()).device() as device:
            with suppress(KernelError), device.retrieve_session(STATE) as came, came.retrieve_fd(0) as file:
                number = int(os.pread(file.fileno(), 20, 0)) + 1
            session = device.create_session(STATE)
    except KernelError:
        return number, None
    with OwnedFd(os.memfd_create(STATE, os.MFD_CLOEXEC)) as file:
        os.write(file.fileno(), b"%d" % number)
        session.preserve_fd(file.fileno(), 0)
    return number, session


def port():
    """The virtio port that the host listens at."""
    for entry in Path("/sys/class/virtio-ports").iterdir():
        if (entry / "name").read_text().strip() == PORT:
            return os.open(f"/dev/{entry.name}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(f"no virtio port has the name {PORT}")


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    agent = Agent(port())
    number, _session = which_boot()  # held until the end of this kernel
    agent.say(
        boot={
            "number": number,
            "id": LuoKernel().boot_id(),
            "release": os.uname().release,
            "cmdline": Path("/proc/cmdline").read_text().strip(),
        }
    )
    agent.obey()


if __name__ == "__main__":
    main()
