"""Whenever the machine goes, one half of the flight recorder's memory is whole."""

import itertools

import pytest

from luod.blackbox import BYTES, EVENTS_MOST, GENERATIONS_MOST, BlackBox, History, Unreadable, event_of

SMALL = 4096


class Cut(Exception):
    """The kernel has gone."""


class Cuttable(bytearray):
    """Memory whose kernel goes after so many more bytes have been written."""

    left = 1 << 30

    def __setitem__(self, place, data):
        start, _, _ = place.indices(len(self))
        data = bytes(data)[: self.left]
        super().__setitem__(slice(start, start + len(data)), data)
        self.left -= len(data)
        if not self.left:
            raise Cut


def an_event(number, what="ready", **details):
    return event_of(what, f"client {number}", number, details)


def written(history, box, generation, *events):
    for event in events:
        payload = history.add(generation, event)
        if payload is not None and not box.append(payload):
            box.switch(history)


def everything(history):
    return {generation: history.events(generation) for generation in history.generations}


def read(memory):
    return everything(BlackBox.open(bytearray(memory))[1])


def a_box(size=SMALL):
    memory, history = Cuttable(size), History("boot", 3)
    return memory, history, BlackBox.begin(memory, history)


def test_what_was_written_is_read():
    memory, history, box = a_box()
    written(history, box, 4, an_event(1), an_event(2, "veto", reason="not now", left=2))
    box.tick(77)
    again, found = BlackBox.open(bytearray(memory))
    assert found.events(4) == [
        {"what": "ready", "who": "client 1", "usec": 1},
        {"what": "veto", "who": "client 2", "usec": 2, "reason": "not now", "left": 2},
    ]
    assert (found.boot_id, found.generation, again.last_tick) == ("boot", 3, 77)


def test_a_box_is_gone_on_with():
    memory, history, box = a_box()
    written(history, box, 4, an_event(1))
    again, found = BlackBox.open(memory)
    written(found, again, 4, an_event(2))
    assert [event["usec"] for event in read(memory)[4]] == [1, 2]


def test_events_are_told_by_time():
    history = History()
    for number in (3, 1, 2):
        history.add(0, an_event(number))
    assert [event["usec"] for event in history.events(0)] == [1, 2, 3]


def test_a_kexec_at_any_byte_of_a_record_leaves_those_before_it():
    for left in itertools.count(1):
        memory, history, box = a_box()
        written(history, box, 4, an_event(1))
        memory.left = left
        try:
            written(history, box, 4, an_event(2))
        except Cut:
            assert [event["usec"] for event in read(memory)[4]] in ([1], [1, 2])
        else:
            break
    assert left > 50


def test_a_kexec_at_any_byte_of_a_switch_leaves_all_there_was():
    for left in itertools.count(1):
        memory, history, box = a_box()
        written(history, box, 3, an_event(1))
        box.switch(history)
        written(history, box, 4, an_event(2), an_event(3))
        before = everything(history)
        memory.left = left
        try:
            box.switch(history)
        except Cut:
            assert read(memory) == before
        else:
            break
    assert left > 150
    assert read(memory) == before


def test_a_tick_is_one_write():
    memory, _, box = a_box()
    writes = []
    memory.__class__ = type("Counting", (Cuttable,), {"__setitem__": lambda _, *write: writes.append(write)})
    box.tick(1)
    assert [len(data) for _, data in writes] == [8]


