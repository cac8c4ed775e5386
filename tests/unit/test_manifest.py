"""A journal leads to the same manifest, however far it was written; a document says what it says or is refused."""

import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luod.lifecycle import Direction, Event, FileState, Mode, State
from luod.manifest import (
    DROPPED_BY_KERNEL,
    HEADER,
    RECORD,
    VERSION,
    Begin,
    Document,
    File,
    FilesDropped,
    FilesHeld,
    FilesIntended,
    FilesRetrieved,
    Finishing,
    Kernel,
    KernelIs,
    Manifest,
    ManifestError,
    NewerVersion,
    Rearmed,
    Renewed,
    Renewing,
    Session,
    SessionGone,
    SessionIs,
    SessionMissing,
    encode,
    header,
    read_epoch,
    replay,
)
from luod.memory import Inode, Memory

BEGIN = Begin(boot_id="one", generation=3, serial=7)


def a_session(number=7, name="ram", state=State.OUTGOING, **more):
    more = {"kernel_name": f"luod-3-{number}", "mode": Mode.CUSTODIAL, "created_usec": 1} | more
    return Session(id=number, uid=1000, gid=1000, name=name, state=state, **more)


def a_kernel(release):
    return Kernel.model_validate(
        {
            "kind": "bzImage",
            "architecture": "x86_64",
            "release": release,
            "buildIds": [release.encode().hex()],
            "abi": {"kho": ["kho-v4"], "luo": ["luo-v5"], "handlers": []},
            "commandLineMax": 2016,
        }
    )


def a_file(token, state=FileState.HELD, **more):
    return File(token=token, state=state, **more)


def renewed(number, sizes, event=Event.REARMED):
    files = {token: Memory(Inode(1, 1000 + token), size, 0) for token, size in sizes.items()}
    return Renewed(session_id=number, event=event, files=files)


def raw(payload):
    """A whole record of what may be none."""
    return RECORD.pack(len(payload), zlib.crc32(payload)) + payload


def journal(*records, epoch=1):
    return header(epoch) + b"".join(encode(record) for record in records)


def facts(manifest):
    """All that a manifest says."""
    return Document.of(manifest, 0).model_dump(), manifest.serial, dict(manifest.inodes), manifest.kernels


def applied(*records):
    manifest = Manifest()
    for record in records:
        manifest.apply(record.model_copy(deep=True))
    return manifest


# Records

BEFORE = (
    BEGIN,
    SessionIs(session=a_session()),
    SessionIs(session=a_session(8, "came", State.INCOMING, files={0: a_file(0), 1: a_file(9, FileState.TOMBSTONE)})),
    FilesIntended(session_id=7, files={0: a_file(5, FileState.INTENDED, name="five", size=10)}),
)
RECORDS = [
    [Begin(boot_id="two", generation=4, serial=20)],
    [SessionIs(session=a_session(9, "more", unit="x.service", labels={"a": "b"}, lost="why", renewing="luod-3-9"))],
    [SessionIs(session=a_session(9, "vm", mode=Mode.DELEGATED))],
    [FilesIntended(session_id=7, files={})],
    [FilesIntended(session_id=7, files={4: a_file(2**63 - 1, FileState.INTENDED)})],
    [FilesHeld(session_id=7, kernel_tokens=[0])],
    [FilesDropped(session_id=7, kernel_tokens=[0])],
    [FilesDropped(session_id=7, kernel_tokens=[], never_preserved=[0, 55])],
    [FilesRetrieved(session_id=8, kernel_tokens=[0])],
    [FilesRetrieved(session_id=8, kernel_tokens=[0], inodes={0: Inode(1, 77)})],
    [Renewing(session_id=8, kernel_name="luod-3-20")],
    [Renewing(session_id=8, kernel_name="luod-3-20"), Renewing(session_id=8, kernel_name=None)],
    [Renewing(session_id=8, kernel_name="luod-3-20"), renewed(8, {0: 4096})],
    [Renewing(session_id=8, kernel_name="luod-3-20"), renewed(8, {0: 4096}, Event.CARRIED_OVER), Rearmed(session_id=8)],
    [Finishing(session_id=8, begun=True)],
    [Finishing(session_id=8, begun=True), Finishing(session_id=8, begun=False)],
    [SessionMissing(session_id=8, reason="it is not there")],
    [SessionGone(session_id=7)],
    [KernelIs(kernel=a_kernel("7.4")), KernelIs(kernel=a_kernel("7.5")), KernelIs(kernel=a_kernel("7.4"))],
]


