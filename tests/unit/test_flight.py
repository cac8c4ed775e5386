"""The flight recorder goes with all it knows through kexecs and deaths, or begins anew; luod never fails by it."""

import errno
import itertools
import logging
import os
import struct
import warnings

import pytest

from faults import Faults
from luod.blackbox import BYTES, MAGIC, VERSION
from luod.errors import InvalidParameter
from luod.flight import NAME, Kept, Recorder
from luod.kernel.shared import SharedKernel
from luod.moments import now
from luod.sim.client import SimKernel


class Aboard:
    """A machine whose luod has a flight recorder."""

    def __init__(self, machine, root):
        self.machine = machine
        self.root = root
        self.recorder = None
        self.start()

    def start(self):
        """Start luod anew, in the kernel that there is."""
        self.stop()
        self.machine.boot()
        self.recorder = Recorder(self.root)
        self.begin(self.recorder)

    def begin(self, recorder):
        recovered = self.machine.recovered
        kernel = SharedKernel(self.machine.kernel, patience=0.0)
        recorder.begin(kernel, self.machine.fd_store, recovered.unclear.flight, recovered.manifest.generation)

    def kexec(self, **how):
        """A live update: what isn't in the kernel is gone."""
        if self.machine.manager is None:
            self.machine.control.kexec(**how)
            self.stop()
        else:
            self.machine.next_kernel(**how)
        self.start()

    def stop(self):
        if self.recorder is not None:
            self.recorder.give_up()
        self.machine.stop()

    def is_killed_at_begin_after(self, steps):
        """luod starts in a process of its own, which dies so many steps after READY=1; false where it was done."""
        self.stop()
        self.machine.manager.settle()  # the child finds what is there now
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # no thread of this process has a lock
            child = os.fork()
        if not child:
            status = 1  # whatever else there is, is a failure
            try:
                self.machine.boot()
                self.machine.kernel.plug.pull_after(steps)
                self.begin(Recorder(self.root))
                status = 0
            except Exception:
                pass
            except BaseException:
                status = 9
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 9)
        return code == 9

    def in_kernel(self):
        """The flight recorder's sessions in the kernel: their directions, and how many files each has."""
        sessions = self.machine.control.state().sessions
        return [(session.direction, len(session.files)) for session in sessions if session.name == NAME]

    def whats(self, generation):
        """What is known of a live update, but for the start of the kernel: a simulated one's is the machine's."""
        return [event["what"] for event in self.recorder.events(generation) if event["what"] != "kernel"]

    def is_whole(self):
        """It is in the kernel, and in the fd store where there is one, once, and nothing else is of its."""
        assert self.in_kernel() == [("outgoing", 1)]
        if self.machine.manager is not None:
            assert len(self.machine.manager.names) == 4  # two of the journal
        assert self.machine.recovered.unclear.said() == []
        return True


@pytest.fixture
def root(tmp_path):
    """A machine without /proc or an RTC, so that only what a test notes is noted."""
    return tmp_path


@pytest.fixture(params=["fd store", "nobody"])
def aboard(request, root):
    """Under a service manager with an fd store, and under nobody."""
    machine = request.getfixturevalue("kept_machine" if request.param == "fd store" else "machine")
    aboard = Aboard(machine, root)
    yield aboard
    aboard.stop()


@pytest.fixture
def kept(kept_machine, root):
    aboard = Aboard(kept_machine, root)
    yield aboard
    aboard.stop()


@pytest.fixture
def alone(machine, root):
    aboard = Aboard(machine, root)
    yield aboard
    aboard.stop()


def leave(recorder, name="vm"):
    """What is noted of a live update before the kexec."""
    recorder.note("prepare", update=1)
    recorder.note("ready", name)
    recorder.note("sealed")
    recorder.note("leaving", via="direct")


LEFT = ["prepare", "ready", "sealed", "leaving", "last"]


# Through kexecs


def test_what_was_noted_is_there_in_the_next_kernel(aboard):
    leave(aboard.recorder)
    aboard.recorder.tick()
    before = now()
    aboard.kexec()
    aboard.recorder.note("first", "vm")
    assert aboard.whats(1) == [*LEFT, "first"]
    of = {event["what"]: event for event in aboard.recorder.events()}
    assert of["prepare"]["update"] == 1
    assert before - 60_000_000 < of["last"]["usec"] <= before
    assert aboard.recorder.generations == [1]
    assert aboard.is_whole()


def test_a_kexec_that_nobody_announced_leaves_the_last_sign_of_life(aboard):
    aboard.recorder.tick()
    aboard.kexec()
    assert "last" in aboard.whats(1)
    assert "leaving" not in aboard.whats(1)


