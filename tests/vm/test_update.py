"""Live updates by luod itself, on a real kernel: `luoctl load`, `luoctl update`, and every way back."""

import signal
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest

from luod.leave import CAME_BACK, HELD_STILL, LEAVING
from luod.pause import FROZEN
from vm import steps, systemd, updating
from vm.guest import clients, services, takers
from vm.kernels import FOREIGN, WITHOUT_LUO
from vm.machine import KERNELS
from vm.rootfs import SYSTEMD
from vm.steps import luod
from vm.updating import (
    arrive,
    begin,
    counted,
    counter,
    is_told,
    last_steps,
    load,
    luoctl,
    phase,
    refusal,
    says,
    taker,
    timeline,
    update,
)

CARRIES, KEEPS = "unstable", "stable"
"""Suites of Debian whose systemd carries fd stores over, and whose systemd doesn't."""

BLACKOUT = 5.0
"""By how many seconds the host may see it otherwise than the timeline tells it: its lines take their time."""

READY = ["asked", "carried", "loaded"]
OLD = {
    (None, "direct"): [*READY, "frozen", "sealed", "leaving"],
    (CARRIES, "direct"): [*READY, "freeze", "frozen", "sealed", "leaving"],
    (CARRIES, "systemd"): [*READY, "leaving", "stopped", "kexec"],
    (KEEPS, "systemd"): [*READY, "leaving"],  # it tells nothing of its end, and luod outlives it
}
NEW = ["kernel", "pid1", "begin", "serving", "back"]
"""What the parts of a timeline end with. Between the two is luod's last sign of life, where PID 1's isn't later."""

NO_LIVE_UPDATE = "this kernel was booted without live update (liveupdate=on) or doesn't have it"
TEN = 10


@pytest.fixture
def host(machine):
    """Boots a machine that luod runs on: a service of the systemd of a suite, or under `luod supervise` without one."""

    @contextmanager
    def booted(suite=None):
        if suite is None:
            with machine() as vm:
                luod(vm, "supervise")
                yield vm
            return
        with machine(suite=suite, init=SYSTEMD) as vm:
            systemd.install(vm)
            yield vm
            systemd.luod_never_complained(vm)

    return booted


@pytest.mark.parametrize(("suite", "via"), OLD)
def test_a_live_update_takes_everything_along_and_tells_where_its_time_went(host, suite, via, logs):
    with host(suite) as vm:
        counter(vm)
        storage, guest = taker(vm, "storage", stage="2"), taker(vm, "guest", stage="1")
        print(load(vm), luoctl(vm, "preflight", "--via", via), sep="\n")
        boots, leaving = len(vm.boots), begin(vm, "--via", via)
        since = says(vm, leaving, "paused: " if suite and via == "direct" else "executing")
        assert arrive(vm, boots).number == 1
        assert vm.boot.cmdline.split()[-1].startswith("luod.from=")
        print(leaving.stdout)

        print(luoctl(vm, "status"))
        waiting = vm.start(systemd.LUOCTL, "wait-restored")
        says(vm, waiting, "waiting")
        back = vm.begin(takers.come_back, sessions=["guest", "storage"])
        back.until("back")
        measured = time.monotonic() - since
        assert back.result() == {name: [name] * 2 for name in ("guest", "storage")}
        assert counted(vm) > 0
        print(waiting.succeeded().stdout)
        assert "waiting" not in (guest.stdout + storage.stdout)

        print(luoctl(vm, "timeline"), luoctl(vm, "status"), sep="\n")
        luoctl(vm, "timeline", "--svg", "/run/timeline.svg")
        (logs / "timeline.svg").write_text(vm.run("cat", "/run/timeline.svg").stdout)
        check(timeline(vm), OLD[suite, via], measured)


def check(told, leaving, measured):
    """The timeline of a good update."""
    parts = told["parts"]
    print("parts:", [part["what"] for part in parts])
    assert [part["what"] for part in parts if part["what"] != "last"] == leaving + NEW
    assert all(before["endUSec"] == after["startUSec"] for before, after in pairwise(parts))
    assert all(part["startUSec"] <= part["endUSec"] for part in parts)
    assert sum(part["share"] for part in parts) == pytest.approx(100, abs=0.5)

    clients = {client["who"]: client for client in told["clients"]}
    assert clients.keys() == {"guest", "storage", "counter"}
    assert all({"firstUSec", "finishedUSec"} <= client.keys() for client in clients.values())
    assert {who for who, client in clients.items() if client.get("answer") == "ready"} == {"guest", "storage"}
    assert clients["guest"]["answeredUSec"] <= clients["storage"]["answeredUSec"]

    blackout = clients["storage"]["blackoutUSec"] / 1e6
    print(f"blackout {blackout:.2f} s; the host measured {measured:.2f} s; uncertain {told['uncertainUSec'] / 1e6} s")
    assert abs(blackout - measured) < BLACKOUT + told["uncertainUSec"] / 1e6