@pytest.mark.parametrize("records", RECORDS, ids=lambda records: " then ".join(type(each).__name__ for each in records))
def test_every_record_means_in_a_journal_what_it_means_at_once(records):
    data = journal(*BEFORE, *records)
    manifest, end = replay(data)
    assert facts(manifest) == facts(applied(*BEFORE, *records))
    assert end == len(data)


def test_the_life_of_a_file_and_of_its_session():
    manifest = applied(*BEFORE)
    ram = manifest.find(1000, "ram")
    assert (ram.files[0].state, ram.held(), ram.next_kernel_token) == (FileState.INTENDED, {}, 1)
    manifest.apply(FilesHeld(session_id=7, kernel_tokens=[0]))
    assert ram.held() == {0: a_file(5, name="five", size=10)}
    manifest.apply(FilesDropped(session_id=7, kernel_tokens=[0]))
    assert (ram.held(), ram.files[0].state) == ({}, FileState.TOMBSTONE)
    manifest.apply(Renewing(session_id=7, kernel_name="next"))
    manifest.apply(renewed(7, {}, Event.RENEWED))
    assert (ram.files, ram.kernel_name, ram.renewing, ram.next_kernel_token) == ({}, "next", None, 1)
    manifest.apply(SessionGone(session_id=7))
    assert manifest.find(1000, "ram") is None


def test_names_belong_to_their_owners():
    manifest = applied(BEGIN, SessionIs(session=a_session()))
    manifest.apply(SessionIs(session=a_session(8).model_copy(update={"uid": 1001})))
    assert (manifest.find(1000, "ram").id, manifest.find(1001, "ram").id) == (7, 8)
    assert manifest.find(1002, "ram") is None


def test_a_new_session_gets_a_number_that_none_had():
    manifest = applied(BEGIN, SessionIs(session=a_session(30)))
    assert manifest.serial == 31
    manifest.apply(SessionGone(session_id=30))
    assert manifest.serial == 31


ILLEGAL = {
    "of a session that is not there": FilesHeld(session_id=99, kernel_tokens=[]),
    "the end of a session that is not there": SessionGone(session_id=99),
    "of a file that is not there": FilesHeld(session_id=7, kernel_tokens=[0, 99]),
    "a file retrieved that is not there": FilesRetrieved(session_id=7, kernel_tokens=[99]),
    "a file dropped that is not there": FilesDropped(session_id=7, kernel_tokens=[99]),
    "a session with a number that is taken": SessionIs(session=a_session(7, "other")),
    "a session with a name that is taken": SessionIs(session=a_session(12, "ram")),
    "renewed by no session": renewed(8, {0: 1}),
    "rearmed, but never away": Rearmed(session_id=7),
}


@pytest.mark.parametrize("what", ILLEGAL)
def test_a_record_that_does_not_fit_is_refused_and_changes_nothing(what):
    manifest = applied(*BEFORE)
    before = facts(manifest)
    with pytest.raises(ManifestError):
        manifest.apply(ILLEGAL[what])
    assert facts(manifest) == before
    with pytest.raises(ManifestError):
        replay(journal(*BEFORE, ILLEGAL[what]))


def test_sizes_of_files_that_did_not_move_are_refused():
    renewing = Renewing(session_id=8, kernel_name="next")
    with pytest.raises(ManifestError):
        replay(journal(*BEFORE, renewing, renewed(8, {1: 5})))