def test_ten_live_updates_in_a_row_are_all_kept(aboard):
    for number in range(10):
        leave(aboard.recorder, f"vm{number}")
        for client in range(30):
            aboard.recorder.note("frozen", f"client{client}.service")
        aboard.kexec()
        aboard.recorder.note("first", f"vm{number}")
    assert aboard.recorder.generations == list(range(1, 11))
    for number in range(10):
        events = aboard.recorder.events(number + 1)
        named = {event["what"]: event.get("who") for event in events}
        assert (named["ready"], named["first"]) == (f"vm{number}", f"vm{number}")
        assert len(events) >= 36
    assert aboard.recorder.events() == aboard.recorder.events(10)
    assert aboard.is_whole()


def test_where_nothing_came_over_it_begins_anew(aboard):
    leave(aboard.recorder)
    aboard.kexec(carry=False)
    assert aboard.recorder.generations == []
    assert aboard.is_whole()


def test_a_session_that_the_fd_store_brings_over_is_gone_on_with(kept):
    leave(kept.recorder)
    control = kept.machine.control
    kept.machine.next_kernel()
    with SimKernel(control.path).open() as device, device.retrieve_session(NAME) as session:
        kept.machine.manager.entries.append(("~zzy", session.duplicate().hand_on()))
    kept.start()
    assert kept.whats(1)[:4] == LEFT[:4]
    assert kept.is_whole()


def test_what_was_noted_before_it_began_is_written_then(alone):
    alone.stop()
    alone.machine.boot()
    alone.recorder = Recorder(alone.root)
    leave(alone.recorder)
    alone.recorder.note("serving")
    alone.begin(alone.recorder)
    assert "serving" in alone.whats(0)
    alone.kexec()
    assert alone.whats(1)[:4] == LEFT[:4]


def test_before_it_has_begun_nothing_is_known(root):
    recorder = Recorder(root)
    recorder.tick()
    for _ in range(1000):
        recorder.note("prepare")
    assert recorder.report() == {"generation": 0, "generations": [], "events": []}


# Through deaths


def test_what_was_noted_is_there_after_a_death(kept):
    leave(kept.recorder)
    for _ in range(3):
        kept.start()
        assert kept.whats(1) == LEFT[:4]
        assert kept.is_whole()
    kept.kexec()
    assert kept.whats(1)[:4] == LEFT[:4]


def test_without_an_fd_store_a_death_is_its_end(alone):
    leave(alone.recorder)
    alone.start()
    assert alone.recorder.generations == []
    assert alone.is_whole()
    alone.kexec()
    alone.start()  # what came over was had by a luod that is no more
    assert alone.recorder.generations == []
    assert alone.is_whole()


def test_a_death_in_the_middle_of_the_first_beginning_leaves_nothing_behind(kept):
    for steps in itertools.count():
        kept.kexec(carry=False)
        kept.stop()
        kept.machine.next_kernel(carry=False)
        killed = kept.is_killed_at_begin_after(steps)
        kept.start()
        assert kept.is_whole()
        leave(kept.recorder)
        kept.kexec()
        assert kept.whats(1)[:4] == LEFT[:4]
        if not killed:
            break
    assert steps >= 6


@pytest.mark.parametrize("brought", [True, False], ids=["brought by the fd store", "by name"])
def test_a_death_in_the_middle_of_going_on_in_the_next_kernel_loses_all_or_nothing(kept, brought):
    lost = 0
    for steps in itertools.count():
        kept.kexec(carry=False)
        leave(kept.recorder)
        kept.machine.next_kernel()
        if brought:
            with SimKernel(kept.machine.control.path).open() as device, device.retrieve_session(NAME) as session:
                kept.machine.manager.entries.append(("~zzy", session.duplicate().hand_on()))
        killed = kept.is_killed_at_begin_after(steps)
        kept.start()
        assert kept.is_whole()
        known = kept.whats(1)
        if known[:4] != LEFT[:4]:
            assert known == []
            lost += 1
        kept.start()
        assert kept.whats(1) == known
        assert kept.is_whole()
        if not killed:
            break
    assert steps >= 10
    assert lost <= (0 if brought else 2)  # where RETRIEVE_SESSION had returned, and its descriptor was nowhere else


def test_a_death_in_the_middle_of_going_on_in_the_same_kernel_loses_nothing(kept):
    leave(kept.recorder)
    for steps in itertools.count():
        killed = kept.is_killed_at_begin_after(steps)
        kept.start()
        assert kept.whats(1) == LEFT[:4]
        assert kept.is_whole()
        if not killed:
            break


# What it can't read


def written_by_another(aboard, data):
    """Put into the kernel and the fd store what another luod's flight recorder would have there."""
    aboard.stop()
    aboard.machine.manager.forget(*aboard.machine.manager.names)
    fd = os.memfd_create("other")
    os.write(fd, data)
    with SimKernel(aboard.machine.control.path).open() as device, device.create_session(NAME) as session:
        session.preserve_fd(fd, 0)
        aboard.machine.manager.entries.extend([("~zzy", session.duplicate().hand_on()), ("~zzy", fd)])


