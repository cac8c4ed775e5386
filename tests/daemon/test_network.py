"""What luod holds of the network: one whole snapshot at any time, whoever dies, and the newest one back."""

import os
from functools import partial
from itertools import count

import pytest
import trio

from luod.client import connect
from luod.errors import KernelFailed
from luod.fds import FdBundle
from luod.kernel.api import Call
from luod.names import NETWORK_SESSIONS
from luod.network.handing import alone, coming, end_applied, held, put, read_report, write_report
from luod.network.model import BadSnapshot, Link, Snapshot
from luod.network.report import Report, Trouble
from memory import memfd

A, B = NETWORK_SESSIONS
TIMES = count(1)


def a_snapshot(name="br0"):
    """Each is newer than the one before."""
    link = Link(name=name, kind="bridge", mtu=1500, up=True)
    return Snapshot(taken=next(TIMES), boot_id="b", kernel="7.3", links=(link,))


class Killed(BaseException):
    """Whoever talks to luod is gone."""


class Dying:
    """A client of luod's that is killed at its nth call: before luod hears of it, or after it has done it."""

    def __init__(self, luod, nth, *, done):
        self._luod, self._left, self._done = luod, nth, done

    def __getattr__(self, name):
        def call(*arguments):
            self._left -= 1
            if self._left > 0:
                return getattr(self._luod, name)(*arguments)
            if self._left == 0 and self._done:
                got = getattr(self._luod, name)(*arguments)
                FdBundle(got.values() if isinstance(got, dict) else ()).close()
            raise Killed

        return call


async def ask(host, work, *arguments):
    """Do something with luod that blocks."""

    def run():
        with connect(host.socket) as luod:
            return work(luod, *arguments)

    return await trio.to_thread.run_sync(run)


async def there(host):
    """What luod holds: names, and the snapshots or why there is none."""
    return [(each.name, each.snapshot or each.reason) for each in await ask(host, held)]


async def preserve(host, name, content):
    async with host.client() as luod:
        await luod.create(name)
        with memfd(content) as fd:
            await luod.preserve(name, fd, 0)


async def come_over(host):
    """What is there comes over with a live update."""
    await host.kexec()


async def carried_over(host):
    """What is there came over, and luod has preserved it for the next live update: nobody came for it."""
    host.settings = {"carry_over_seconds": 0.01}
    await host.kexec()
    while not await ask(host, _is_carried_over):  # noqa: ASYNC110 - what is waited for tells nobody
        await trio.sleep(0.001)


def _is_carried_over(luod):
    return all(session.carried_over for session in luod.list())


async def stay(host):
    """What is there is for the next kernel."""


STATES = pytest.mark.parametrize("state", [stay, come_over, carried_over])


@pytest.mark.parametrize("state", [stay, come_over, carried_over])
async def test_a_new_one_takes_the_place_of_the_old_one_in_any_state(host, state):
    old, new = a_snapshot(), a_snapshot()
    assert await ask(host, put, old) == (A, len(old.encode()), [])
    await state(host)
    assert await there(host) == [(A, old)]
    assert await ask(host, put, new) == (B, len(new.encode()), [])
    assert await there(host) == [(B, new)]
    await host.kexec()
    assert await there(host) == [(B, new)]


async def test_it_goes_from_kernel_to_kernel_if_nobody_finishes_it(host):
    one = a_snapshot()
    await ask(host, put, one)
    for _ in range(3):
        await carried_over(host)
        assert await there(host) == [(A, one)]


async def test_the_memory_has_exactly_the_snapshot_in_it(host):
    one = a_snapshot("x" * 15)
    await ask(host, put, one)
    async with host.client() as luod:
        (session,) = await luod.list()
        assert [(file.token, file.name, file.size) for file in session.files] == [(0, "network", len(one.encode()))]
        with (await luod.retrieve(A))[0] as fd:
            status = os.fstat(fd.fileno())
            assert os.pread(fd.fileno(), status.st_size + 1, 0) == one.encode()
            assert status.st_blocks * 512 >= status.st_size


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", range(1, 7))
@STATES
async def test_whoever_is_killed_at_any_call_leaves_a_whole_one_and_the_next_cleans_up(host, state, nth, done):
    old, new, third = a_snapshot(), a_snapshot(), a_snapshot()
    await ask(host, put, old)
    await state(host)

    def killed(luod):
        put(Dying(luod, nth, done=done), new)

    calls = ("list", "retrieve", "create", "preserve", "discard or finish")
    if nth > len(calls):
        await ask(host, killed)
    else:
        with pytest.raises(Killed):
            await ask(host, killed)
    whole = [snapshot for _, snapshot in await there(host) if isinstance(snapshot, Snapshot)]
    assert whole[0] in (old, new)
    if state is stay:
        await host.kexec()
        assert (await there(host))[0][1] == whole[0]
    assert (await ask(host, put, third)).unread == []
    assert [snapshot for _, snapshot in await there(host)] == [third]


@pytest.mark.parametrize("call", [Call.CREATE_SESSION, Call.PRESERVE_FD])
async def test_where_the_kernel_refuses_the_new_one_the_old_one_stays(host, call):
    old = a_snapshot()
    await ask(host, put, old)
    host.control.fault(call, 12)
    with pytest.raises(KernelFailed):
        await ask(host, put, a_snapshot())
    assert await there(host) == [(A, old)]


