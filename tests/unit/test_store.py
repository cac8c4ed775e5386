"""At every instant the kernel holds a whole journal; what came over is closed only when its successor is held."""

import errno
import itertools
import json
import os
import resource
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from luod.errors import KernelFailed
from luod.kernel.api import Call, KernelError
from luod.kernel.shared import SharedKernel
from luod.lifecycle import Mode, State
from luod.manifest import (
    DROPPED_BY_KERNEL,
    HEADER,
    VERSION,
    Begin,
    Document,
    FilesDropped,
    FilesIntended,
    Manifest,
    Session,
    SessionIs,
    encode,
    header,
)
from luod.recovery import RestoreImpossible, SecondLuod, recover
from luod.sim.client import SimKernel
from luod.store import MIN_BYTES, SLOTS, ReadableCopy
from luod.systemd import FdStore
from memory import memfd

A, B = SLOTS


def a_session(number, name=None, state=State.OUTGOING, labels=None):
    return Session(
        id=number,
        kernel_name=f"luod-0-{number}",
        uid=1000,
        gid=1000,
        name=name or f"s{number}",
        mode=Mode.CUSTODIAL,
        state=state,
        labels=labels or {},
        created_usec=1,
    )


class Keeper:
    """Who keeps a manifest and its journal in step, as the Custodian does."""

    def __init__(self, control, kernel=None):
        self.kernel = SharedKernel(kernel or SimKernel(control.path), patience=0.0)
        self.recovered = recover(self.kernel, FdStore())
        self.manifest, self.journal = self.recovered.manifest, self.recovered.journal

    def put(self, record):
        self.journal.append(record)
        self.manifest.apply(record)

    def names(self):
        return [session.name for session in self.manifest.sessions.values()]


@contextmanager
def kept(control, kernel=None):
    keeper = Keeper(control, kernel)
    try:
        yield keeper
    finally:
        keeper.journal.give_up()


def journals(control, direction="outgoing"):
    """The journals in the kernel: the number of their files, by slot."""
    return {session.name: len(session.files) for session in control.state().sessions if session.direction == direction}


@contextmanager
def refused(control):
    """recover() refuses, and afterwards all that came over is there as it was."""
    before = journals(control, "incoming")
    with pytest.raises(RestoreImpossible) as caught:
        recover(SharedKernel(SimKernel(control.path), patience=0.0), FdStore())
    assert journals(control, "incoming") == before
    assert journals(control) == {}
    try:
        yield caught.value.reason
    finally:
        caught.value.give_up_all()


def a_journal(epoch, *names, broken=b"", version=VERSION):
    """A journal as it stands in its memfd, with a session for each name."""
    data = header(epoch) + encode(Begin(boot_id="last", generation=epoch, serial=0))
    data += b"".join(encode(SessionIs(session=a_session(number, name))) for number, name in enumerate(names))
    if version != VERSION:
        data = of_version(version, data)
    return (data + broken).ljust(8192, b"\0")


def of_version(version, data):
    fields = list(HEADER.unpack_from(data))
    fields[1] = version
    start = HEADER.pack(*fields)[:-4]
    return start + struct.pack("=I", zlib.crc32(start)) + data[HEADER.size :]


def come_over(control, **slots):
    """Let journals come over: under the names A and B, files with these contents; None is a session without."""
    sessions = []
    for slot, data in slots.items():
        with SimKernel(control.path).open() as device:
            sessions.append(device.create_session({"a": A, "b": B}[slot]))
        if data is not None:
            with memfd(data) as fd:
                sessions[-1].preserve_fd(fd.fileno(), 0)
    control.kexec()
    for session in sessions:
        session.give_up()


# Starting


def test_a_first_start_finds_nothing_and_leaves_a_journal_in_the_kernel(sim):
    with kept(sim) as luod:
        assert (luod.manifest.generation, luod.manifest.sessions, luod.recovered.notes) == (0, {}, [])
        assert luod.manifest.boot_id == sim.state().boot_id
        [session] = sim.state().sessions
        assert (session.name, session.direction) == (A, "outgoing")
        assert [(file.token, file.size) for file in session.files] == [(0, MIN_BYTES)]
    assert sim.state().sessions == []


