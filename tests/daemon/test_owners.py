"""Users are told apart by the kernel, and have nothing to do with each other's sessions."""

import os

from memory import content, memfd

from .conftest import acting_as

CUSTODY = "io.luod.Custody"
DENIED = "org.varlink.service.PermissionDenied"


def memfd_of(uid, text, directory):
    with acting_as(uid, directory):
        return memfd(text)


async def preserve(wire, fd, session="ram", **owner):
    parameters = {"session": session, "files": [{"fileDescriptorIndex": 0, "token": 1}], **owner}
    return await wire.call(f"{CUSTODY}.Preserve", parameters, [fd.fileno()])


async def test_two_users_have_sessions_of_the_same_name(host):
    for uid in (4242, 4243):
        async with host.wire_as(uid) as wire:
            reply = await wire.call(f"{CUSTODY}.Create", {"name": "ram"})
            assert (reply.parameters["session"]["uid"], reply.parameters["session"]["gid"]) == (uid, uid)
            with memfd_of(uid, b"%d" % uid, host.directory) as fd:
                assert (await preserve(wire, fd)).error is None
    async with host.client() as luod:
        assert sorted(session.uid for session in await luod.list(all_owners=True)) == [4242, 4243]
        assert await luod.list() == []
        with (await luod.retrieve("ram", owner=4243))[1] as back:
            assert content(back) == b"4243"


async def test_a_user_may_not_act_for_another(host):
    async with host.client() as luod:
        await luod.create("ram")
    async with host.wire_as(4242) as wire:
        for member, parameters in (
            ("Create", {"name": "mine", "owner": 0}),
            ("Retrieve", {"session": "ram", "owner": 0}),
            ("Discard", {"session": "ram", "owner": 0}),
            ("Finish", {"session": "ram", "owner": 0}),
            ("List", {"session": "ram", "owner": 0}),
        ):
            assert (await wire.call(f"{CUSTODY}.{member}", parameters)).error == DENIED
        for parameters in ({"all": True}, {"owner": 0}):
            assert (await wire.call(f"{CUSTODY}.List", parameters, more=True)).error == DENIED
        assert (await wire.call(f"{CUSTODY}.Watch", {"owner": 0}, more=True)).error == DENIED
        assert (await wire.call("io.luod.Update.Manifest", {})).error == DENIED
        assert (await wire.call("io.luod.Update.Status", {})).error is None


async def test_a_user_may_not_give_what_belongs_to_another(host):
    with memfd(b"root's") as fd:
        async with host.wire_as(4242) as wire:
            await wire.call(f"{CUSTODY}.Create", {"name": "ram"})
            reply = await preserve(wire, fd)
            assert reply.error == f"{CUSTODY}.NotPreservable"
            assert reply.parameters["reason"] == "it belongs to uid 0, not to uid 4242"


async def test_root_may_give_its_own_memory_for_another(host):
    with memfd(b"for you") as fd:
        async with host.wire() as wire:
            await wire.call(f"{CUSTODY}.Create", {"name": "ram", "owner": 4242})
            assert (await preserve(wire, fd, owner=4242)).error is None
    async with host.wire_as(4242) as wire:
        assert (await wire.call(f"{CUSTODY}.Retrieve", {"session": "ram"})).error is None
        assert wire.arrived == 1


async def test_a_user_gets_back_what_it_can_give_again(host):
    with memfd_of(4242, b"mine", host.directory) as fd:
        async with host.wire_as(4242) as wire:
            await wire.call(f"{CUSTODY}.Create", {"name": "ram"})
            assert (await preserve(wire, fd)).error is None
    await host.kexec()
    async with host.client() as luod:
        back = (await luod.retrieve("ram", owner=4242))[1]
    with back:
        status = os.fstat(back.fileno())
        assert (status.st_uid, status.st_gid) == (4242, 4242)
        async with host.wire_as(4242) as wire:
            assert (await wire.call(f"{CUSTODY}.Finish", {"session": "ram"})).error is None
            await wire.call(f"{CUSTODY}.Create", {"name": "again"})
            assert (await preserve(wire, back, session="again")).error is None


async def test_a_watcher_belongs_to_its_user(host):
    async with host.wire() as watching, host.wire_as(4242) as other:
        secret = (await watching.call(f"{CUSTODY}.Watch", {}, more=True)).parameters["watcher"]
        reply = await other.call(f"{CUSTODY}.Ready", {"update": 1, "watcher": secret})
        assert reply.parameters["parameter"] == "watcher"
