"""luod, under `luod supervise`, as processes of their own."""

import signal
import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def luod_running(device, directory):
    """Run luod on a kernel's device for the `with` block. Yields the path of its socket."""
    directory.mkdir(exist_ok=True)
    socket = str(directory / "io.luod")
    command = [sys.executable, "-m", "luod", "supervise", "--device", device, "--socket", socket]
    command += ["--runtime-directory", str(directory)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = []
            while not (said and said[-1].startswith("luod: listening on ")):
                said.append(process.stderr.readline())
                assert said[-1], f"luod didn't start: {said}"
            yield socket
        finally:
            process.send_signal(signal.SIGQUIT)
            process.stderr.read()
