"""luod killed by SIGKILL, for real: at every side effect of every request, and at any moment under load."""

import os
import random
import threading
from contextlib import contextmanager, suppress

import pytest

from eventually import within
from luod.client import Disconnected, connect
from luod.errors import WireError
from luod.flight import NAME as FLIGHT
from luod.sim.image import bzimage
from memory import content, memfds
from survivor import survivor, unborn
from wanderer import Wanderer, wandering


@pytest.fixture
def luod(sim, tmp_path):
    with survivor(sim.path, tmp_path / "luod") as luod:
        yield luod


def everything(luod):
    """What Retrieve gives back of each session, or the error that it gives."""
    found = {}
    with connect(luod.socket) as client:
        for session in client.list():
            try:
                files = client.retrieve(session.name)
            except WireError as error:
                found[session.name] = type(error).__name__
                continue
            found[session.name] = {token: content(fd) for token, fd in files.items()}
            for fd in files.values():
                fd.close()
    return found


def preserve(client, name, contents):
    with memfds(*contents.values()) as files:
        for token, fd in zip(contents, files, strict=True):
            client.preserve(name, fd, token)


def set_up(client):
    """A session with two files, and one that is untouched."""
    for name, contents in BEFORE.items():
        client.create(name)
        preserve(client, name, contents)


BEFORE = {"ram": {0: b"one", 1: b"two"}, "other": {0: b"x"}}
WITHOUT = {"other": {0: b"x"}}

OUTGOING = {
    "create": (
        lambda client: client.create("new"),
        BEFORE | {"new": {}},
        ["CREATE_SESSION", "FDSTORE", "journal: session", "reply"],
    ),
    "preserve": (
        lambda client: preserve(client, "ram", {4: b"four"}),
        BEFORE | {"ram": BEFORE["ram"] | {4: b"four"}},
        ["journal: intended", "PRESERVE_FD", "bag", "journal: held", "reply"],
    ),
    "preserve the first": (
        lambda client: preserve(client, "empty", {4: b"four"}),
        BEFORE | {"empty": {4: b"four"}},
        ["journal: intended", "PRESERVE_FD", "bag", "FDSTORE", "journal: held", "reply"],
    ),
    "unpreserve": (
        lambda client: client.unpreserve("ram", [0]),
        BEFORE | {"ram": {1: b"two"}},
        ["journal: dropped", "reply"],
    ),
    "unpreserve all": (
        lambda client: client.unpreserve("ram", [0, 1]),
        BEFORE | {"ram": {}},
        [
            *("journal: dropped", "BARRIER", "CREATE_SESSION", "FDSTORE", "journal: renewing", "FDSTOREREMOVE"),
            *("close", "journal: renewed", "reply"),
        ],
    ),
    "discard": (
        lambda client: client.discard("ram"),
        WITHOUT,
        ["journal: gone", "FDSTOREREMOVE", "BARRIER", "close", "reply"],
    ),
    "retrieve": (lambda client: retrieved(client, "ram"), BEFORE, ["journal: retrieved", "reply"]),
}
INCOMING = {
    "retrieve": (
        lambda client: retrieved(client, "ram"),
        BEFORE,
        ["RETRIEVE_SESSION", "FDSTORE", "RETRIEVE_FD", "journal: retrieved", "reply"],
    ),
    "finish": (
        lambda client: client.finish("ram"),
        WITHOUT,
        [
            *("RETRIEVE_SESSION", "FDSTORE", "journal: finishing", "FINISH", "FDSTOREREMOVE", "close", "journal: gone"),
            "reply",
        ],
    ),
    "rearm": (
        lambda client: client.finish("ram", rearm=True),
        BEFORE,
        [
            *("RETRIEVE_SESSION", "FDSTORE", "RETRIEVE_FD", "bag", "BARRIER", "CREATE_SESSION", "journal: renewing"),
            *("FINISH", "PRESERVE_FD", "FDSTOREREMOVE", "close", "journal: renewed", "reply"),
        ],
    ),
}
CARRIED_OVER = INCOMING["rearm"][2][:-1]
"""What luod does at a shutdown with what nobody has come for: the same as a rearm, but for the reply."""

