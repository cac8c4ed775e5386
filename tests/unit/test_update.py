"""The course of a live update, and who takes part in it."""

import pytest

from luod.errors import InvalidParameter, NoUpdate, QuotaExceeded, UpdateAborted, UpdateInProgress
from luod.lifecycle import PHASES, Phase, Step, Unready, Via
from luod.policy import Limits, Policy
from luod.update import Answer, Event, Participant, Told, Updates, Watcher

ALICE, BOB = 1000, 1001


class Taker(Watcher):
    """A watcher who remembers what it was told."""

    def __init__(self, uid=ALICE, name="qemu", **options):
        self.told = []
        super().__init__(uid, self.told.append, name, participate=True, **options)


@pytest.fixture
def changes():
    return []


@pytest.fixture
def updates(changes):
    return Updates(Policy(0, Limits(watchers_per_owner=3), 100), lambda: changes.append(1))


def begun(updates, *takers, unready=Unready.ABORT, stages=None):
    """A live update in which all these take part; all are asked."""
    for taker in takers:
        updates.watchers.add(taker)
    update = updates.begin(Via.DIRECT, unready, deadline_usec=5_000_000)
    stages = stages or [1] * len(takers)
    for stage in updates.gather(Participant(*each) for each in zip(takers, stages, strict=True)):
        updates.ask(stage)
    return update


def went(updates, *steps):
    for step in steps:
        updates.step(step)
    return updates.phase


def test_its_course_is_the_table_and_nothing_else(updates):
    assert went(updates, Step.BEGIN, Step.ALL_READY, Step.SEAL, Step.EXECUTE) is Phase.EXECUTING
    for step in set(Step) - {Step.COME_BACK}:
        with pytest.raises(KeyError):
            updates.step(step)
    assert went(updates, Step.COME_BACK) is Phase.IDLE


def test_every_phase_that_a_live_update_is_in_has_a_way_back():
    ways = {phase for (phase, step), there in PHASES.items() if there is Phase.IDLE}
    assert ways == {Phase.PREPARING, Phase.READY, Phase.SEALED, Phase.EXECUTING}


def test_there_is_one_at_a_time(updates):
    first = begun(updates)
    with pytest.raises(UpdateInProgress) as refused:
        begun(updates)
    assert refused.value.update == first.number
    updates.end(UpdateAborted("so"))
    assert begun(updates).number > first.number


def test_of_a_veto_only_so_much_is_told_as_a_line_has_room_for(updates):
    taker = Taker()
    update = begun(updates, taker)
    updates.answer(ALICE, update.number, taker.secret, "\x1b[2Jno\n<3>luod: " + "A" * 900_000)
    [said] = updates.progress().waiting
    assert said.startswith("qemu: refused,  [2Jno <3>luod: AAA")
    assert len(said) < 250


def test_one_that_is_over_at_once_is_still_whose_it_was():
    def off():
        if updates.current is not None:
            updates.end(UpdateAborted("luod stops"))

    updates = Updates(Policy(0, Limits(), 100), off)
    assert str(updates.begin(Via.DIRECT, Unready.ABORT, deadline_usec=0).error) == str(UpdateAborted("luod stops"))


def test_who_takes_part_is_asked_and_answers(updates):
    one, two = Taker(name="one"), Taker(BOB, name="two")
    update = begun(updates, one, two)
    assert one.told == [Told(Event.PREPARE, update.number, 5_000_000)]
    assert updates.progress()[:3] == (Phase.PREPARING, 0, ("one: no answer", "two: no answer"))
    updates.answer(ALICE, update.number, one.secret)
    assert updates.progress()[:3] == (Phase.PREPARING, 1, ("two: no answer",))
    updates.answer(BOB, update.number, two.secret, "not now")
    assert updates.progress()[:3] == (Phase.PREPARING, 1, ("two: refused, not now",))
    updates.answer(BOB, update.number, two.secret)
    assert update.not_ready() == []


def test_a_stage_is_asked_after_the_one_before(updates):
    vm, disk = Taker(name="vm"), Taker(name="disk")
    for each in (vm, disk):
        updates.watchers.add(each)
    update = updates.begin(Via.SYSTEMD, Unready.ABORT, 1)
    assert updates.gather([Participant(disk, 2), Participant(vm, 1)]) == [1, 2]
    updates.ask(1)
    assert (len(vm.told), len(disk.told)) == (1, 0)
    assert updates.progress().waiting == ("disk: waits for those before it", "vm: no answer")
    with pytest.raises(NoUpdate):
        updates.answer(ALICE, update.number, disk.secret)
    updates.ask(2)
    updates.answer(ALICE, update.number, disk.secret)


