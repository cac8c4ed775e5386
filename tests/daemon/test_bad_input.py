"""Whatever a client sends: it is told what was wrong, nothing is lost or leaked, and nobody else notices."""

import os
import resource
import socket
from contextlib import ExitStack, suppress

import pytest
import trio

from bystander import unharmed
from leftovers import open_descriptors
from luod import daemon
from luod.fds import OwnedFd
from luod.varlink.messages import Call
from memory import content, memfd

INVALID = "org.varlink.service.InvalidParameter"
CUSTODY = "io.luod.Custody"


def call(member, **parameters):
    return Call(f"{CUSTODY}.{member}", parameters).encode()


def preserve(*files):
    return call("Preserve", session="ram", files=list(files))


def file(index=0, **more):
    return {"fileDescriptorIndex": index, **more}


BROKEN = {
    "broken JSON": (b'{"method": \0', "is not JSON"),
    "not an object": (b'["io.luod.Custody.List"]\0', "not a JSON object"),
    "nothing": (b"\0", "is empty"),
    "not UTF-8": (b'{"method":"\xff"}\0', "UTF-8"),
    "33 levels": (b'{"method":"x.y.Z","parameters":{"a":' + b"[" * 31 + b"]" * 31 + b"}}\0", "deeper than 32"),
    "a million levels": (b"[" * (1 << 20) + b"[", "longer than"),
    "over 1 MiB": (b'{"method":"' + b"x" * (1 << 20) + b'"}\0', "longer than 1048576"),
    "no method": (b'{"parameters":{}}\0', "has no method"),
    "two flags": (b'{"method":"a.b.C","more":true,"oneway":true}\0', "more and oneway"),
    "an unknown member": (b'{"method":"a.b.C","moer":true}\0', "'moer'"),
    "NaN": (b'{"method":"a.b.C","parameters":{"a":NaN}}\0', "not finite"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_message_that_is_no_varlink_is_answered_and_ends_the_connection(host, what):
    data, reason = BROKEN[what]
    async with unharmed(host), host.wire() as wire:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_while_it_is_read, wire, data)
            reply = await wire.reply()
        assert reply.error == INVALID
        assert reply.parameters["parameter"] == "message"
        assert reason in reply.parameters["reason"]
        assert await wire.is_ended()


async def _send_while_it_is_read(wire, data):
    with suppress(BrokenPipeError):
        await wire.send(data)


PARAMETERS = {
    "a name with a slash": (call("Create", name="a/b"), "name"),
    "a name with NUL": (call("Create", name="a\0b"), "name"),
    "a name with a line break": (call("Create", name="ab\n"), "name"),
    "a name of 64 bytes": (call("Create", name="a" * 64), "name"),
    "a name of 49 bytes": (call("Create", name="a" * 49), "name"),
    "an empty name": (call("Create", name=""), "name"),
    "a leading dot": (call("Create", name=".hidden"), "name"),
    "a name that is no string": (call("Create", name=7), "name"),
    "no name": (call("Create"), "name"),
    "an unknown mode": (call("Create", name="a", mode="shared"), "mode"),
    "an unknown parameter": (call("Create", name="a", colour="red"), "colour"),
    "labels with a bad key": (call("Create", name="a", labels={"": "x"}), "labels"),
    "no tokens": (call("Unpreserve", session="ram", tokens=[]), "tokens"),
    "a token that is text": (call("Retrieve", session="ram", tokens=["1"]), "tokens[0]"),
    "a token that is a boolean": (call("Retrieve", session="ram", tokens=[True]), "tokens[0]"),
    "a token below 0": (call("Retrieve", session="ram", tokens=[0, -1]), "tokens[1]"),
    "a negative owner": (call("List", owner=-1), "owner"),
    "a stranger's watcher": (call("Ready", update=1, watcher="guess"), "watcher"),
}


@pytest.mark.parametrize("what", PARAMETERS)
async def test_a_wrong_parameter_is_named_and_the_connection_goes_on(host, what):
    data, parameter = PARAMETERS[what]
    async with unharmed(host), host.wire() as wire:
        await wire.send(data)
        reply = await wire.reply()
        assert (reply.error, reply.parameters["parameter"]) == (INVALID, parameter)
        assert (await wire.call(f"{CUSTODY}.List", {"session": "ram"})).error is None


TOKENS = {
    "below 0": (file(token=-1), INVALID, "files[0].token"),
    "above 2^63-1": (file(token=2**63), INVALID, "files[0].token"),
    "too long a name": (file(name="x" * 65), INVALID, "files[0].name"),
    "a name with a control character": (file(name="a\x1b[31m"), INVALID, "files[0].name"),
    "an unknown member": (file(tokne=1), INVALID, "files[0].tokne"),
}


@pytest.mark.parametrize("what", TOKENS)
async def test_a_file_that_is_described_wrongly_is_closed(host, what):
    described, error, parameter = TOKENS[what]
    async with unharmed(host), host.wire() as wire:
        with memfd() as fd:
            await wire.send(preserve(described), [fd.fileno()])
            reply = await wire.reply()
            assert (reply.error, reply.parameters["parameter"]) == (error, parameter)
            assert (await wire.call(f"{CUSTODY}.List", {"session": "ram"})).error is None


BINDING = {
    "an index without its descriptor": ([file(0)], 0, "files[0].fileDescriptorIndex"),
    "an index too many": ([file(0), file(1)], 1, "files[1].fileDescriptorIndex"),
    "an index twice": ([file(0), file(0)], 2, "files[1].fileDescriptorIndex"),
    "a gap": ([file(0), file(2)], 3, "files[1].fileDescriptorIndex"),
    "a negative index": ([file(-1)], 1, "files[0].fileDescriptorIndex"),
    "an index that is text": ([file("0")], 1, "files[0].fileDescriptorIndex"),
    "no index": ([{"token": 1}], 1, "message"),
    "a descriptor too many": ([file(0)], 2, "message"),
    "254 indexes": ([file(index) for index in range(254)], 253, "files[253].fileDescriptorIndex"),
}


@pytest.mark.parametrize("what", BINDING)
async def test_descriptors_that_do_not_fit_their_indexes_end_the_connection(host, what):
    files, count, parameter = BINDING[what]
    async with unharmed(host), host.wire() as wire:
        with memfd() as fd:
            await wire.send(preserve(*files), [fd.fileno()] * count)
            reply = await wire.reply()
        assert (reply.error, reply.parameters["parameter"]) == (INVALID, parameter)
        assert await wire.is_ended()


async def test_descriptors_for_a_method_that_takes_none_end_the_connection(host):
    async with unharmed(host), host.wire() as wire:
        with memfd() as fd:
            await wire.send(call("List", session="ram"), [fd.fileno()])
        reply = await wire.reply()
        assert (reply.error, reply.parameters["parameter"]) == (INVALID, "message")
        assert await wire.is_ended()


async def test_a_descriptor_that_a_method_does_not_know_is_closed(host):
    async with unharmed(host), host.wire() as wire:
        with memfd() as fd:
            await wire.send(call("List", session="ram", fileDescriptorIndex=0), [fd.fileno()])
        reply = await wire.reply()
        assert (reply.error, reply.parameters["parameter"]) == (INVALID, "fileDescriptorIndex")


async def test_254_descriptors_are_refused_by_the_kernel_and_253_are_taken(host):
    with ExitStack() as stack:
        many = [stack.enter_context(memfd()) for _ in range(254)]
        async with host.wire() as wire:
            await wire.call(f"{CUSTODY}.Create", {"name": "ram"})
            with pytest.raises(OSError, match="Invalid argument"):
                await wire.send(preserve(file(0)), [fd.fileno() for fd in many])
            files = [file(index) for index in range(253)]
            await wire.send(preserve(*files), [fd.fileno() for fd in many[:253]])
            assert len((await wire.reply()).parameters["files"]) == 253


async def test_descriptors_spread_over_two_sends_are_not_one_message(host):
    async with unharmed(host), host.wire() as wire:
        data = preserve(file(0), file(1))
        with memfd() as fd:
            await wire.send(data[:20], [fd.fileno()])
            await wire.send(data[20:], [fd.fileno()])
        assert (await wire.reply()).error == INVALID
        assert await wire.is_ended()


async def test_descriptors_that_find_no_room_in_luod_are_told_and_end_the_connection(host, monkeypatch):
    monkeypatch.setattr(daemon, "_COPY_PAUSE", 3600)  # the readable copy takes a descriptor, too
    await host.reboot()
    async with unharmed(host), host.wire() as wire:
        with ExitStack() as stack:
            many = [stack.enter_context(memfd()) for _ in range(50)]
            assert (await wire.call(f"{CUSTODY}.List", {"session": "ram"})).error is None  # it was accepted
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(open_descriptors()) + 10, limits[1]))
            try:
                files = [file(index) for index in range(50)]
                await wire.send(preserve(*files), [fd.fileno() for fd in many])
                reply = await wire.reply()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (reply.error, reply.parameters["quota"]) == (f"{CUSTODY}.QuotaExceeded", "descriptors")
        assert await wire.is_ended()