NO_RECORDS = {
    "text": b"hello",
    "no object": b"[]",
    "an unknown kind": b'{"kind":"joined","sessionId":7}',
    "no kind": b'{"sessionId":7}',
    "an unknown field": b'{"kind":"gone","sessionId":7,"why":"x"}',
    "a missing field": b'{"kind":"held","sessionId":7}',
    "a wrong type": b'{"kind":"gone","sessionId":"seven"}',
    "an unknown state": json.dumps(
        {"kind": "session", "session": {**a_session(9).model_dump(), "state": "x"}}
    ).encode(),
    "deep nesting": b'{"kind":' + b"[" * 100_000,
    "no UTF-8": b'{"kind":"missing","sessionId":8,"reason":"\xff"}',
}


@pytest.mark.parametrize("what", NO_RECORDS)
def test_a_whole_record_that_makes_no_sense_is_an_error_with_its_place_in_one_line(what):
    good = journal(*BEFORE)
    with pytest.raises(ManifestError, match=f"byte {len(good)} ") as caught:
        replay(good + raw(NO_RECORDS[what]))
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 1000


# Journals


def test_a_journal_cut_off_anywhere_is_what_was_whole():
    data = header(1)
    states = []
    for number, record in enumerate((*BEFORE, *(record for records in RECORDS[3:8] for record in records))):
        data += encode(record)
        if number:
            states.append((len(data), facts(replay(data)[0])))
        else:
            begun = len(data)
    for cut in range(len(data) + 1):
        if cut < begun:
            with pytest.raises(ManifestError):
                replay(data[:cut])
            continue
        expected = [(end, state) for end, state in states if end <= cut]
        manifest, end = replay(data[:cut])
        assert end == (expected[-1][0] if expected else begun)
        assert facts(manifest) == (expected[-1][1] if expected else facts(applied(BEGIN)))
        assert replay(data[:cut].ljust(len(data) + 100, b"\0"))[1] == end


@st.composite
def histories(draw):
    """A journal, and at the end of each of its records what it said then."""
    manifest, data, states = Manifest(), header(draw(st.integers(0, 2**64 - 1))), []
    for step in range(draw(st.integers(1, 25))):
        record = BEGIN if step == 0 else draw(next_records(manifest))
        data += encode(record)
        manifest.apply(record)
        states.append((len(data), facts(manifest)))
    return data, states


@st.composite
def next_records(draw, manifest):
    """A record that can follow."""
    text = st.text(max_size=5)
    if not manifest.sessions or draw(st.integers(0, 5)) == 0:
        number = manifest.serial
        uid = draw(st.integers(0, 2**32 - 2))
        labels = draw(st.dictionaries(text, text, max_size=2))
        mode = draw(st.sampled_from(Mode))
        state = draw(st.sampled_from(State))
        new = a_session(number, f"{number}{draw(text)}", state, mode=mode, labels=labels)
        return SessionIs(session=new.model_copy(update={"uid": uid}))
    session = manifest.sessions[draw(st.sampled_from(sorted(manifest.sessions)))]
    number = session.id
    some = draw(st.lists(st.sampled_from(sorted(session.files)), unique=True)) if session.files else []
    moves = [
        SessionGone(session_id=number),
        FilesHeld(session_id=number, kernel_tokens=some),
        FilesDropped(session_id=number, kernel_tokens=some, never_preserved=draw(st.lists(st.integers(0, 5)))),
        FilesRetrieved(session_id=number, kernel_tokens=some),
        Renewing(session_id=number, kernel_name=draw(st.none() | text)),
    ]
    file = st.builds(
        File,
        token=st.integers(0, 2**63 - 1),
        name=st.none() | text,
        size=st.none() | st.integers(0, 2**63 - 1),
        state=st.sampled_from(FileState),
    )
    moves.append(FilesIntended(session_id=number, files=draw(st.dictionaries(st.integers(0, 2**64), file, max_size=3))))
    if session.renewing is not None and session.state is not State.LOST:
        event = {State.OUTGOING: Event.RENEWED, State.INCOMING: Event.CARRIED_OVER}.get(session.state)
        if event is not None:
            moves.append(renewed(number, {token: draw(st.integers(0, 2**63)) for token in session.held()}, event))
    if session.state is State.CARRIED:
        moves.append(Rearmed(session_id=number))
    if session.state is not State.LOST:
        moves.append(SessionMissing(session_id=number, reason=draw(text)))
    return draw(st.sampled_from(moves))


