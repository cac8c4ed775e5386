"""What an owner gave luod is there after a live update, and until it says it has all that it needs."""

import fcntl
import os
from hashlib import sha256

import pytest

from luod.client import Mode
from luod.errors import RestoreUnavailable, SessionLost, SessionNotFound, WrongDirection
from memory import content, memfd, memfds


async def test_files_come_back_whole_with_their_tokens(host):
    with memfds(b"one", b"two", b"") as (one, two, empty):
        async with host.client() as luod:
            await luod.create("ram")
            await luod.preserve("ram", one, token=7, name="first")
            await luod.preserve("ram", two, token=2**63 - 1)
            await luod.preserve("ram", empty, token=0)
    await host.kexec()
    async with host.client() as luod:
        session = await luod.find("ram")
        assert session.direction == "incoming"
        assert session.generation == 1
        assert {file.token: (file.name, file.size) for file in session.files} == {
            7: ("first", 3),
            2**63 - 1: (None, 3),
            0: (None, 0),
        }
        back = await luod.retrieve("ram")
        assert {token: content(fd) for token, fd in back.items()} == {7: b"one", 2**63 - 1: b"two", 0: b""}
        for fd in back.values():
            fd.close()
        await luod.finish("ram")
        assert await luod.find("ram") is None


async def test_position_size_and_seals_come_back(host):
    with memfd(b"x" * 5000) as fd:
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        async with host.client() as luod:
            await luod.create("ram")
            await luod.preserve("ram", fd, token=1)
        os.lseek(fd.fileno(), 1234, os.SEEK_SET)
        await host.kexec()
    async with host.client() as luod:
        back = (await luod.retrieve("ram"))[1]
        with back:
            assert os.lseek(back.fileno(), 0, os.SEEK_CUR) == 1234
            assert os.fstat(back.fileno()).st_size == 5000
            assert fcntl.fcntl(back.fileno(), fcntl.F_GET_SEALS) == fcntl.F_SEAL_GROW


async def test_what_is_written_after_preserve_comes_back(host):
    with memfd(b"before") as fd:
        async with host.client() as luod:
            await luod.create("ram")
            await luod.preserve("ram", fd, token=1)
        os.pwrite(fd.fileno(), b"AFTER!", 0)
        await host.kexec()
    async with host.client() as luod:
        with (await luod.retrieve("ram"))[1] as back:
            assert content(back) == b"AFTER!"


async def test_a_rearmed_session_lives_through_two_updates(host):
    with memfd(b"persistent") as fd:
        async with host.client() as luod:
            await luod.create("ram", labels={"stage": "1"})
            await luod.preserve("ram", fd, token=5, name="cache")
    for generation in (1, 2, 3):
        await host.kexec()
        async with host.client() as luod:
            await luod.finish("ram", rearm=True)
            session = await luod.find("ram")
            assert (session.direction, session.generation, session.labels) == ("outgoing", generation, {"stage": "1"})
            with (await luod.retrieve("ram"))[5] as back:
                assert content(back) == b"persistent"


async def test_what_is_neither_finished_nor_rearmed_is_lost_at_the_next_update_and_said_to_be(host):
    with memfd() as fd:
        async with host.client() as luod:
            await luod.create("ram")
            await luod.preserve("ram", fd)
    await host.kexec()
    await host.kexec()
    async with host.client() as luod:
        with pytest.raises(SessionLost, match="dropped it"):
            await luod.retrieve("ram")
        assert "dropped it" in (await luod.list())[0].lost
        await luod.discard("ram")
        with pytest.raises(SessionNotFound):
            await luod.retrieve("ram")


async def test_retrieve_works_any_number_of_times_before_and_after(host):
    with memfd(b"again") as fd:
        async with host.client() as luod:
            await luod.create("ram")
            await luod.preserve("ram", fd, token=1)
    for _ in range(2):
        for _ in range(3):
            async with host.client() as luod:
                with (await luod.retrieve("ram"))[1] as back:
                    assert content(back) == b"again"
                assert (await luod.find("ram")).files[0].retrieved
        if (await _direction(host)) == "outgoing":
            await host.kexec()


async def _direction(host):
    async with host.client() as luod:
        return (await luod.find("ram")).direction