def test_a_full_half_is_followed_by_the_other_which_has_nothing_of_what_was_in_it_before():
    memory, history, box = a_box()
    for number in range(200):
        written(history, box, number // 10, an_event(number))
        found = read(memory)
        assert max(found) == number // 10
        assert found == {generation: history.events(generation) for generation in found}


def test_the_newest_generations_are_kept():
    memory, history, box = a_box(BYTES)
    for generation in range(1, 100):
        written(history, box, generation, *(an_event(number, "first", latency=1.5) for number in range(40)))
    found = read(memory)
    assert list(found) == list(range(min(found), 100))
    assert len(found) >= 16
    box.switch(history)
    assert list(read(memory)) == list(range(100 - GENERATIONS_MOST, 100))


def test_sixteen_generations_of_sixty_events_fit():
    history = History()
    for generation in range(1, 17):
        for number in range(60):
            history.add(generation, an_event(number, "first", details="x" * 20))
    memory = bytearray(BYTES)
    BlackBox.begin(memory, history)
    assert read(memory) == everything(history)


def test_of_too_many_events_those_that_found_no_room_are_counted():
    memory, history, box = a_box(BYTES)
    written(history, box, 1, *(an_event(number) for number in range(EVENTS_MOST + 5)))
    *events, dropped = history.events(1)
    assert len(events) == EVENTS_MOST
    assert (dropped["what"], dropped["count"]) == ("dropped", 5)
    assert read(memory)[1][-1]["count"] == 4  # written at each power of two
    box.switch(history)
    assert read(memory) == everything(history)


def test_however_much_happened_before_a_kexec_there_is_room_for_what_comes_after_it():
    memory, history, box = a_box(BYTES)
    for size in (20, 190):
        written(history, box, 4, *(an_event(number, reason="x" * size) for number in range(EVENTS_MOST)))
    history.enter("next", 4)
    written(history, box, 4, *(an_event(1000 + number, "first") for number in range(100)))
    assert [event["what"] for event in history.events(4)].count("first") == 100
    box.switch(history)
    assert read(memory) == everything(history)


def test_of_too_large_events_no_more_are_kept_than_find_room_twice():
    memory, history, box = a_box(BYTES)
    for generation in (4, 3):
        written(history, box, generation, *(an_event(number, reason="x" * 190) for number in range(EVENTS_MOST)))
    box.switch(history)
    assert read(memory) == everything(history)
    assert all(history.events(generation)[-1]["what"] == "dropped" for generation in (3, 4))


def test_of_aborted_live_updates_the_last_one_is_kept_and_how_the_others_ended():
    memory, history, box = a_box(BYTES)
    attempt = [event_of("prepare", None, 1, {}), *(an_event(2) for _ in range(100)), event_of("aborted", None, 3, {})]
    for _ in range(30):
        written(history, box, 4, *attempt)
    found = [event["what"] for event in history.events(4)]
    assert (found.count("prepare"), found.count("ready"), found.count("aborted")) == (1, 100, 17)
    assert read(memory) == everything(history)


def test_an_event_is_cut_to_what_finds_room():
    event = event_of("first", "w" * 300, 1, {f"d{number}": "x" * 300 for number in range(3)})
    assert [len(event[key]) for key in ("who", "d0", "d2")] == [200, 200, 200]
    assert event_of("first", "w", 1, {f"d{number}": "x" * 300 for number in range(9)}).keys() == {"usec", "what", "who"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "doesn't start"),
        (b"\0" * SMALL, "doesn't start"),
        (b"LUODFLGT" + bytes(SMALL), "its version is 0"),
        (b"LUODFLGT\x02\0\0\0" + bytes(SMALL), "its version is 2"),
    ],
)
def test_what_is_no_black_box_of_this_version_is_not_read(data, why):
    with pytest.raises(Unreadable, match=why):
        BlackBox.open(bytearray(data))


def test_a_box_that_was_never_begun_is_not_read():
    memory, _, _ = a_box()
    memory[128:] = bytes(SMALL - 128)
    with pytest.raises(Unreadable, match="neither of its halves"):
        BlackBox.open(memory)


@pytest.mark.parametrize(
    "payload",
    [
        b"no JSON",
        b"[1]",
        b'[1, {"what": "x"}]',
        b'[1, {"what": 1, "usec": 1}]',
        b"1",
        pytest.param(b"[" * 50_000, id="deep"),
    ],
)
def test_a_record_that_makes_no_sense_is_not_read(payload):
    memory, _, box = a_box(BYTES)
    assert box.append(payload)
    with pytest.raises(Unreadable, match="a record that"):
        BlackBox.open(memory)


def test_garbage_is_read_as_nothing_or_as_what_is_whole():
    memory, history, box = a_box(1024)
    written(history, box, 4, an_event(1), an_event(2))
    whole = [event["usec"] for event in read(memory)[4]]
    for place in range(len(memory)):
        damaged = bytearray(memory)
        damaged[place] ^= 0x55
        try:
            found = [event["usec"] for event in BlackBox.open(damaged)[1].events(4)]
        except Unreadable:
            continue
        assert found == whole[: len(found)]