EXPOSED = {("retrieve", "RETRIEVE_SESSION"), ("finish", "RETRIEVE_SESSION"), ("rearm", "RETRIEVE_SESSION")}
"""Where the descriptor of a session that came over is nowhere but in luod: its close finishes the session."""


def retrieved(client, name):
    for fd in client.retrieve(name).values():
        fd.close()


def points(requests):
    return [pytest.param(what, point, id=f"{what} - {point}") for what in requests for point in requests[what][2]]


def killed_at(luod, point, request):
    """Have luod die in a request, and not in what it does once when it has begun to serve: Status waits for that."""
    with connect(luod.socket) as client:
        client.status()
    before = luod.pid()
    luod.plan.die_at(point)
    request()
    within(20, lambda: luod.pid() not in (None, before))
    assert luod.plan.point == ""


def of_who_waits(luod, act):
    """A request of a client that waits for luod to come back: luod's death is nothing that it notices."""

    def request():
        with connect(luod.socket) as client:
            act(client)

    return request


def of_who_gives_up(luod, act):
    """A request of a client that doesn't wait: nobody answers it."""

    def request():
        with connect(luod.socket, patience=0) as client, pytest.raises(Disconnected):
            act(client)

    return request


clients = pytest.mark.parametrize("client", [of_who_waits, of_who_gives_up])


@clients
@pytest.mark.parametrize(("what", "point"), points(OUTGOING))
def test_a_kill_at_any_point_finds_a_request_done_or_not_begun(luod, sim, what, point, client):
    act, after, _ = OUTGOING[what]
    before = dict(BEFORE)
    with connect(luod.socket) as owner:
        set_up(owner)
        if what == "preserve the first":
            owner.create("empty")
            before["empty"] = {}
    killed_at(luod, point, client(luod, act))
    found = everything(luod)
    assert found == after or (found == before and client is of_who_gives_up)
    assert unclear(luod) == []
    next_kernel(luod, sim)
    assert everything(luod) == found


@clients
@pytest.mark.parametrize(("what", "point"), points(INCOMING))
def test_a_kill_at_any_point_of_what_is_done_to_what_came_over(luod, sim, what, point, client):
    act, after, _ = INCOMING[what]
    with connect(luod.socket) as owner:
        set_up(owner)
    next_kernel(luod, sim)
    if (what, point) in EXPOSED:
        killed_at(luod, point, of_who_gives_up(luod, act))
        assert everything(luod) == BEFORE | {"ram": "SessionLost"}
        return
    killed_at(luod, point, client(luod, act))
    found = everything(luod)
    assert found == after or (found == BEFORE and client is of_who_gives_up)
    assert unclear(luod) == []
    with connect(luod.socket) as owner:
        for session in owner.list():
            if session.direction == "incoming":
                owner.finish(session.name, rearm=True)
    next_kernel(luod, sim)
    assert everything(luod) == found


@pytest.mark.parametrize("point", CARRIED_OVER)
def test_a_kill_at_any_point_of_carrying_over_loses_nothing(luod, sim, point):
    with connect(luod.socket) as owner:
        owner.create("ram")
        preserve(owner, "ram", BEFORE["ram"])
    next_kernel(luod, sim)
    killed_at(luod, point, luod.upgrade)
    if point == "RETRIEVE_SESSION":
        assert everything(luod) == {"ram": "SessionLost"}
        return
    assert everything(luod) == {"ram": BEFORE["ram"]}
    before = luod.pid()
    luod.upgrade()
    within(20, lambda: luod.pid() not in (None, before))
    assert unclear(luod) == []
    next_kernel(luod, sim)
    assert everything(luod) == {"ram": BEFORE["ram"]}


