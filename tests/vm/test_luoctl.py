"""luoctl by hand, on a real kernel: what it preserves it gives back in the next one."""

import json

from vm.steps import luod

LUOCTL = "/opt/luod/bin/luoctl"


def luoctl(vm, *words):
    """What luoctl prints."""
    return vm.run(LUOCTL, *words).stdout


def refused(vm, *words):
    """Why luoctl fails, and its exit status."""
    ran = vm.start(LUOCTL, *words).ended()
    return ran.status, ran.stderr


def test_what_luoctl_preserves_it_gives_back_in_the_next_kernel(vm):
    assert refused(vm, "list")[0] == 3
    luod(vm)
    luoctl(vm, "create", "notes", "--label", "why=test")
    vm.run("sh", "-ec", f"seq 100000 >/tmp/numbers; {LUOCTL} preserve notes /tmp/numbers --token 5")
    vm.run("sh", "-ec", f"echo hello | {LUOCTL} preserve notes --name greeting")
    assert refused(vm, "finish", "notes")[0] == 1
    luoctl(vm, "create", "vm", "--delegated")
    vm.kexec()

    luod(vm)
    assert luoctl(vm, "retrieve", "notes", "6") == "hello"
    luoctl(vm, "retrieve", "notes", "5", "--output", "/tmp/numbers")
    assert vm.run("sh", "-ec", "seq 100000 | cmp - /tmp/numbers && wc -l </tmp/numbers").stdout == "100000"
    handed = luoctl(vm, "retrieve", "notes", "--", "sh", "-c", "echo $LISTEN_FDNAMES; tail -n 1 <&3; cat <&4")
    assert handed.splitlines() == ["numbers:greeting", "100000", "hello"]
    link = luoctl(vm, "claim", "vm", "--", "readlink", "/proc/self/fd/3")
    assert link.startswith("anon_inode:[luo_session]")
    luoctl(vm, "finish", "notes", "--rearm")
    luoctl(vm, "finish", "vm")
    [left] = json.loads(luoctl(vm, "list", "--json"))
    assert (left["name"], left["direction"], left["labels"]) == ("notes", "outgoing", {"why": "test"})
    luoctl(vm, "unpreserve", "notes", "6")
    luoctl(vm, "discard", "notes", "--yes")
    assert luoctl(vm, "list") == "no sessions of root"
