"""The flight recorder on a real kernel: it goes through kexecs, and tells where their time went."""

import json

from luod.timeline import duration, timeline
from vm.guest import flight

UPDATES = 3


def test_each_of_several_live_updates_is_known_to_the_last_millisecond(vm):
    for update in range(UPDATES + 1):
        pilot = vm.begin(flight.fly)
        pilot.until("leaving")
        told = json.loads(pilot.stdout.splitlines()[0])
        assert told["generations"] == [*range(1, update + 1)]
        if update:
            check(told, update)
        if update < UPDATES:
            vm.load()
            vm.next_boot(vm.start("kexec", "--exec"))


def check(told, update):
    of = timeline(update, told["events"])
    print(f"live update {update}:", ", ".join(f"{part.title} {duration(part.usec)}" for part in of.parts), *of.notes)
    assert told["generation"] == update
    assert [part.title for part in of.parts][-5:] == [
        "kexec",
        "kernel starts",
        "PID 1 starts luod",
        "luod starts",
        "owners come back",
    ]
    assert (of.blackout.who, of.blackout.since, of.via) == ("pilot", "sealed", "direct")
    assert sum(part.share for part in of.parts) > 99.9
    assert of.corrected_usec is not None, "both kernels' clocks were compared with the RTC"
    assert of.uncertain_usec < 500_000
    kexec = next(part for part in of.parts if part.title == "kexec")
    assert 0 < kexec.usec < 30_000_000