def unclear(luod):
    with connect(luod.socket) as client:
        return client.status().fd_store["unclear"]


def next_kernel(luod, sim):
    sim.kexec()
    luod.power_off()
    luod.start()


# A live update


LINE = "liveupdate=on kho=on"
OLD, NEW = "7.3.4-simulated", "7.4.0-simulated"

LOAD = ["FDSTORE", "journal: kernel", "KEXEC_LOAD", "FDSTOREREMOVE", "BARRIER", "reply"]
UPDATE = [
    *("reply", "note: prepare", "step: all are ready", "note: carried", "KEXEC_LOAD", "note: loaded", "note: frozen"),
    *("seal", "note: sealed", "step: seal", "step: execute", "note: leaving"),
]
CARRYING = [f"step: all are ready > {point}" for point in CARRIED_OVER if point != "RETRIEVE_SESSION"]
RECORDER = [
    *("flight: read > CREATE_SESSION", "flight: read > PRESERVE_FD", "flight: read > FDSTORE", "flight: made"),
    "flight: begun",
]
RECORDER_AFTER = [
    *(
        "flight: retrieved",
        *RECORDER,
        "flight: made > FINISH",
        "flight: made > FDSTOREREMOVE",
        "flight: made > BARRIER",
    ),
    "flight: made > close",
]


def load(luod, release=OLD):
    with memfds(bzimage(release=release)) as (fd,), connect(luod.socket, patience=0) as client:
        return client.load_kernel(fd, command_line=LINE)


def status(luod):
    with connect(luod.socket) as client:
        return client.status()


def begin(luod):
    """Update, until luod ends in it."""
    with connect(luod.socket) as client, pytest.raises(Disconnected), client.update() as steps:
        for _ in steps:
            pass


@contextmanager
def taking_part(luod, told):
    """Somebody who is always ready; what it was told is added to `told`."""

    def watch():
        with connect(luod.socket) as client, client.watch(["ram"], participate=True) as events:
            for event in events:
                told.append(event.event)
                if event.event == "prepare":
                    with suppress(WireError, Disconnected):  # then luod ended in it, or has started anew
                        client.ready(event)
                if over.is_set():
                    return

    over = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    within(20, lambda: "watching" in told)
    try:
        yield
    finally:
        over.set()
        luod.upgrade()  # which is an event
        thread.join()


def goes_over(luod, sim, expected, release=OLD):
    """Whether a live update succeeds now, into that kernel, and everything is there after it."""
    assert status(luod).image["release"] == release
    boot = sim.state().boot_id
    begin(luod)
    assert sim.state().boot_id != boot
    luod.power_off()
    luod.start()
    assert everything(luod) == expected
    assert unclear(luod) == []


@pytest.mark.parametrize("point", LOAD)
def test_a_kill_at_any_point_of_a_load_leaves_one_kernel_that_can_be_gone_into(luod, sim, point):
    with connect(luod.socket) as owner:
        set_up(owner)
    load(luod)
    entries = status(luod).fd_store["entries"]

    def again():
        with pytest.raises(Disconnected):
            load(luod, NEW)

    killed_at(luod, point, again)
    after = status(luod)
    assert (after.fd_store["entries"], after.fd_store["unclear"]) == (entries, [])
    goes_over(luod, sim, BEFORE, after.image["release"])


@pytest.mark.parametrize("point", UPDATE)
def test_a_kill_at_any_point_of_a_live_update_leaves_all_as_it_was(luod, sim, point):
    told = []
    with connect(luod.socket) as owner:
        set_up(owner)
    load(luod)
    entries = status(luod).fd_store["entries"]
    with taking_part(luod, told):
        killed_at(luod, point, lambda: begin(luod))
        within(20, lambda: told[-1] == "watching")
        after = status(luod)
        assert (after.phase, after.fd_store["unclear"]) == ("idle", [])
        assert everything(luod) == BEFORE
        within(20, lambda: status(luod).fd_store["entries"] == entries)
        with connect(luod.socket) as owner:
            preserve(owner, "ram", {9: b"nine"})
        goes_over(luod, sim, BEFORE | {"ram": BEFORE["ram"] | {9: b"nine"}})