def test_what_was_recorded_is_there_in_the_next_kernel_and_the_one_after(sim):
    with kept(sim) as luod:
        luod.put(SessionIs(session=a_session(0, "ram")))
        sim.kexec()
    for generation, state in ((1, State.INCOMING), (2, State.LOST), (3, State.LOST)):
        with kept(sim) as luod:
            assert luod.manifest.generation == generation
            assert luod.manifest.boot_id == sim.state().boot_id
            ram = luod.manifest.find(1000, "ram")
            assert (ram.state, ram.lost) == (state, DROPPED_BY_KERNEL if state is State.LOST else None)
            assert luod.recovered.notes == []
            assert journals(sim, "incoming") == {}
            assert len(journals(sim)) == 1
            sim.kexec()


def test_a_kernel_that_carries_nothing_is_a_first_start(sim):
    with kept(sim) as luod:
        luod.put(SessionIs(session=a_session(0)))
        sim.kexec(carry=False)
    with kept(sim) as luod:
        assert (luod.manifest.generation, luod.manifest.sessions) == (0, {})


def test_a_second_luod_is_refused_in_the_same_kernel_whichever_slot_the_first_one_uses(sim):
    with kept(sim) as luod:
        for slot in (A, B, A):
            assert journals(sim) == {slot: 1}
            with pytest.raises(SecondLuod):
                Keeper(sim)
            assert journals(sim) == {slot: 1}
            luod.journal.fall_behind()
            luod.put(SessionIs(session=a_session(luod.manifest.serial)))


def test_a_journal_that_another_process_holds_is_not_taken_for_nothing(sim):
    come_over(sim, a=a_journal(1, "ram"))
    with SimKernel(sim.path).open() as device:
        session = device.retrieve_session(A)
    with refused(sim) as reason:
        assert "another process" in reason
    session.give_up()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.EACCES])
def test_a_device_that_cannot_be_opened_is_not_taken_for_a_first_start(sim, number):
    sim.kexec(open_error=number)
    with refused(sim) as reason:
        assert reason


class BusyAtFirst(SimKernel):
    """A kernel whose device another process closes while it is tried the third time."""

    def __init__(self, path, times):
        super().__init__(path)
        self.other = super().open()
        self.tries = 0
        self.times = times

    def open(self):
        self.tries += 1
        if self.tries == self.times:
            self.other.close()
        return super().open()


def test_a_busy_device_is_waited_for(sim):
    kernel = BusyAtFirst(sim.path, times=3)
    recovered = recover(SharedKernel(kernel, patience=5), FdStore())
    assert kernel.tries == 3
    recovered.journal.give_up()


def test_a_device_that_stays_busy_is_waited_for_only_so_long(sim):
    come_over(sim, a=a_journal(1, "ram"))
    with SimKernel(sim.path).open(), pytest.raises(KernelError, match="another process holds the device"):
        recover(SharedKernel(SimKernel(sim.path), patience=0.0), FdStore())
    with kept(sim) as luod:
        assert luod.names() == ["ram"]


