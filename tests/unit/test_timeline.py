"""Where the time of a live update went, from what the flight recorder has of it."""

import pytest

from luod.timeline import duration, timeline
from told import BEGAN, told

S = 1_000_000


def titles(of):
    return [part.title for part in of.parts]


def part(of, title):
    return next(part for part in of.parts if part.title == title)


def an_event(what, seconds, who=None, **details):
    return {"what": what, "usec": BEGAN + round(seconds * S), **({"who": who} if who else {}), **details}


def the_rest(*, at=10.0, clients=()):
    """What there is to tell of a new kernel."""
    firsts = [an_event("first", at + 2 + number, who) for number, who in enumerate(clients)]
    return [an_event("kernel", at), an_event("begin", at + 0.5), an_event("serving", at + 1), *firsts]


def test_the_parts_follow_each_other_and_are_all_there_is():
    of = timeline(3, told(["a", "b"]))
    assert titles(of) == [
        "clients get ready",
        "carry over",
        "sync, load again",
        "last checks",
        "owners are paused",
        "seal",
        "all are told",
        "sync, reboot()",
        "kexec",
        "kernel starts",
        "PID 1 starts luod",
        "luod starts",
        "owners come back",
    ]
    assert all(before.end == after.start for before, after in zip(of.parts, of.parts[1:], strict=False))
    assert (of.parts[0].start, of.generation, of.via, of.aborted) == (BEGAN, 3, "direct", None)


def test_the_network_is_a_part_where_it_goes_over():
    of = timeline(3, [*told(["a"]), an_event("network", 0.35)])
    assert titles(of)[:4] == ["clients get ready", "carry over", "network", "sync, load again"]


@pytest.mark.parametrize("clients", [["vm"], [f"vm{number}" for number in range(12)]], ids=["one", "twelve"])
@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("via", ["direct", "systemd"])
def test_the_shares_are_the_whole_blackout(via, scale, clients):
    of = timeline(3, told(clients, scale=scale, via=via))
    assert sum(part.share for part in of.parts) == pytest.approx(100)
    assert sum(part.dark for part in of.parts) == of.blackout.usec
    assert of.blackout.usec == pytest.approx((0.8 if via == "direct" else 0.99) * scale * S, abs=10)


def test_by_systemd_the_blackout_begins_when_pid_1_stops_services():
    of = timeline(3, told(["vm"], via="systemd"))
    assert (of.blackout.since, of.blackout.start) == ("leaving", BEGAN + 400_000)
    assert titles(of)[2:7] == ["sync, load again", "last checks", "services stop", "systemd-shutdown", "kexec"]


def test_where_systemd_does_not_tell_the_last_sign_of_life_ends_what_is_known():
    events = [event for event in told(["vm"], via="systemd") if event["what"] not in ("stopping", "stopped", "kexec")]
    of = timeline(3, events)
    assert titles(of)[3:6] == ["last checks", "services stop", "kexec"]
    assert of.left == part(of, "kexec").start


def test_a_luod_that_lives_longer_than_systemd_says_has_seen_the_end():
    events = [*told(["vm"], via="systemd"), an_event("last", 0.68)]
    assert titles(timeline(3, events))[4:8] == ["services stop", "systemd-shutdown", "reboot()", "kexec"]


def test_directly_it_begins_when_the_first_owner_is_paused():
    of = timeline(3, told(["a", "b", "c"]))
    assert (of.blackout.since, of.blackout.start) == ("freeze", BEGAN + 400_000)
    assert part(of, "owners are paused").dark == 20_000


def test_without_anybody_to_pause_it_begins_when_everything_is_sealed():
    events = [event for event in told(["vm"]) if event["what"] not in ("freeze", "frozen")]
    of = timeline(3, events)
    assert (of.blackout.since, of.blackout.start) == ("sealed", BEGAN + 425_000)