@pytest.mark.parametrize("point", CARRYING)
def test_a_kill_at_any_point_of_carrying_over_in_a_live_update_loses_nothing(luod, sim, point):
    with connect(luod.socket) as owner:
        set_up(owner)
    next_kernel(luod, sim)
    load(luod)
    killed_at(luod, point, lambda: begin(luod))
    assert unclear(luod) == []
    goes_over(luod, sim, BEFORE)


def recorders(sim):
    """The sessions in which the kernel has a flight recorder's memory, and which way they go."""
    return [(session.direction, len(session.files)) for session in sim.state().sessions if session.name == FLIGHT]


def dies_as_it_begins(luod, point):
    """Have the luod that is about to start die in what it does once it serves."""
    luod.plan.die_at(point)
    luod.start()
    within(20, lambda: luod.plan.point == "")
    assert status(luod).fd_store["unclear"] == []


@pytest.mark.parametrize("point", RECORDER)
def test_a_kill_at_any_point_of_the_first_flight_recorder_leaves_one(sim, tmp_path, point):
    with unborn(sim.path, tmp_path / "luod") as luod:
        dies_as_it_begins(luod, point)
        assert recorders(sim) == [("outgoing", 1)]
        status(luod)
        before = status(luod).fd_store["entries"]
        load(luod)
        begin(luod)
        luod.power_off()
        luod.start()
        with connect(luod.socket) as client:
            assert client.timeline().generations == [1]
        assert status(luod).fd_store["entries"] == before


@pytest.mark.parametrize("point", RECORDER_AFTER)
def test_a_kill_at_any_point_of_the_flight_recorder_after_a_live_update_loses_nothing_of_it(luod, sim, point):
    status(luod)
    before = status(luod).fd_store["entries"]
    load(luod)
    begin(luod)
    luod.power_off()
    dies_as_it_begins(luod, point)
    with connect(luod.socket) as client:
        timeline = client.timeline()
    assert timeline.generations == [1]
    assert {"prepare", "leaving", "kernel", "serving"} <= {event["what"] for event in timeline.events}
    assert recorders(sim) == [("outgoing", 1)]
    assert status(luod).fd_store["entries"] == before


# At any moment, under load


KILLS = int(os.environ.get("LUOD_KILLS", "40"))


def kills(luod, stop, chance):
    for _ in range(KILLS // 2):
        within(30, lambda: luod.pid() is not None)
        stop.wait(chance.uniform(0, 0.6))
        luod.kill()


def upgrades(luod, stop, chance):
    for _ in range(6):
        before = luod.pid()
        stop.wait(chance.uniform(0, 0.6))
        luod.upgrade()
        within(30, lambda before=before: luod.pid() not in (None, before))


@pytest.mark.parametrize("troubles", [kills, upgrades])
def test_whatever_comes_at_any_moment_nothing_acknowledged_is_lost(luod, sim, troubles):
    wanderers = [Wanderer(luod, number) for number in range(20)]
    chance = random.Random(KILLS)
    for update in (False, True):
        with wandering(wanderers) as stop:
            troubles(luod, stop, chance)
        with connect(luod.socket) as client:
            for each in wanderers:
                each.look(client)
            status = client.status()
            sessions = client.list()
        assert status.fd_store["unclear"] == []
        assert status.sessions == len(sessions)
        if not update:
            next_kernel(luod, sim)
            for each in wanderers:
                each.exposed = set(each.sure)
    print(f"{luod.deaths} kills, {sum(each.done for each in wanderers)} requests answered")
    assert sum(each.lost for each in wanderers) <= (KILLS // 10 if troubles is kills else 0)