def test_nobody_answers_for_another(updates):
    one = Taker()
    update = begun(updates, one)
    with pytest.raises(InvalidParameter):
        updates.answer(BOB, update.number, one.secret)
    with pytest.raises(InvalidParameter):
        updates.answer(ALICE, update.number, "guessed")
    with pytest.raises(NoUpdate):
        updates.answer(ALICE, update.number + 1, one.secret)
    looks_on = Watcher(ALICE, lambda told: None)
    updates.watchers.add(looks_on)
    with pytest.raises(NoUpdate):
        updates.answer(ALICE, update.number, looks_on.secret)


def test_an_answer_that_comes_too_late_changes_nothing(updates):
    one = Taker()
    update = begun(updates, one)
    updates.step(Step.PROCEED)
    with pytest.raises(NoUpdate):
        updates.answer(ALICE, update.number, one.secret)
    updates.end(UpdateAborted("so"))
    with pytest.raises(NoUpdate):
        updates.answer(ALICE, update.number, one.secret)


def test_who_goes_away_is_not_ready_even_if_it_was(updates):
    one = Taker()
    update = begun(updates, one)
    updates.answer(ALICE, update.number, one.secret)
    updates.leave(one)
    assert [each.answer for each in update.not_ready()] == [Answer.GONE]
    with pytest.raises(InvalidParameter):
        updates.answer(ALICE, update.number, one.secret)


def test_who_goes_away_once_all_are_ready_is_not_ready_until_nobody_can_change_anything(updates):
    early, late = Taker(), Taker()
    update = begun(updates, early, late)
    for each in (early, late):
        updates.answer(ALICE, update.number, each.secret)
    updates.step(Step.ALL_READY)
    updates.leave(early)
    updates.step(Step.SEAL)
    updates.leave(late)
    assert [each.answer for each in update.participants] == [Answer.GONE, Answer.READY]


def test_an_abort_is_felt_at_the_next_step_and_everybody_asked_is_told(updates):
    one, gone = Taker(), Taker()
    update = begun(updates, one, gone)
    updates.leave(gone)
    updates.abort("Ctrl-C")
    updates.abort("again")
    for go_on in (updates.go_on, lambda: updates.step(Step.ALL_READY)):
        with pytest.raises(UpdateAborted, match="Ctrl-C"):
            go_on()
    updates.end(UpdateAborted("Ctrl-C"))
    assert one.told[1:] == [Told(Event.ABORTED, update.number, reason="Ctrl-C")]
    assert gone.told[1:] == []
    assert updates.progress() == (Phase.IDLE, 0, (), None, None, None)


def test_who_was_not_asked_yet_is_not_told_that_it_is_off(updates):
    later = Taker()
    updates.watchers.add(later)
    updates.begin(Via.DIRECT, Unready.ABORT, 1)
    updates.gather([Participant(later, 2)])
    updates.end(UpdateAborted("so"))
    assert later.told == []


def test_where_nothing_goes_on_nothing_is_aborted(updates):
    with pytest.raises(NoUpdate):
        updates.abort("so")


def test_on_its_way_there_is_no_abort_but_it_may_come_back(updates):
    one = Taker()
    update = begun(updates, one)
    went(updates, Step.ALL_READY, Step.EXECUTE)
    with pytest.raises(UpdateInProgress):
        updates.abort("so")
    updates.end(UpdateAborted("reboot() returned"))
    assert updates.phase is Phase.IDLE
    assert one.told[-1] == Told(Event.ABORTED, update.number, reason="reboot() returned")


def test_every_change_is_told(updates, changes):
    one = Taker()
    for act in (
        lambda: begun(updates, one),
        lambda: updates.answer(ALICE, updates.current.number, one.secret),
        lambda: updates.leave(one),
        lambda: updates.go_on("something"),
        lambda: updates.abort("so"),
        lambda: updates.end(UpdateAborted("so")),
    ):
        changes.clear()
        act()
        assert changes


def test_watchers_have_a_limit_for_each_owner(updates):
    for _ in range(3):
        updates.watchers.add(Taker())
    with pytest.raises(QuotaExceeded):
        updates.watchers.add(Taker())
    updates.watchers.add(Taker(BOB))