def vetoed(vm):
    return "veto", [], lambda updating: None, 1, "refused, a migration is going on"


def late(vm):
    return "none", ["--deadline", "1"], lambda updating: None, 1, "not ready in time"


def interrupted(vm):
    return "none", [], lambda updating: updating.signal(signal.SIGINT), 130, "Ctrl-C"


def aborted(vm):
    return "none", [], lambda updating: luoctl(vm, "abort", "not today"), 1, "not today"


def test_whatever_takes_an_update_off_leaves_all_as_it_was_and_the_next_one_goes(host):
    with host() as vm:
        supervisor = vm.processes[-1]
        guest = taker(vm, "guest", stage="1")
        load(vm)
        for times, way in enumerate((vetoed, late, interrupted, aborted), start=1):
            answer, words, act, status, reason = way(vm)
            other = taker(vm, "storage", answer, stage="2")
            off = begin(vm, "--via", "direct", *words)
            is_told(vm, other, "prepare")
            act(off)
            assert off.ended().status == status, off.said()
            assert reason in off.said()
            assert reason in is_told(vm, guest, "aborted", times)
            assert reason in is_told(vm, other, "aborted")
            all_is_as_before(vm, "guest", files=times + 2)
            end(other)

        other = taker(vm, "storage", "none", stage="2")
        off = begin(vm, "--via", "direct")
        is_told(vm, other, "prepare")
        steps.kill_luod(vm, supervisor)
        assert off.ended().status == 1
        assert "luod ended: the live update is off" in off.stderr
        for each in (guest, other):
            is_told(vm, each, "watching", 2)
        all_is_as_before(vm, "guest", files=7)
        end(other)

        assert update(vm, "--via", "direct").number == 1
        found = vm.call(takers.come_back, sessions=["guest", "storage"])
        assert found == {"guest": ["guest"] * 7, "storage": ["storage"]}
        assert steps.nothing_is_left(vm)


def all_is_as_before(vm, session, files):
    """No live update is going on, and what is held can be changed."""
    assert vm.call(takers.change, session=session) == ["idle", files]


def end(taking):
    taking.signal(signal.SIGKILL)
    taking.ended()


def test_last_steps_that_come_back_or_whose_luod_dies_leave_nothing_paused(host):
    with host(CARRIES) as vm:
        counter(vm)
        guest = taker(vm, "guest")
        load(vm)

        last_steps(vm, "CapabilityBoundingSet=\nCapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_SYS_ADMIN")
        said = refusal(vm, "update", "--via", "direct")
        print(said)
        assert "EPERM" in said
        assert "EPERM" in is_told(vm, guest, "aborted")
        nothing_is_held_still(vm)
        all_is_as_before(vm, "guest", files=3)

        last_steps(vm, "ExecStartPre=/bin/sleep 20")
        off = begin(vm, "--via", "direct")
        says(vm, off, "executing")
        assert updating.freezer(vm, updating.COUNTING) == "frozen"
        updating.kill_luod(vm)
        print(off.ended().said())
        is_told(vm, guest, "watching", 2)
        nothing_is_held_still(vm)
        all_is_as_before(vm, "guest", files=4)
        vm.run("sh", "-c", f"while systemctl is-active --quiet {updating.KEXEC_SERVICE}; do sleep 0.1; done")
        last_steps(vm, "")

        other = taker(vm, "storage", "none")
        off = begin(vm, "--via", "direct")
        is_told(vm, other, "prepare")
        updating.kill_luod(vm)
        assert off.ended().status == 1
        for times, each in ((3, guest), (2, other)):
            is_told(vm, each, "watching", times)
        nothing_is_held_still(vm)
        end(other)

        assert update(vm, "--via", "direct").number == 1
        found = vm.call(takers.come_back, sessions=["guest", "storage"])
        assert found == {"guest": ["guest"] * 5, "storage": ["storage"]}
        assert counted(vm) > 0


def nothing_is_held_still(vm):
    """No unit is paused, and every disk can be written to."""
    assert updating.freezer(vm, updating.COUNTING) == "running"
    vm.run("sh", "-ec", "echo written >/written; sync; rm /written")
    assert not {LEAVING, HELD_STILL, CAME_BACK, FROZEN} & set(vm.run("ls", "/run/luod").stdout.split())