async def test_unpreserved_files_do_not_come_back(host):
    with memfds(b"keep", b"drop") as (keep, drop):
        async with host.client() as luod:
            await luod.create("ram")
            await luod.preserve("ram", keep, token=1)
            await luod.preserve("ram", drop, token=2)
            assert not await luod.unpreserve("ram", [2])
    await host.kexec()
    async with host.client() as luod:
        back = await luod.retrieve("ram")
        assert list(back) == [1]
        back[1].close()


async def test_a_delegated_session_is_its_clients_to_fill_and_to_empty(host):
    with memfds(b"guest", b"state") as (guest, state):
        async with host.client() as luod:
            _, session = await luod.create_delegated("vm")
            session.preserve_fd(guest.fileno(), 2**64 - 2)
            session.preserve_fd(state.fileno(), 3)
            session.give_up()  # luod has it still
        await host.kexec()
    async with host.client() as luod:
        assert (await luod.find("vm")).mode is Mode.DELEGATED
        session = await luod.claim("vm")
        with session.retrieve_fd(2**64 - 2) as back:
            assert content(back) == b"guest"
        session.give_up()
        await luod.finish("vm")
        assert await luod.list() == []


async def test_a_lent_session_keeps_living_when_luod_discards_it(host):
    async with host.client() as luod:
        _, session = await luod.create_delegated("vm")
        await luod.discard("vm")
    assert session.get_name().startswith("luod-")
    session.give_up()


async def test_a_first_boot_has_nothing_and_says_so(host):
    async with host.client() as luod:
        assert await luod.find("ram") is None
        with pytest.raises(SessionNotFound):
            await luod.retrieve("ram")


@pytest.mark.warns("this boot can't give anything back")
async def test_a_kernel_without_live_update_is_not_taken_for_a_first_boot(host):
    from errno import ENOENT

    await host.kexec(open_error=ENOENT)
    async with host.client() as luod:
        with pytest.raises(RestoreUnavailable, match="liveupdate=on"):
            await luod.find("ram")
        with pytest.raises(RestoreUnavailable):
            await luod.create("ram")
        assert (await luod.status()).phase == "unavailable"


@pytest.mark.warns("this boot can't give anything back")
async def test_a_kernel_that_cannot_read_what_came_over_is_not_taken_for_a_first_boot(host):
    from errno import EIO

    await host.kexec(open_error=EIO)
    async with host.client() as luod:
        with pytest.raises(RestoreUnavailable, match="can't be read"):
            await luod.retrieve("ram")


async def test_an_incoming_session_takes_nothing_new(host):
    with memfd() as fd:
        async with host.client() as luod:
            await luod.create("ram")
            await luod.preserve("ram", fd)
        await host.kexec()
        async with host.client() as luod:
            with pytest.raises(WrongDirection):
                await luod.preserve("ram", fd)
            with pytest.raises(WrongDirection):
                await luod.unpreserve("ram", [0])
            with pytest.raises(WrongDirection):
                await luod.discard("ram")


async def test_a_finished_file_can_be_preserved_again(host):
    with memfd(b"round") as fd:
        async with host.client() as luod:
            await luod.create("ram")
            await luod.preserve("ram", fd, token=1)
    for _ in range(2):
        await host.kexec()
        async with host.client() as luod:
            with (await luod.retrieve("ram"))[1] as back:
                await luod.finish("ram")
                await luod.create("ram")
                await luod.preserve("ram", back, token=1)
    async with host.client() as luod:
        with (await luod.retrieve("ram"))[1] as back:
            assert content(back) == b"round"


async def test_three_hundred_files_go_over_in_pages(host):
    made = [memfd(b"%d" % number) for number in range(300)]
    digests = {number: sha256(b"%d" % number).digest() for number in range(300)}
    async with host.client() as luod:
        await luod.create("many")
        for start in (0, 150):
            from luod.client import ToPreserve

            page = [ToPreserve(made[number], token=number) for number in range(start, start + 150)]
            await luod.preserve_all("many", page)
    for fd in made:
        fd.close()
    await host.kexec()
    async with host.client() as luod:
        back = await luod.retrieve("many")
        assert {token: sha256(content(fd)).digest() for token, fd in back.items()} == digests
        for fd in back.values():
            fd.close()
        await luod.finish("many")