async def test_of_two_whole_ones_the_newer_one_counts_whatever_its_name(host):
    newer, older = None, a_snapshot()
    newer = a_snapshot()
    await preserve(host, A, newer.encode())
    await preserve(host, B, older.encode())
    assert await there(host) == [(A, newer), (B, older)]
    newest = a_snapshot()
    assert await ask(host, put, newest) == (B, len(newest.encode()), [])
    assert await there(host) == [(B, newest)]


UNREADABLE = {
    b"[": "it is no JSON",
    b'{"version": 7}': "it is of version 7, and this luod reads version 1",
    b'{"version": 1, "taken": "noon"}': "taken: Input should be a valid number",
}


@pytest.mark.parametrize("content", UNREADABLE)
async def test_what_cannot_be_read_is_told_and_not_lost_in_silence(host, content):
    await preserve(host, A, content)
    ((name, reason),) = await there(host)
    assert (name, reason.startswith(UNREADABLE[content])) == (A, True)
    new = a_snapshot()
    name, _, discarded = await ask(host, put, new)
    assert (name, [each.name for each in discarded]) == (B, [A])
    assert await there(host) == [(B, new)]


async def test_one_whose_memory_is_damaged_is_told_and_never_read(host):
    old, new = a_snapshot(), a_snapshot()
    await ask(host, put, new)
    await preserve(host, B, old.encode())
    async with host.client() as luod:
        with (await luod.retrieve(A))[0] as fd:
            assert os.pwrite(fd.fileno(), b"1", new.encode().index(b"br0") + 2) == 1
    assert await there(host) == [(B, old), (A, "it isn't what was written into it")]


async def test_the_older_one_counts_where_the_newer_one_cannot_be_read(host):
    old = a_snapshot()
    await preserve(host, B, old.encode())
    await preserve(host, A, b"{")
    assert (await there(host))[0] == (B, old)
    new = a_snapshot()
    name, _, discarded = await ask(host, put, new)
    assert (name, [each.name for each in discarded]) == (A, [A])
    assert await there(host) == [(A, new)]


async def test_a_session_of_that_name_without_a_snapshot_is_told(host):
    async with host.client() as luod:
        await luod.create(A)
        _, lent = await luod.create_delegated(B)
        lent.give_up()
    told = dict(await there(host))
    assert told[A] == "nothing was written into it"
    assert "delegated" in told[B]
    await ask(host, put, a_snapshot())
    assert len(await there(host)) == 1


async def test_a_lost_one_is_told_and_its_name_used_again(host):
    await ask(host, put, a_snapshot())
    await host.kexec()
    await host.kexec()  # the kernel drops what came over and was not carried over
    ((name, reason),) = await there(host)
    assert (name, reason.startswith("it is lost: ")) == (A, True)
    await ask(host, put, a_snapshot())
    assert [isinstance(snapshot, Snapshot) for _, snapshot in await there(host)] == [True]


async def test_one_that_was_applied_ends_with_all_that_is_older(host):
    old, applied = a_snapshot(), a_snapshot()
    await preserve(host, A, old.encode())
    await preserve(host, B, applied.encode())
    await host.kexec()
    newest = (await ask(host, held))[0]
    assert newest.snapshot == applied
    await ask(host, end_applied, newest)
    assert await there(host) == []


async def test_one_that_was_taken_since_stays_when_an_older_one_was_applied(host):
    await ask(host, put, a_snapshot())
    await host.kexec()
    applied = (await ask(host, held))[0]
    taken = a_snapshot()
    await ask(host, put, taken)
    await ask(host, end_applied, applied)
    assert await there(host) == [(B, taken)]


async def test_what_came_over_counts_though_a_newer_one_is_beside_it(host):
    """Whoever took that was killed before the older one was gone."""
    old, new = a_snapshot(), a_snapshot()
    await ask(host, put, old)
    await host.kexec()
    await preserve(host, B, new.encode())
    came = await ask(host, partial(coming, same_boot=False))
    assert (came.newest.name, came.newest.snapshot) == (A, old)
    came = await ask(host, partial(coming, same_boot=True))
    assert (came.newest.name, came.newest.snapshot) == (B, new)


async def test_other_users_have_their_own(host):
    one = a_snapshot()
    await ask(host, put, one)
    async with host.client() as luod:
        await luod.create(A, owner=1000)
    assert await there(host) == [(A, one)]


def test_those_who_change_it_wait_for_each_other(tmp_path):
    with alone(tmp_path):
        assert (tmp_path / "network.lock").stat().st_mode & 0o777 == 0o600
    with alone(tmp_path / "nowhere"):
        pass


def test_a_report_comes_back_as_it_was_written(tmp_path):
    assert read_report(tmp_path) is None
    report = Report(taken=1, applied=2, seconds=0.5, done=3, equal=4, failed=(Trouble(what="link x", reason="no"),))
    write_report(tmp_path, report)
    assert read_report(tmp_path) == report
    assert [path.name for path in tmp_path.iterdir()] == ["network.json"]
    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(BadSnapshot, match="is no report"):
        read_report(tmp_path)


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "network.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_report(tmp_path, Report(applied=2, seconds=0.5, done=3, equal=4))
    assert [path.name for path in tmp_path.iterdir()] == ["network.json"]