@pytest.mark.long
@pytest.mark.parametrize("suite", [CARRIES, KEEPS])
def test_luod_may_die_while_pid_1_stops_services(host, suite):
    with host(suite) as vm:
        slow = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sleep 5\n"
        vm.call(services.write, path="/run/systemd/system/slow.service", text=slow)
        vm.run("systemctl", "start", "slow.service")
        given = vm.call(clients.preserve, files=3)["table"]
        load(vm)
        boots = len(vm.boots)
        begin(vm, "--via", "systemd")
        vm.run("sh", "-c", "until [ $(systemctl is-system-running) = stopping ]; do sleep 0.1; done")
        vm.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", systemd.SERVICE)
        assert arrive(vm, boots).number == 1
        steps.comes_back(vm, given, finish=True)


def test_what_would_lose_everything_is_refused_and_what_is_forced_is_lost_as_announced(machine, logs):
    with machine(restarts=True) as vm:
        line = vm.boot.cmdline
        luod(vm, "supervise")
        vm.call(clients.preserve, files=1)

        old = ["kexec", "--kexec-syscall", "--load", f"{KERNELS}/bzImage", f"--append={line}"]
        vm.run(*old)
        refused(vm, "image", "others have loaded the next kernel", "luoctl load KERNEL")
        load(vm, "bzImage", "--cmdline", line.replace("liveupdate=on", ""))
        refused(vm, "command-line", "lacks liveupdate=on", "luoctl load KERNEL --cmdline")
        load(vm, WITHOUT_LUO)
        refused(vm, "abi", "has no Live Update Orchestrator", "luoctl load KERNEL")
        load(vm, FOREIGN)
        refused(vm, "abi", "it would panic as it starts", "luoctl load KERNEL")

        load(vm)
        vm.run(*old)
        assert update(vm, "--via", "direct").number == 1, "luod loads its own again right before it goes"
        assert luoctl(vm, "list").count("session-0") == 1

        load(vm, "bzImage", "--cmdline", line.replace("liveupdate=on", ""))
        is_lost(vm, forced(vm))
        steps.luod_without_anything(vm, NO_LIVE_UPDATE)

        vm.kexec(cmdline=line)
        luod(vm, "supervise")
        vm.call(clients.preserve, files=1)
        load(vm, WITHOUT_LUO)
        is_lost(vm, forced(vm))

        vm.kexec(cmdline=line)
        luod(vm, "supervise")
        vm.call(clients.preserve, files=1)
        load(vm, FOREIGN)
        is_lost(vm, forced(vm))
        assert "Kernel panic" in (logs / "console.log").read_text(errors="replace")
        luod(vm, "supervise")
        assert steps.nothing_is_left(vm)


def refused(vm, check, reason, remedy):
    """An update isn't begun: for this check, which says why, what to do, and what would be lost."""
    said = refusal(vm, "update", "--via", "direct")
    print(said)
    words = " ".join(said.split())
    assert check in words
    assert reason in words
    assert remedy in words
    assert "session-0 of uid 0" in words
    assert phase(vm) in ("idle", "restoring")


def forced(vm):
    """Go all the same; what luoctl announces."""
    boots, leaving = len(vm.boots), begin(vm, "--via", "direct", "--force", "--yes")
    vm.wait(lambda: len(vm.boots) > boots or leaving.status is not None, "the next kernel")
    print(leaving.said())
    assert len(vm.boots) > boots
    return leaving.stdout


def is_lost(vm, announced):
    assert "session-0 of uid 0" in announced
    assert vm.boot.number == 0
    assert "luod.from=" not in vm.boot.cmdline


@pytest.mark.long
def test_ten_in_a_row_and_the_timeline_of_each_is_kept(host):
    with host() as vm:
        for name in ("rearmed", "carried"):
            end(taker(vm, name))
        for generation in range(1, TEN + 1):
            rearm = ["rearmed"] if generation > 1 else []
            vm.next_boot(vm.begin(takers.go, kernel=f"{KERNELS}/bzImage", rearm=rearm))
            assert vm.boot.number == generation
            assert vm.boot.cmdline.count("luod.from=") == 1
            luod(vm, "supervise")
        given = {"carried": ["carried"], "rearmed": ["rearmed"]}
        assert vm.call(takers.come_back, sessions=["carried", "rearmed"]) == given
        assert steps.nothing_is_left(vm)
        for generation in range(1, TEN + 1):
            told = timeline(vm, generation)
            assert (told["generation"], told["via"]) == (generation, "direct")
            assert [part["what"] for part in told["parts"]] == [*OLD[None, "direct"][1:], "last", *NEW]
            dark = told["blackout"]["endUSec"] - told["blackout"]["startUSec"]
            shares = {part["title"]: round(part["share"]) for part in told["parts"] if part["share"] >= 1}
            print(f"{generation}: blackout {dark / 1e6:.2f} s, {shares}")
