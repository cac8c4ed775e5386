"""The tables say for every state what can happen to it and what can be asked."""

import pytest

from luod.lifecycle import ALLOWED, NEXT, Direction, Event, Mode, Request, State
from luod.manifest import ManifestError, Session

OUTGOING, INCOMING, CARRIED, LOST = State

LEADS_TO = {
    (OUTGOING, Event.LIVE_UPDATE): INCOMING,
    (INCOMING, Event.LIVE_UPDATE): LOST,
    (CARRIED, Event.LIVE_UPDATE): INCOMING,
    (LOST, Event.LIVE_UPDATE): LOST,
    (OUTGOING, Event.RENEWED): OUTGOING,
    (INCOMING, Event.CARRIED_OVER): CARRIED,
    (INCOMING, Event.REARMED): OUTGOING,
    (CARRIED, Event.REARMED): OUTGOING,
    (OUTGOING, Event.MISSING): LOST,
    (INCOMING, Event.MISSING): LOST,
    (CARRIED, Event.MISSING): LOST,
}


def a_session(state):
    return Session(id=1, kernel_name="k", uid=1, gid=1, name="ram", mode=Mode.CUSTODIAL, state=state, created_usec=1)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_event_leads_where_the_table_says_or_nowhere(state, event):
    session = a_session(state)
    if (there := LEADS_TO.get((state, event))) is None:
        with pytest.raises(ManifestError, match=f"is {state} and can't be {event}"):
            session.advance(event)
        assert session.state is state
    else:
        session.advance(event)
        assert session.state is there


def test_the_table_knows_nothing_else():
    assert LEADS_TO == NEXT


def test_every_state_can_live_through_an_update():
    assert {state for state, event in NEXT if event is Event.LIVE_UPDATE} == set(State)


@pytest.mark.parametrize("state", State)
def test_what_is_not_outgoing_shows_as_incoming(state):
    assert a_session(state).direction == (Direction.OUTGOING if state is OUTGOING else Direction.INCOMING)


def test_every_request_is_served_in_some_state_and_mode():
    assert ALLOWED.keys() == set(Request)
    assert all(allowed.states and allowed.modes for allowed in ALLOWED.values())


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("mode", Mode)
def test_there_is_always_a_way_to_end_a_session(state, mode):
    ends = [
        request
        for request in (Request.FINISH, Request.DISCARD)
        if state in ALLOWED[request].states and mode in ALLOWED[request].modes
    ]
    assert len(ends) == 1


def test_a_lost_session_can_only_be_discarded():
    assert [request for request in Request if LOST in ALLOWED[request].states] == [Request.DISCARD]