def test_only_one_thread_has_the_device(sim):
    kernel = SharedKernel(SimKernel(sim.path), patience=0.0)  # a second opener would be refused at once
    failures = []

    def use():
        try:
            for _ in range(50):
                with kernel.device() as device:
                    device.create_session("mine").give_up()
        except KernelError as error:
            failures.append(error)

    threads = [Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# Which journal is believed


def test_the_newest_of_two_is_taken(sim):
    for newer, older in ("ab", "ba"):
        come_over(sim, **{newer: a_journal(7, "new"), older: a_journal(6, "old")})
        with kept(sim) as luod:
            assert (luod.names(), luod.journal.epoch, luod.recovered.notes) == (["new"], 8, [])
            assert journals(sim, "incoming") == {}


DAMAGED = {
    "no file": None,
    "an empty file": b"",
    "zeros": bytes(4096),
    "a header cut off": a_journal(7, "new")[:20],
    "a damaged header": b"X" + a_journal(7, "new")[1:],
    "a header alone": header(7) + bytes(4096),
    "a first record that is torn": a_journal(7, "new")[: HEADER.size + 20] + bytes(4096),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_of_two_the_one_that_is_whole_is_taken(sim, what):
    come_over(sim, a=a_journal(6, "old"), b=DAMAGED[what])
    with kept(sim) as luod:
        assert luod.names() == ["old"]
        assert [note for note in luod.recovered.notes if "not whole" in note]
        assert journals(sim, "incoming") == {}


@pytest.mark.parametrize("what", DAMAGED)
def test_where_none_is_whole_nothing_is_touched(sim, what):
    come_over(sim, a=DAMAGED[what])
    with refused(sim) as reason:
        assert reason.startswith("the manifest can't be read: ")
    come_over(sim, a=DAMAGED[what], b=b"junk")
    with refused(sim):
        pass


@pytest.mark.parametrize("slots", [{"a": 7}, {"b": 7}, {"a": 7, "b": 6}, {"b": 7, "a": 6}, {"a": 6, "b": 7}])
def test_a_newer_luods_manifest_is_refused_and_not_touched(sim, slots):
    newer = max(slots, key=slots.get)
    data = {slot: a_journal(epoch, "ram", version=VERSION + (slot == newer)) for slot, epoch in slots.items()}
    come_over(sim, **data)
    with refused(sim) as reason:
        assert "a newer luod wrote it" in reason


def test_a_record_of_a_kind_that_is_not_known_is_refused_and_not_touched(sim):
    payload = b'{"kind":"joined"}'
    whole = struct.pack("=II", len(payload), zlib.crc32(payload)) + payload
    come_over(sim, a=a_journal(7, "ram")[:-4096].rstrip(b"\0") + whole + bytes(100))
    with refused(sim) as reason:
        assert "not one of this version" in reason


def test_a_torn_last_record_is_passed_over_with_a_note(sim):
    come_over(sim, a=a_journal(7, "ram", broken=encode(SessionIs(session=a_session(5, "torn")))[:-3]))
    with kept(sim) as luod:
        assert luod.names() == ["ram"]
        assert [note for note in luod.recovered.notes if "torn record" in note]


# Failures while something can be lost

AT_START = [
    (call, nth, number)
    for call, times in (
        (Call.OPEN, 1),
        (Call.RETRIEVE_SESSION, 2),
        (Call.RETRIEVE_FD, 2),
        (Call.CREATE_SESSION, 1),
        (Call.PRESERVE_FD, 1),
    )
    for nth in range(1, times + 1)
    for number in (errno.ENOMEM, errno.EMFILE, errno.EIO)
]


@pytest.mark.parametrize(("call", "nth", "number"), AT_START)
def test_a_start_that_fails_closes_nothing_that_came_over(sim, call, nth, number):
    come_over(sim, a=a_journal(6, "ram"), b=a_journal(5, "ram"))
    sim.fault(call, number, nth)
    before = journals(sim, "incoming")
    kernel = SharedKernel(SimKernel(sim.path), patience=0.0)
    try:
        recovered = recover(kernel, FdStore())
    except RestoreImpossible as impossible:
        assert journals(sim, "incoming") == before
        assert journals(sim) == {}
        impossible.give_up_all()
    except KernelError:
        assert (call, nth) == (Call.RETRIEVE_SESSION, 1)  # nothing was in our hands yet
        assert journals(sim, "incoming") == before
        assert journals(sim) == {}
        with kept(sim) as luod:
            assert luod.names() == ["ram"]
    else:
        assert call is Call.RETRIEVE_FD  # the other journal was whole
        assert list(recovered.manifest.sessions) == [0]
        recovered.journal.give_up()


@pytest.mark.parametrize("nth", [1, 2])
def test_an_old_journal_that_the_kernel_does_not_finish_is_noted_and_stops_nothing(sim, nth):
    come_over(sim, a=a_journal(6, "ram"), b=a_journal(5, "ram"))
    sim.fault(Call.FINISH, errno.EBUSY, nth)
    with kept(sim) as luod:
        assert luod.names() == ["ram"]
        assert [note for note in luod.recovered.notes if "FINISH" in note]
        assert journals(sim) == {A: 1}


@pytest.mark.parametrize("count", range(12))
def test_a_start_without_descriptors_closes_nothing_that_came_over(sim, count, few_descriptors):
    come_over(sim, a=a_journal(6, "ram"))
    kernel = SharedKernel(SimKernel(sim.path), patience=0.0)
    before = journals(sim, "incoming")
    with few_descriptors(count):
        try:
            recovered = recover(kernel, FdStore())
        except RestoreImpossible as error:
            impossible = error
        except KernelError:
            impossible = RestoreImpossible("")
        else:
            impossible = None
    if impossible is None:
        assert count >= 5
        assert list(recovered.manifest.sessions) == [0]
        recovered.journal.give_up()
    else:
        assert journals(sim, "incoming") == before
        assert journals(sim) == {}
        impossible.give_up_all()


@contextmanager
def no_room_for_a_mapping(monkeypatch):
    """The next journal is larger than this process may map."""
    monkeypatch.setattr("luod.store.MIN_BYTES", 64 * MIN_BYTES)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 16 * MIN_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_start_without_memory_closes_nothing_that_came_over(sim, monkeypatch):
    come_over(sim, a=a_journal(6, "ram"))
    with no_room_for_a_mapping(monkeypatch), refused(sim) as reason:
        assert reason == "the manifest came over, but the kernel answered mmap with ENOMEM"


@contextmanager
def no_room_for_a_file():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_first_start_without_room_for_a_journal_says_so(sim):
    with no_room_for_a_file(), pytest.raises(KernelFailed) as caught:
        Keeper(sim)
    assert caught.value.errno == errno.EFBIG
    assert sim.state().sessions == []


def test_a_switch_without_memory_keeps_the_old_journal(sim, monkeypatch):
    with kept(sim) as luod:
        luod.journal.fall_behind()
        with no_room_for_a_mapping(monkeypatch), pytest.raises(KernelFailed) as caught:
            luod.put(SessionIs(session=a_session(0)))
        assert (caught.value.call, caught.value.errno) == ("mmap", errno.ENOMEM)
        assert journals(sim) == {A: 1}


# Writing

CHURN = FilesIntended(session_id=0, files={}), FilesDropped(session_id=0, kernel_tokens=[])


def test_a_full_journal_is_followed_by_one_under_the_other_name_and_nothing_is_lost(sim):
    text = "x" * 250
    labels = {f"key{number}": text for number in range(16)}
    with kept(sim) as luod:
        seen = []
        for number in range(1300):
            luod.put(SessionIs(session=a_session(number, labels=labels)))
            if luod.journal.epoch != len(seen):
                seen.append(list(journals(sim)))
        assert seen == [[A], [B], [A]]
        sim.kexec()
    with kept(sim) as luod:
        assert luod.names() == [f"s{number}" for number in range(1300)]
        assert all(session.labels == labels for session in luod.manifest.sessions.values())
        assert luod.journal.epoch == 4


def test_a_journal_does_not_grow_with_what_happened_but_with_what_there_is(sim):
    with kept(sim) as luod:
        luod.put(SessionIs(session=a_session(0)))
        for _ in range(30_000):
            for record in CHURN:
                luod.put(record)
        assert luod.journal.epoch > 3
        [session] = sim.state().sessions
        assert session.files[0].size == MIN_BYTES


def test_one_record_can_be_longer_than_a_journal(sim):
    with kept(sim) as luod:
        luod.put(SessionIs(session=a_session(0, labels={"k": "x" * 3 * MIN_BYTES})))
        luod.put(SessionIs(session=a_session(1)))
        sim.kexec()
    with kept(sim) as luod:
        assert luod.names() == ["s0", "s1"]


@pytest.mark.parametrize("call", [Call.OPEN, Call.CREATE_SESSION, Call.PRESERVE_FD])
def test_a_switch_that_fails_writes_nothing_and_keeps_the_old_journal(sim, call):
    with kept(sim) as luod:
        luod.put(SessionIs(session=a_session(0)))
        luod.journal.fall_behind()
        for _ in range(2):
            sim.fault(call, errno.ENOMEM)
            with pytest.raises(KernelError):
                luod.put(SessionIs(session=a_session(1)))
            assert journals(sim) == {A: 1}
        luod.put(SessionIs(session=a_session(1)))
        assert journals(sim) == {B: 1}
        sim.kexec()
    with kept(sim) as luod:
        assert luod.names() == ["s0", "s1"]


@pytest.mark.parametrize("count", range(9))
def test_a_switch_without_descriptors_says_so_and_keeps_the_old_journal(sim, count, few_descriptors):
    with kept(sim) as luod:
        luod.put(SessionIs(session=a_session(0)))
        luod.journal.fall_behind()
        with few_descriptors(count):
            try:
                luod.put(SessionIs(session=a_session(1)))
            except (KernelError, KernelFailed) as error:
                failed = error
            else:
                failed = None
        if failed is not None:
            assert failed.errno == errno.EMFILE
            assert journals(sim) == {A: 1}
            assert luod.names() == ["s0"]
        else:
            assert count >= 4
        sim.kexec()
    with kept(sim) as luod:
        assert luod.names() == (["s0", "s1"] if failed is None else ["s0"])


def test_what_changed_without_a_record_is_in_the_next_journal(sim):
    with kept(sim) as luod:
        luod.manifest.apply(SessionIs(session=a_session(0)))
        luod.journal.fall_behind()
        luod.put(SessionIs(session=a_session(1)))
        sim.kexec()
    with kept(sim) as luod:
        assert luod.names() == ["s0", "s1"]


def test_an_update_at_any_instant_of_a_switch_carries_all_that_was_recorded(machine):
    """Each step of the machine is before or after one call to the kernel."""
    for steps in itertools.count():
        names = [session.name for session in machine.custodian.sessions()]
        if "both" not in names:
            machine.create("both")
        machine.recovered.journal.fall_behind()
        before = machine.custodian.document().sessions
        record = SessionIs(session=a_session(machine.recovered.manifest.serial, f"new{steps}"))
        unplugged = machine.is_unplugged_after(steps, lambda record=record: machine.journal.append(record))
        if not unplugged:
            break
        machine.start_anew()
        after = {session.name for session in machine.custodian.sessions()}
        assert {session.name for session in before} <= after <= {session.name for session in before} | {f"new{steps}"}
        assert machine.is_of_one_mind()
    assert steps == 14


# The readable copy


def a_document(*names):
    manifest = Manifest("boot")
    for number, name in enumerate(names):
        manifest.apply(SessionIs(session=a_session(number, name)))
    return Document.of(manifest, 1)


def test_the_copy_is_what_it_says_for_luods_group_alone(tmp_path):
    path = tmp_path / "manifest.json"
    for names in (["ram"], ["ram", "other"], []):
        ReadableCopy(path).write(a_document(*names))
        assert Document.read(path.read_bytes()) == a_document(*names)
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()
    assert [each.name for each in tmp_path.iterdir()] == ["manifest.json"]
    assert json.loads(path.read_text())["sessions"] == []


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_directory_is_made_where_it_is_not_there(tmp_path):
    path = tmp_path / "run" / "luod" / "manifest.json"
    ReadableCopy(path).write(a_document("ram"))
    assert Document.read(path.read_bytes()) == a_document("ram")


def test_a_copy_that_does_not_fit_leaves_the_old_one_as_it_was(tmp_path):
    path = tmp_path / "manifest.json"
    ReadableCopy(path).write(a_document("ram"))
    with no_room_for_a_file(), pytest.raises(OSError, match="File too large"):
        ReadableCopy(path).write(a_document("ram", "other"))
    assert Document.read(path.read_bytes()) == a_document("ram")
    ReadableCopy(path).write(a_document("ram", "other"))
    assert Document.read(path.read_bytes()) == a_document("ram", "other")


def test_a_copy_that_cannot_be_made_raises_and_follows_no_link(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        ReadableCopy(tmp_path / "file" / "manifest.json").write(a_document())
    (tmp_path / "manifest.new").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        ReadableCopy(tmp_path / "manifest.json").write(a_document())
    assert (tmp_path / "file").read_text() == "mine"