UNREADABLE = {
    "a foreign version": MAGIC + struct.pack("=II", VERSION + 1, BYTES // 2) + bytes(BYTES),
    "torn": MAGIC + struct.pack("=II", VERSION, (BYTES - 128) // 16 * 8) + bytes(BYTES - 16),
    "garbage": MAGIC * 9,
}


@pytest.mark.warns("the flight recorder passes over what an earlier one wrote")
@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_what_it_cannot_read_is_passed_over_and_said_once(kept, data, caplog):
    kept.stop()
    kept.machine.next_kernel(carry=False)
    written_by_another(kept, data)
    kept.start()
    assert kept.recorder.generations == []
    assert kept.is_whole()
    leave(kept.recorder)
    kept.start()
    assert kept.whats(1) == LEFT[:4]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


@pytest.mark.warns("the flight recorder passes over what an earlier one wrote")
def test_what_it_cannot_read_of_the_last_kernel_is_passed_over(kept):
    kept.stop()
    kept.machine.next_kernel(carry=False)
    written_by_another(kept, b"garbage")
    kept.kexec()
    assert kept.recorder.generations == []
    assert kept.is_whole()


@pytest.mark.warns("the flight recorder can't have what came over")
def test_memory_that_the_next_kernel_cannot_give_is_passed_over(alone):
    leave(alone.recorder)
    alone.machine.control.kexec()
    alone.stop()
    alone.machine.boot()
    alone.machine.control.fault("RETRIEVE_FD", errno.ENOMEM)
    alone.recorder = Recorder(alone.root)
    alone.begin(alone.recorder)
    assert alone.whats(1) == []
    assert alone.is_whole()


def test_what_leads_to_another_generation_is_another_lines(kept):
    """As after io.luod.Update.StartAfresh."""
    leave(kept.recorder)
    kept.kexec()
    kept.stop()
    kept.machine.boot()
    kept.machine.recovered.manifest.generation = 7
    kept.recorder = Recorder(kept.root)
    kept.begin(kept.recorder)
    assert kept.recorder.generations in ([], [7])
    assert kept.is_whole()


def test_a_session_without_its_memory_is_let_go_of(kept):
    leave(kept.recorder)
    kept.stop()
    _, fd = kept.machine.manager.entries.pop()
    assert os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{NAME}")
    os.close(fd)
    kept.start()
    assert kept.recorder.generations == []
    assert kept.is_whole()


def test_memory_without_its_session_is_read(kept):
    leave(kept.recorder)
    kept.stop()
    _, fd = kept.machine.manager.entries.pop(-2)
    os.close(fd)
    kept.start()
    assert kept.whats(1) == LEFT[:4]
    assert kept.is_whole()


# Failures


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


@pytest.mark.parametrize("where", ["the first kernel", "the next kernel", "the same kernel"])
def test_whatever_fails_luod_has_a_recorder(kept, faults, where, caplog):
    caplog.set_level(logging.CRITICAL, logger="luod")  # what it says is looked at below
    for number, nth in faults.each_call((errno.ENOMEM, errno.EIO, errno.EMFILE)):
        kept.kexec(carry=False)
        leave(kept.recorder)
        kept.stop()
        if where != "the same kernel":
            kept.machine.next_kernel(carry=where == "the next kernel")
        kept.machine.boot()
        kept.recorder = Recorder(kept.root)
        with faults.strike(nth, number):
            kept.begin(kept.recorder)
        kept.recorder.note("first", "vm")
        generation = kept.machine.recovered.manifest.generation
        assert "first" in [event["what"] for event in kept.recorder.events(generation)]
        kept.start()
        assert kept.is_whole()


@pytest.mark.warns("the flight recorder has only the memory of this process: CREATE_SESSION: ENOSPC")
def test_without_room_in_the_kernel_it_notes_in_memory_and_says_so_once(alone):
    alone.stop()
    alone.machine.boot()
    alone.machine.control.fault("CREATE_SESSION", errno.ENOSPC)
    alone.recorder = Recorder(alone.root)
    alone.begin(alone.recorder)
    leave(alone.recorder)
    alone.recorder.tick()
    assert alone.whats(1) == LEFT[:4]
    assert alone.in_kernel() == []


@pytest.mark.warns("the flight recorder has only the memory of this process: CREATE_SESSION: EEXIST")
def test_where_another_luod_has_a_recorder_it_notes_in_memory(alone):
    alone.stop()
    with SimKernel(alone.machine.control.path).open() as device:
        theirs = device.create_session(NAME)
    with theirs:
        alone.start()
        alone.recorder.note("serving")
        assert "serving" in alone.whats(0)


def test_what_is_noted_after_its_end_is_lost_and_harms_nobody(alone):
    alone.recorder.give_up()
    alone.recorder.note("serving")
    alone.recorder.tick()
    alone.recorder.give_up()


def test_what_nobody_began_with_is_closed(kept):
    kept.stop()
    kept.machine.boot()
    flight = kept.machine.recovered.unclear.flight
    assert (len(flight.outgoing), len(flight.incoming), len(flight.memory)) == (1, 0, 1)
    flight.close()
    assert flight == Kept()


# Its answers


def test_it_reports_what_was_asked_for(alone):
    leave(alone.recorder)
    alone.kexec()
    leave(alone.recorder)
    report = alone.recorder.report()
    assert (report["generation"], report["generations"]) == (1, [1, 2])
    assert alone.recorder.report(2)["generation"] == 2
    assert [event["what"] for event in alone.recorder.report(2)["events"]] == LEFT[:4]
    with pytest.raises(InvalidParameter, match="there are 1, 2"):
        alone.recorder.report(3)


def test_in_the_first_kernel_it_reports_the_live_update_that_was_begun(alone):
    assert alone.recorder.report()["generations"] == []
    leave(alone.recorder)
    alone.recorder.note("aborted", reason="vetoed")
    report = alone.recorder.report()
    assert (report["generation"], report["events"][-1]["reason"]) == (1, "vetoed")


def test_details_have_the_names_of_the_interface(alone):
    alone.recorder.note("prepare", deadline_usec=5, via="direct", nothing=None)
    event = alone.recorder.events(1)[0]
    assert event.keys() == {"usec", "what", "deadlineUSec", "via"}


def test_what_is_noted_of_another_time_is_of_that_time(alone):
    alone.recorder.note("serving", at_usec=5)
    assert alone.recorder.events(0)[0] == {"usec": 5, "what": "serving"}


# When things began, and the clock


def test_the_beginnings_of_a_kernel_are_noted_once(kept):
    kept.root.joinpath("proc/1").mkdir(parents=True)
    kept.root.joinpath("proc/self").mkdir()
    hz = os.sysconf("SC_CLK_TCK")
    stat = "{} (a (strange) name) S" + 18 * " 0" + " {} 0 0\n"
    kept.root.joinpath("proc/1/stat").write_text(stat.format(1, 2 * hz))
    kept.root.joinpath("proc/self/stat").write_text(stat.format(9, 5 * hz))
    kept.kexec()
    kept.start()
    events = kept.recorder.events()
    at = {event["what"]: event["usec"] for event in events}
    assert [event["what"] for event in events if event["what"] != "last"] == ["kernel", "pid1", "begin", "begin"]
    assert at["pid1"] - at["kernel"] == pytest.approx(2_000_000, abs=1000)
    assert at["begin"] - at["kernel"] == pytest.approx(5_000_000, abs=100_000)


def test_the_clock_is_measured_in_each_kernel(kept):
    kept.recorder.measure_clock()
    leave(kept.recorder)
    kept.kexec()
    kept.recorder.look_around()
    before, after = (event for event in kept.recorder.events(1) if event["what"] == "clock")
    assert (before["leaving"], after["leaving"]) == (True, False)
    assert {"usec", "what", "leaving", "monotonicUSec"} == before.keys() == after.keys()  # there is no RTC here


@pytest.mark.parametrize(("hours", "is_good"), [(0, True), (0.9, True), (1.1, False)])
def test_before_a_kexec_that_nobody_announced_the_clock_is_good_for_an_hour(kept, hours, is_good):
    ago = round(hours * 3_600_000_000)
    kept.recorder.note("clock", at_usec=now() - ago, leaving=False, offset_usec=7, within_usec=3)
    kept.kexec()
    clocks = [event for event in kept.recorder.events(1) if event["what"] == "clock"]
    assert [(event["leaving"], event["offsetUSec"]) for event in clocks] == [(True, 7)] * is_good
    assert [event["withinUSec"] for event in clocks] == [pytest.approx(3 + ago * 1e-4, abs=2000)] * is_good


def test_what_systemd_knows_is_asked_once_in_a_kernel(kept, monkeypatch):
    (kept.root / "run/systemd/system").mkdir(parents=True)
    script = kept.root / "systemctl"
    script.write_text("#!/bin/sh\necho UserspaceTimestampMonotonic=9\necho PreviousShutdownStartTimestampMonotonic=9\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(kept.root), prepend=":")
    kept.recorder.measure_clock()
    kept.kexec()
    for _ in range(2):
        kept.recorder.look_around()
        kept.start()
    assert [kept.whats(1).count(what) for what in ("userspace", "stopping")] == [1, 1]