def test_where_all_owners_have_paused_by_themselves_it_begins_when_luod_has_seen_that():
    of = timeline(3, [event for event in told(["vm"]) if event["what"] != "freeze"])
    assert (of.blackout.since, of.blackout.start) == ("frozen", BEGAN + 420_000)
    assert "owners are paused" not in titles(of)


def test_a_kexec_that_nobody_announced_begins_with_the_last_sign_of_life():
    of = timeline(3, [an_event("last", 9.7), *the_rest(clients=["vm"])])
    assert (of.blackout.since, of.blackout.start, of.via) == ("last", BEGAN + 9_700_000, None)
    assert titles(of) == ["kexec", "kernel, PID 1 start", "luod starts", "owners come back"]


def test_an_attempt_that_was_aborted_is_not_part_of_the_kexec_that_nobody_announced():
    attempt = [an_event("prepare", 0, via="direct"), an_event("ready", 1, "vm"), an_event("aborted", 2)]
    of = timeline(3, [*attempt, an_event("last", 9.7), *the_rest(clients=["vm"])])
    assert (of.blackout.since, of.start, of.aborted) == ("last", BEGAN + 9_700_000, None)


def test_of_several_attempts_the_last_one_counts():
    events = told(["vm"])
    of = timeline(3, [an_event("prepare", -9), an_event("ready", -8, "old"), an_event("aborted", -7), *events])
    assert (of.start, [client.who for client in of.clients]) == (BEGAN, ["vm"])


def test_what_systemd_says_of_the_initrd_is_a_part():
    events = [*told(["vm"], ahead=0), an_event("initrd", 0.82), an_event("userspace", 0.9)]
    assert titles(timeline(3, events))[9:12] == ["kernel starts", "initrd", "PID 1 starts luod"]


def test_without_an_initrd_pid_1_is_systemd_from_its_start():
    events = [*told(["vm"], ahead=0), an_event("userspace", 0.9)]
    assert "initrd" not in titles(timeline(3, events))


# Clients


def test_each_client_has_a_blackout_of_its_own_and_the_last_one_is_that_of_all():
    of = timeline(3, told(["a", "b"]))
    assert [(client.who, client.answer) for client in of.clients] == [("a", "ready"), ("b", "ready")]
    assert [client.blackout for client in of.clients] == [750_000, 800_000]
    assert (of.blackout.who, of.blackout.usec) == ("b", 800_000)


def test_where_nobody_has_come_yet_the_blackout_lasts_until_luod_serves():
    of = timeline(3, [event for event in told(["vm"]) if event["what"] not in ("first", "finished")])
    assert (of.blackout.who, of.parts[-1].title, of.blackout.end) == (None, "luod starts", of.parts[-1].end)
    assert [(client.who, client.first, client.blackout) for client in of.clients] == [("vm", None, None)]


def test_who_comes_an_hour_later_does_not_count():
    of = timeline(3, [*told(["vm"], ahead=0), an_event("first", 3600, "lazy"), an_event("finished", 3700, "lazy")])
    assert of.blackout.who == "vm"
    assert [(client.who, client.late) for client in of.clients] == [("vm", False), ("lazy", True)]
    assert of.end < BEGAN + 2 * S
    assert of.notes == ["lazy came 60 min after the kexec, and isn't counted"]


def test_only_the_first_descriptor_counts():
    of = timeline(3, [*told(["vm"], ahead=0), an_event("first", 2, "vm")])
    assert of.blackout.usec == 800_000


def test_who_vetoes_has_a_reason():
    of = timeline(1, [an_event("prepare", 0), an_event("veto", 1, "vm", reason="busy"), an_event("aborted", 2)])
    client = of.clients[0]
    assert (client.who, client.answer, client.answered, client.reason) == ("vm", "veto", BEGAN + S, "busy")


# What wasn't, or isn't yet


def test_one_that_was_aborted_has_parts_and_a_reason():
    events = [an_event("prepare", 0), an_event("ready", 1, "vm"), an_event("aborted", 3, reason="deadline")]
    of = timeline(1, events)
    assert (titles(of), of.aborted) == (["clients get ready", "brought back"], "deadline")
    assert (of.left, of.blackout) == (None, None)


