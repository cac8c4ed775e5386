"""What an operator does for a live update by luod itself, and what a test sees of it."""

import json
import time

from luod.systemd import KEXEC_SERVICE
from vm import systemd
from vm.guest import services, takers
from vm.machine import KERNELS
from vm.steps import luod
from vm.systemd import LUOCTL

COUNTER = """[Unit]
Description=An owner that knows nothing of live updates

[Service]
Type=notify
Environment=PYTHONPATH=/opt/luod:/opt/luod/tests
ExecStart=/usr/bin/python3 -m vm.guest.call vm.guest.takers count {}

[Install]
WantedBy=multi-user.target
"""

COUNTING = "counting.service"


def luoctl(vm, *words):
    """What luoctl prints."""
    return vm.run(LUOCTL, *words).stdout


def load(vm, image="bzImage", *how):
    """Give luod the next kernel."""
    return luoctl(vm, "load", f"{KERNELS}/{image}", *(how or ["--reuse-cmdline"]))


def refusal(vm, *words):
    """What luoctl says where it fails: on standard output, and then on standard error."""
    failed = vm.start(LUOCTL, *words).ended()
    assert failed.status == 1, failed.said()
    return f"{failed.stdout}\n{failed.stderr}"


def begin(vm, *words):
    """Start a live update."""
    return vm.start(LUOCTL, "update", *words)


def says(vm, running, text):
    """Wait until luoctl says something; when that was, by the host's clock in seconds.

    A machine that is already gone may have kept it to itself.
    """
    boots = len(vm.boots)

    def said():
        return any(text in line for line in running.lines["stdout"])

    vm.wait(lambda: said() or running.over or len(vm.boots) > boots, f"{running} to say {text!r}")
    assert said() or len(vm.boots) > boots, running.said()
    return time.monotonic()


def arrive(vm, since):
    """Wait for the next kernel after so many boots, and for a luod in it."""
    vm.wait(lambda: len(vm.boots) > since, "the next kernel")
    if has_systemd(vm):
        systemd.up(vm)
    else:
        luod(vm, "supervise")
    return vm.boot


def update(vm, *words):
    """A live update to its good end; the next `Boot`."""
    boots = len(vm.boots)
    vm.next_boot(begin(vm, *words))
    return arrive(vm, boots)


def timeline(vm, generation=None):
    """Where the time of a live update went."""
    told = luoctl(vm, "timeline", "--json", *([] if generation is None else ["--generation", str(generation)]))
    return json.loads(told)["timeline"]


def phase(vm):
    return json.loads(luoctl(vm, "--json", "status"))["phase"]


def has_systemd(vm):
    return "init=/usr/lib/systemd/systemd" in vm.boot.cmdline.split()


# Owners


def in_unit(vm, name, function, **arguments):
    """Start a function of the guest as a unit of its own, where there are units, so that it can be paused by itself."""
    if not has_systemd(vm):
        return vm.begin(function, **arguments)
    scope = ("systemd-run", "--scope", "--quiet", "--collect", f"--unit={name}")
    call = ("python3", "-m", "vm.guest.call", function.__module__, function.__qualname__, json.dumps(arguments))
    return vm.start(*scope, *call)


def taker(vm, session, answer="ready", **how):
    """Somebody who takes part from now on."""
    taking = in_unit(vm, f"{session}-{len(vm.processes)}", takers.take_part, session=session, answer=answer, **how)
    taking.until("watching")
    return taking


def counter(vm):
    """Somebody who doesn't: a service where there are any, which comes back by itself."""
    if has_systemd(vm):
        vm.call(services.write, path=f"/etc/systemd/system/{COUNTING}", text=COUNTER)
        vm.run("systemctl", "enable", "--now", COUNTING)
    else:
        vm.begin(takers.count).until("counting")


def counted(vm):
    """What the counter found in its memory, after a live update."""
    if has_systemd(vm):
        said = vm.run("journalctl", "--boot", "--output=cat", f"--unit={COUNTING}").stdout
    else:
        counting = vm.begin(takers.count)
        counting.until("counting")
        said = counting.stdout
    return int(next(line for line in said.splitlines() if line.startswith("counts from")).split()[-1])


def is_told(vm, taking, event, times=1):
    """Wait until somebody who takes part has heard of that, so often; what was said with it."""

    def told():
        return [line.partition(" ")[2] for line in taking.lines["stdout"] if line.startswith(event)]

    vm.wait(lambda: len(told()) >= times or taking.over, f"{event} to be told")
    assert len(told()) >= times, taking.said()
    return told()[-1]


# With systemd


def last_steps(vm, settings):
    """Have other settings in the unit that does the last steps; those that it comes with, where there are none."""
    place = f"/run/systemd/system/{KEXEC_SERVICE}.d"
    if settings:
        vm.call(services.write, path=f"{place}/test.conf", text=f"[Service]\n{settings}\n")
    else:
        vm.run("rm", "-r", place)
    vm.run("systemctl", "daemon-reload")


def freezer(vm, unit):
    return vm.run("systemctl", "show", "--property=FreezerState", "--value", unit).stdout


def kill_luod(vm):
    """SIGKILL luod, and wait for the one that systemd starts next."""
    before = systemd.main_pid(vm)
    vm.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", systemd.SERVICE)
    vm.run("sh", "-c", f"while [ -e /proc/{before} ]; do sleep 0.05; done")
    luoctl(vm, "status")