def a_pipe(stack):
    _read, write = (stack.enter_context(OwnedFd(fd)) for fd in os.pipe2(os.O_CLOEXEC))
    return write.fileno()


def a_directory(stack):
    return stack.enter_context(OwnedFd(os.open("/", os.O_RDONLY | os.O_CLOEXEC))).fileno()


def a_path(stack):
    return stack.enter_context(OwnedFd(os.open("/proc/self/exe", os.O_PATH | os.O_CLOEXEC))).fileno()


def a_tcp_socket(stack):
    return stack.enter_context(socket.socket()).fileno()


def a_read_only_memfd(stack):
    fd = stack.enter_context(memfd())
    return stack.enter_context(OwnedFd(os.open(f"/proc/self/fd/{fd.fileno()}", os.O_RDONLY | os.O_CLOEXEC))).fileno()


def a_write_only_memfd(stack):
    fd = stack.enter_context(memfd())
    return stack.enter_context(OwnedFd(os.open(f"/proc/self/fd/{fd.fileno()}", os.O_WRONLY | os.O_CLOEXEC))).fileno()


def a_sparse_memfd(stack):
    fd = stack.enter_context(memfd())
    os.truncate(fd.fileno(), 1 << 40)
    return fd.fileno()


def a_memfd_of_another_user(stack):
    fd = stack.enter_context(memfd())
    os.fchown(fd.fileno(), 4242, -1)
    return fd.fileno()


