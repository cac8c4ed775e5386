"""What a test does with a guest, in words."""

import re

from vm.guest import clients

LUOD = ["python3", "-m", "luod"]
SAID = re.compile(
    r"luod: (listening on|this boot can't give anything back:|letting go of|carried session|live update \d+) "
    r"|luod supervise: (luod \(process \d+\) was ended by signal 9|letting go of) "
)
"""What luod and its supervisor say of a start, a stop, a live update and a test's SIGKILL; all else would be a
warning."""

KILL_LUOD = [
    *("sh", "-ec"),
    "luod=$(pgrep -f 'python3 -m luod$'); kill -KILL $luod; while [ -e /proc/$luod ]; do sleep 0.01; done",
]
"""Ends luod alone, and not its supervisor, which is `luod supervise`."""


def luod(vm, *command):
    """Start luod in the guest. It says where it listens, and nothing else: there was nothing to warn of."""
    running = vm.start(*LUOD, *command)
    running.until("luod: ", on="stderr")
    assert running.stderr.startswith("luod: listening on /run/luod/io.luod; "), running.stderr
    return running


def luod_without_anything(vm, reason):
    """Start a luod that can give nothing back in this boot. It says why, and serves all the same."""
    running = vm.start(*LUOD)
    running.until("luod: listening on ", on="stderr")
    why = f"this boot can't give anything back: {reason}"
    assert running.stderr == f"luod: {why}\nluod: listening on /run/luod/io.luod; {why}"
    return running


def kill_luod(vm, supervisor):
    """SIGKILL luod, and wait for the next one, which its supervisor starts."""

    def lives():
        return sum(line.startswith("luod: listening on ") for line in supervisor.lines["stderr"])

    before = lives()
    vm.run(*KILL_LUOD)
    vm.wait(lambda: lives() > before, "the next luod")


def luod_never_complained(vm):
    """Of every luod that there was in a machine: none failed, and none warned of anything."""
    for running in vm.processes:
        if running.argv[: len(LUOD)] == LUOD:
            assert running.status in (None, 0), running.stderr
            assert [line for line in running.lines["stderr"] if not SAID.match(line)] == []


def comes_back(vm, table, *, others=None, **ending):
    """Have clients retrieve all that there is, after a live update: it is this, and all of luod's answers agree.

    `table` is root's; `others` has those of other users, by uid.
    """
    found = vm.call(clients.look, **ending)
    report("after", found)
    owners = by_owner(table, others)
    assert found["owners"] == owners
    assert set(found["held"]["sessions"]) == {sum(map(len, owners.values()))}
    return found


def nothing_is_left(vm):
    return vm.call(clients.look)["held"]["sessions"] == [0, 0, 0]


def by_owner(table, others=None):
    """What each user has, by uid: root has `table`."""
    return {"0": table} | (others or {})


def report(when, told):
    """Print how long things took in the guest; pytest shows it with -rP."""
    print(when, "the live update:", ", ".join(f"{work} {took:.2f} s" for work, took in told["seconds"].items()))
