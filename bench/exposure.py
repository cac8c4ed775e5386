"""How long a session that came over is in luod's hands alone, between RETRIEVE_SESSION and the fd store.

A SIGKILL in that time finishes the session. Compared with what it takes at least: one sendmsg() with a descriptor.

    python bench/exposure.py [SESSIONS]
"""

import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from luod.kernel.shared import SharedKernel
from luod.sim.client import Control, SimKernel
from luod.sim.process import simulator
from luod.sockets import ancillary
from manager import Manager, service_manager


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as directory, service_manager(most=3 * count) as manager:
        with simulator(Path(directory) / "sim") as control:
            exposed = exposures(control, manager, count)
        least = sends(count)
    print(f"{'':24}{'median':>10}{'99 %':>10}{'longest':>10}   µs")
    for what, times in (("sendmsg() alone", least), ("until it is kept", exposed)):
        ranked = sorted(times)
        shown = statistics.median(ranked), ranked[len(ranked) * 99 // 100], ranked[-1]
        print(f"{what:24}" + "".join(f"{1e6 * seconds:10.1f}" for seconds in shown))
    print(f"{'ratio of the medians':24}{statistics.median(exposed) / statistics.median(least):10.1f}")


def exposures(control: Control, manager: Manager, count: int) -> list[float]:
    kernel = SharedKernel(SimKernel(control.path))
    store, _ = manager.store()
    names = [f"luod-0-{number}" for number in range(count)]
    with kernel.device() as device:
        made = [device.create_session(name) for name in names]
    control.kexec()
    times = []
    with kernel.device() as device:
        for name in names:
            with store.place() as keep:
                session = device.retrieve_session(name)
                begun = time.perf_counter()
                keep(session.fileno())
                times.append(time.perf_counter() - begun)
            made.append(session)
    for session in made:
        session.give_up()
    store.close()
    return times


def sends(count: int) -> list[float]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    times = []
    with ours, theirs:
        for _ in range(count):
            begun = time.perf_counter()
            ours.sendmsg([b"FDSTORE=1\nFDNAME=~000\nFDPOLL=0"], ancillary([0]))
            times.append(time.perf_counter() - begun)
            _, control, _, _ = theirs.recvmsg(100, 100)
            os.close(int.from_bytes(control[0][2][:4], sys.byteorder))
    return times


if __name__ == "__main__":
    main()
