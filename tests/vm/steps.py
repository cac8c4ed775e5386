"""What a test does with a guest, in words."""

from vm.guest import clients

LUOD = ["python3", "-m", "luod"]
SAID = ("luod: listening on ", "luod: this boot can't give anything back: ", "luod: letting go of ")
"""What luod says when it starts and is stopped; all else would be a warning."""


def luod(vm):
    """Start luod in the guest. It says where it listens, and nothing else: there was nothing to warn of."""
    running = vm.start(*LUOD)
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


def luod_never_complained(vm):
    """Of every luod that there was in a machine: none failed, and none warned of anything."""
    for running in vm.processes:
        if running.argv == LUOD:
            assert running.status in (None, 0), running.stderr
            assert [line for line in running.lines["stderr"] if not line.startswith(SAID)] == []


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


def by_owner(table, others=None):
    """What each user has, by uid: root has `table`."""
    return {"0": table} | (others or {})


def report(when, told):
    """Print how long things took in the guest; pytest shows it with -rP."""
    print(when, "the live update:", ", ".join(f"{work} {took:.2f} s" for work, took in told["seconds"].items()))
