"""A flight recorder without luod around it, on the kernel that runs."""

import json
import time

from luod.flight import Recorder
from luod.kernel.find import kernel_at
from luod.kernel.shared import SharedKernel
from luod.systemd import FdStore


def fly():
    """Print what is known of the last live update; then note another one, and be alive until the end."""
    recorder = Recorder()
    recorder.begin(SharedKernel(kernel_at("/dev/liveupdate")), FdStore())
    recorder.note("serving")
    recorder.note("first", "pilot")
    recorder.look_around()
    print(json.dumps(recorder.report()), flush=True)
    recorder.note("prepare", via="direct")
    recorder.note("ready", "pilot")
    recorder.measure_clock()
    recorder.note("sealed")
    recorder.note("leaving")
    print("leaving", flush=True)
    while True:
        recorder.tick()
        time.sleep(0.001)