UNWELCOME = {
    a_pipe: "not a memfd",
    a_directory: "not a memfd",
    a_path: "not a memfd",
    a_tcp_socket: "not a memfd",
    a_read_only_memfd: "not open for reading and writing",
    a_write_only_memfd: "not open for reading and writing",
    a_sparse_memfd: "fallocate it first",
    a_memfd_of_another_user: "belongs to uid 4242",
}


@pytest.mark.parametrize("unwelcome", UNWELCOME, ids=lambda make: make.__name__)
async def test_a_descriptor_that_luod_does_not_keep_is_refused_with_the_reason_and_nothing_is_preserved(
    host, unwelcome
):
    if unwelcome is a_memfd_of_another_user and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    async with unharmed(host), host.wire() as wire:
        with ExitStack() as stack:
            good = stack.enter_context(memfd()).fileno()
            await wire.send(preserve(file(0), file(1)), [good, unwelcome(stack)])
            reply = await wire.reply()
            assert reply.error == f"{CUSTODY}.NotPreservable"
            assert reply.parameters["fileDescriptorIndex"] == 1
            assert UNWELCOME[unwelcome] in reply.parameters["reason"]
            await wire.send(preserve(file(0)), [good])  # nothing of the first was left behind
            assert (await wire.reply()).error is None
            await wire.call(f"{CUSTODY}.Unpreserve", {"session": "ram", "tokens": [0]})


async def test_the_same_memfd_twice_is_refused(host):
    async with unharmed(host), host.wire() as wire:
        with memfd() as fd, fd.duplicate() as again:
            await wire.send(preserve(file(0), file(1)), [fd.fileno(), again.fileno()])
            reply = await wire.reply()
        assert (reply.error, reply.parameters) == (f"{CUSTODY}.AlreadyPreserved", {"fileDescriptorIndex": 1})


async def test_a_memfd_in_another_session_is_refused(host):
    async with unharmed(host), host.wire() as wire:
        with memfd() as fd:
            await wire.call(f"{CUSTODY}.Create", {"name": "other"})
            await wire.send(call("Preserve", session="other", files=[file(0)]), [fd.fileno()])
            assert (await wire.reply()).error is None
            await wire.send(preserve(file(0)), [fd.fileno()])
            reply = await wire.reply()
            assert (reply.error, reply.parameters) == (f"{CUSTODY}.AlreadyPreserved", {"fileDescriptorIndex": 0})
        await wire.call(f"{CUSTODY}.Discard", {"session": "other"})