@settings(max_examples=60)
@given(histories(), st.data())
def test_any_history_is_read_as_it_was_written_up_to_what_is_whole(history, data):
    whole, states = history
    assert facts(replay(whole)[0]) == states[-1][1]
    cut = data.draw(st.integers(states[0][0], len(whole)))
    garbage = data.draw(st.binary(max_size=60))
    expected_end, expected = next((end, state) for end, state in reversed(states) if end <= cut)
    rest = whole[expected_end:cut] + garbage
    if not whole[expected_end:].startswith(rest):  # else the garbage is what was to come
        manifest, end = replay(whole[:cut] + garbage)
        assert (end, facts(manifest)) == (expected_end, expected)


@settings(max_examples=60)
@given(histories(), st.data())
def test_a_last_record_that_was_changed_is_passed_over(history, data):
    whole, states = history
    if len(states) < 2:
        return
    end, expected = states[-2]
    place = data.draw(st.integers(end, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    manifest, found = replay(bytes(changed))
    assert (found, facts(manifest)) == (end, expected)


@settings(max_examples=40)
@given(histories())
def test_a_snapshot_leads_to_the_same_manifest(history):
    manifest, _ = replay(history[0])
    again, _ = replay(journal(*manifest.snapshot()))
    assert facts(again) == facts(manifest)
    assert all(again.find(session.uid, session.name) is session for session in again.sessions.values())


@settings(max_examples=40)
@given(histories())
def test_any_history_can_be_entered_by_the_next_kernel(history):
    manifest, _ = replay(history[0])
    before = {number: session.state for number, session in manifest.sessions.items()}
    manifest.enter_new_kernel("two")
    assert before.keys() == manifest.sessions.keys()
    for session in manifest.sessions.values():
        assert session.state is not State.OUTGOING
        assert (session.lost is not None) or session.state is State.INCOMING
        assert session.renewing is None
        assert all(file.state is not FileState.INTENDED and not file.retrieved for file in session.files.values())
    assert facts(replay(journal(*manifest.snapshot()))[0]) == facts(manifest)


def test_the_header_tells_its_epoch_and_is_checked_whole():
    data = journal(BEGIN, epoch=2**64 - 1)
    assert read_epoch(data) == 2**64 - 1
    for place in range(HEADER.size):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(ManifestError):
            read_epoch(bytes(changed))
    for cut in range(HEADER.size):
        with pytest.raises(ManifestError):
            read_epoch(data[:cut])


def test_a_journal_without_a_record_is_none():
    with pytest.raises(ManifestError, match="no whole record"):
        replay(header(1) + bytes(4096))


def of_version(version):
    start = HEADER.pack(b"LUODJRNL", version, 0, 1, 0, 0)[:-4]
    return start + struct.pack("=I", zlib.crc32(start)) + encode(BEGIN)


def test_a_journal_of_a_newer_luod_is_told_from_a_damaged_one():
    with pytest.raises(NewerVersion, match=f"{VERSION + 1}.*newer luod"):
        read_epoch(of_version(VERSION + 1))
    with pytest.raises(NewerVersion):
        replay(of_version(VERSION + 1))


# The next kernel


def entered(**more):
    manifest = applied(BEGIN, SessionIs(session=a_session(**more)))
    manifest.enter_new_kernel("two")
    assert (manifest.boot_id, manifest.generation) == ("two", BEGIN.generation + 1)
    return manifest.sessions[7]


def test_what_was_outgoing_has_come_over():
    session = entered(files={0: a_file(5, retrieved=True)}, generation=2)
    assert (session.state, session.direction) == (State.INCOMING, Direction.INCOMING)
    assert (session.generation, session.lost, session.files) == (3, None, {0: a_file(5)})


def test_what_was_incoming_is_lost_and_stays_lost():
    assert (entered(state=State.INCOMING).state, entered(state=State.INCOMING).lost) == (State.LOST, DROPPED_BY_KERNEL)
    session = entered(state=State.LOST, lost="something else")
    assert (session.state, session.lost) == (State.LOST, "something else")


@pytest.mark.parametrize("state", [State.OUTGOING, State.INCOMING])
def test_a_session_that_was_being_renewed_came_over_as_its_successor(state):
    session = entered(state=state, renewing="luod-3-8", files={0: a_file(5)})
    assert (session.state, session.kernel_name, session.renewing) == (State.INCOMING, "luod-3-8", None)


def test_a_file_that_was_only_intended_never_was_its_owners():
    files = {0: a_file(5, FileState.INTENDED), 1: a_file(6), 2: a_file(7, FileState.TOMBSTONE)}
    session = entered(files=files)
    assert list(session.held()) == [1]
    assert session.files[0].state is FileState.TOMBSTONE


# Documents


def a_document(epoch=4):
    manifest = applied(*BEFORE, FilesHeld(session_id=7, kernel_tokens=[0]))
    return manifest, Document.of(manifest, epoch)


def written(document):
    return document.model_dump_json(by_alias=True).encode()


def test_a_document_is_read_as_it_was_written():
    _, document = a_document()
    assert Document.read(written(document)) == document
    assert Document.read(json.dumps(json.loads(written(document)), indent=4).encode()) == document


def test_a_saved_journal_is_read_as_a_document():
    manifest, document = a_document()
    assert Document.read(journal(*manifest.snapshot(), epoch=4)) == document


def test_a_document_shows_one_moment():
    manifest, document = a_document()
    before = written(document)
    manifest.apply(FilesDropped(session_id=7, kernel_tokens=[0]))
    assert written(document) == before


def leaves(value, path=()):
    """Where in a document something stands that can be changed."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield path
    else:
        for key, child in children:
            yield from leaves(child, (*path, key))


def test_a_document_that_was_changed_anywhere_is_refused():
    _, document = a_document()
    whole = json.loads(written(document))
    for path in leaves(whole):
        changed = json.loads(written(document))
        place = changed
        for key in path[:-1]:
            place = place[key]
        old = place[path[-1]]
        place[path[-1]] = not old if isinstance(old, bool) else old + 1 if isinstance(old, int) else f"{old}x"
        with pytest.raises(ManifestError):
            Document.read(json.dumps(changed).encode())
    del whole["sessions"][0]["files"]
    with pytest.raises(ManifestError, match="checksum"):
        Document.read(json.dumps(whole).encode())


def test_a_document_cut_off_anywhere_is_refused():
    data = written(a_document()[1])
    for cut in range(len(data)):
        with pytest.raises(ManifestError):
            Document.read(data[:cut])


def test_a_document_of_a_newer_luod_is_refused_for_that():
    whole = json.loads(written(a_document()[1])) | {"version": VERSION + 1, "unheardOf": 1}
    with pytest.raises(ManifestError, match="newer luod"):
        Document.read(json.dumps(whole).encode())


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"LUODJRNL", b'{"version": true}', b"1" * 5000])
def test_what_is_no_document_is_refused(data):
    with pytest.raises(ManifestError):
        Document.read(data)


def test_a_snapshot_that_is_damaged_anywhere_is_no_manifest():
    records = b"".join(encode(SessionIs(session=a_session(number, f"s{number}"))) for number in range(3))
    begin = encode(Begin(boot_id="b", generation=0, serial=0))
    whole = header(1, len(begin + records)) + begin + records + bytes(64)
    assert len(replay(whole)[0].sessions) == 3
    for place in range(HEADER.size, HEADER.size + len(begin + records)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x20
        with pytest.raises(ManifestError):
            replay(bytes(damaged))


def test_kernels_are_known_by_their_build_ids_the_last_ones_of_them():
    manifest = applied(BEGIN, *(KernelIs(kernel=a_kernel(f"7.{number}")) for number in (1, 2, 3, 1, 4, 5)))
    assert [kernel.release for kernel in manifest.kernels] == ["7.3", "7.1", "7.4", "7.5"]
    manifest.enter_new_kernel("two")
    assert [kernel.release for kernel in replay(journal(*manifest.snapshot()))[0].kernels] == [
        "7.3",
        "7.1",
        "7.4",
        "7.5",
    ]