def test_one_that_is_under_way_is_shown_as_far_as_it_is():
    of = timeline(1, [an_event("prepare", 0), an_event("ready", 1, "vm")])
    assert (titles(of), of.aborted, of.left) == (["clients get ready"], None, None)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [an_event("begin", 0), an_event("serving", 1)],
        [an_event("last", 1)],
        [an_event("prepare", 1)],
        [an_event("loaded", 1), an_event("clock", 2)],
        [an_event("loaded", 1), an_event("last", 2)],
    ],
)
def test_what_tells_of_no_live_update_is_none(events):
    assert timeline(0, events) is None


def test_what_found_no_room_is_said():
    of = timeline(3, [*told(["vm"]), an_event("dropped", 5, count=7)])
    assert "there was no room for 7 more events" in of.notes


# Clocks


@pytest.mark.parametrize("ahead", [0, 430_000, -430_000, 990_000, 5_000_000])
def test_the_clocks_of_two_kernels_are_made_one(ahead):
    of = timeline(3, told(["vm"], ahead=ahead))
    assert part(of, "kexec").usec == 100_000
    assert (of.corrected_usec, of.uncertain_usec) == (-ahead, 1000)
    assert bool(of.notes) == bool(ahead)
    assert ("more than it takes to set one" in "".join(of.notes)) == (ahead == 5_000_000)


@pytest.mark.parametrize("ahead", [430_000, -430_000])
def test_without_an_rtc_the_middle_is_uncertain_and_never_backwards(ahead):
    of = timeline(3, told(["vm"], ahead=ahead, rtc=False))
    assert part(of, "kexec").usec == max(0, 100_000 + ahead)
    assert (of.corrected_usec, of.uncertain_usec) == (None, S)
    assert "differ by up to a second" in of.notes[0]


def test_a_simulated_kernel_has_the_clock_of_the_machine_it_is_on():
    events = [event for event in told(["vm"], ahead=0, rtc=False) if event["what"] not in ("kernel", "pid1")]
    of = timeline(3, [*events, an_event("kernel", -9000), an_event("pid1", -8999)])
    assert "kexec to luod" in titles(of)
    assert (of.uncertain_usec, of.notes) == (0, [])


def test_a_process_that_began_a_tick_too_early_began_with_its_kernel():
    events = [an_event("last", 9.7), an_event("begin", 9.695), an_event("serving", 10), an_event("kernel", -5)]
    assert titles(timeline(3, events)) == ["kexec to luod", "luod starts"]


# As JSON


def test_as_json_it_has_all_of_it_with_the_names_of_the_interface():
    wire = timeline(3, told(["vm"])).wire()
    assert wire["blackout"] == {
        "startUSec": BEGAN + 400_000,
        "endUSec": BEGAN + 1_200_000,
        "since": "freeze",
        "who": "vm",
    }
    assert wire["parts"][9] == {
        "what": "pid1",
        "title": "kernel starts",
        "startUSec": BEGAN + 580_000,
        "endUSec": BEGAN + 800_000,
        "blackoutUSec": 220_000,
        "share": 27.5,
    }
    assert wire["clients"][0]["blackoutUSec"] == 800_000
    assert "aborted" not in wire


@pytest.mark.parametrize(
    ("usec", "text"),
    [
        (0, "0.0 ms"),
        (1234, "1.2 ms"),
        (99_949, "99.9 ms"),
        (100_000, "0.10 s"),
        (59_994_000, "59.99 s"),
        (125_000_000, "2 min 5 s"),
        (599_000_000, "9 min 59 s"),
        (3_600_000_000, "60 min"),
        (7_260_000_000, "2 h 1 min"),
    ],
)
def test_durations_are_as_people_read_them(usec, text):
    assert duration(usec) == text