async def test_a_token_twice_is_refused(host):
    async with unharmed(host), host.wire() as wire:
        with memfd() as one, memfd() as two:
            await wire.send(preserve(file(0, token=5), file(1, token=5)), [one.fileno(), two.fileno()])
            reply = await wire.reply()
            assert (reply.error, reply.parameters) == (f"{CUSTODY}.TokenInUse", {"session": "ram", "token": 5})
            await wire.send(preserve(file(0, token=5)), [one.fileno()])
            assert (await wire.reply()).error is None
            await wire.send(preserve(file(0, token=5)), [two.fileno()])
            assert (await wire.reply()).error == f"{CUSTODY}.TokenInUse"
        await wire.call(f"{CUSTODY}.Unpreserve", {"session": "ram", "tokens": [5]})


async def test_requests_that_do_not_fit_the_session_are_refused(host):
    async with unharmed(host), host.wire() as wire:
        for member, parameters, error in (
            ("Create", {"name": "ram"}, "SessionExists"),
            ("Retrieve", {"session": "nobody"}, "SessionNotFound"),
            ("Retrieve", {"session": "ram", "tokens": [9]}, "TokenNotFound"),
            ("Unpreserve", {"session": "ram", "tokens": [9]}, "TokenNotFound"),
            ("Finish", {"session": "ram"}, "WrongDirection"),
            ("Finish", {"session": "ram", "rearm": True}, "WrongDirection"),
            ("Claim", {"session": "ram"}, "WrongMode"),
            ("Retrieve", {"session": "vm"}, "WrongMode"),
            ("Unpreserve", {"session": "vm", "tokens": [1]}, "WrongMode"),
        ):
            assert (await wire.call(f"{CUSTODY}.{member}", parameters)).error == f"{CUSTODY}.{error}"
        with memfd() as fd:
            await wire.send(call("Preserve", session="vm", files=[file(0)]), [fd.fileno()])
            assert (await wire.reply()).error == f"{CUSTODY}.WrongMode"


async def test_a_session_that_is_not_named_is_listed_only_with_more(host):
    async with unharmed(host), host.wire() as wire:
        assert (await wire.call(f"{CUSTODY}.List", {})).error == "org.varlink.service.ExpectedMore"
        assert (await wire.call(f"{CUSTODY}.Watch", {})).error == "org.varlink.service.ExpectedMore"


async def test_what_is_not_there_is_named(host):
    async with unharmed(host), host.wire() as wire:
        for method, error, parameters in (
            ("io.luod.Nothing.Create", "InterfaceNotFound", {"interface": "io.luod.Nothing"}),
            ("io.luod.Custody.Delete", "MethodNotFound", {"method": "io.luod.Custody.Delete"}),
            ("List", "InterfaceNotFound", {"interface": "List"}),
        ):
            reply = await wire.call(method, {})
            assert (reply.error, reply.parameters) == (f"org.varlink.service.{error}", parameters)


async def test_a_client_that_is_gone_in_the_middle_of_a_message_changes_nothing(host):
    data = preserve(file(0))
    async with unharmed(host):
        for cut in range(1, len(data), 7):
            with memfd() as fd:
                async with host.wire() as wire:
                    await wire.send(data[:cut], [fd.fileno()])


async def test_a_client_that_is_gone_before_its_reply_finds_its_files(host):
    async with unharmed(host):
        with memfd(b"there") as fd:
            async with host.wire() as wire:
                await wire.send(preserve(file(0, token=1)), [fd.fileno()])
            async with host.client() as luod:
                while not (await luod.find("ram")).files:
                    pass
                with (await luod.retrieve("ram"))[1] as back:
                    assert content(back) == b"there"
                await luod.unpreserve("ram", [1])


async def test_a_client_that_resets_the_connection_with_replies_unread_harms_nobody(host):
    async with unharmed(host):
        for _ in range(20):
            async with host.wire() as wire:
                await wire.send(call("List", session="ram") * 50)


async def test_oneway_calls_are_done_and_not_answered(host):
    async with unharmed(host), host.wire() as wire:
        await wire.send(Call(f"{CUSTODY}.Create", {"name": "quiet"}, oneway=True).encode())
        await wire.send(Call(f"{CUSTODY}.Create", {"name": "quiet"}, oneway=True).encode())  # an error, as quietly
        assert (await wire.call(f"{CUSTODY}.List", {"session": "quiet"})).error is None
        assert (await wire.call(f"{CUSTODY}.Discard", {"session": "quiet"})).error is None


async def test_pipelined_calls_are_answered_in_order(host):
    async with unharmed(host), host.wire() as wire:
        await wire.send(b"".join(call("Retrieve", session=f"none-{number}") for number in range(100)))
        for number in range(100):
            assert (await wire.reply()).parameters == {"session": f"none-{number}"}
