"""How long luoctl takes, as a ratio to Python itself (`python -c pass`), which takes as long as the machine lets it.

All are run in turn, so whatever else the machine does slows down each of them alike.

    python bench/startup.py [ROUNDS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from luod.client import connect
from luod.sim.process import simulator
from running import luod_running

LUOCTL = str(Path(sys.executable).with_name("luoctl"))
SESSIONS = 10

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import click'": [sys.executable, "-c", "import click"],
    "luoctl --help": [LUOCTL, "--help"],
    "luoctl --version": [LUOCTL, "--version"],
    "luoctl lst (a slip)": [LUOCTL, "lst"],
    "luoctl list --help": [LUOCTL, "list", "--help"],
    "luoctl list": [LUOCTL, "list"],
    "luoctl list --json": [LUOCTL, "list", "--json"],
    "luoctl show session-0": [LUOCTL, "show", "session-0"],
    "luoctl status": [LUOCTL, "status"],
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with (
        tempfile.TemporaryDirectory() as directory,
        simulator(Path(directory) / "sim") as control,
        luod_running(control.path, Path(directory)) as socket,
    ):
        with connect(socket) as luod:
            for number in range(SESSIONS):
                luod.create(f"session-{number}")
        times = measured(rounds, os.environ | {"LUOD_SOCKET": socket})
    bare = times["python -c pass"]
    print(f"{'':26}{'median':>10}   ms{'ratio':>10}{'of the fastest':>18}")
    for what, taken in times.items():
        ratio, fastest = statistics.median(taken) / statistics.median(bare), min(taken) / min(bare)
        print(f"{what:26}{1e3 * statistics.median(taken):10.1f}{ratio:15.1f}{fastest:18.1f}")


def measured(rounds: int, environment: dict[str, str]) -> dict[str, list[float]]:
    """How long each command took in each round, in seconds."""
    times: dict[str, list[float]] = {what: [] for what in COMMANDS}
    for _ in range(rounds):
        for what, command in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            times[what].append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    main()
