"""What a client can ask of luod: each request is an exchange, done by the shells in `blocking` and `on_trio`. What
only operators ask is in `operators`.

Sessions belong to their owner: `owner` (a uid) is for those who may act for others. Whatever luod refuses is raised
as a class of `luod.errors`; what else can go wrong stands in `luod.client.failures`.

A request that luod ended in looks for what became of it, and asks again if nothing did. What it finds done counts as
done by it: a session that is over, or whose name another has since, as finished or discarded; one that was made since,
as it was asked for, as created; a token that is gone as unpreserved; these very files in their places as preserved.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luod.bag import pages
from luod.client.asking import HasFileno, number, one, question, raw, read
from luod.client.exchange import Answer, Ask, Exchange, Stream
from luod.client.failures import BadReply, Unanswered
from luod.errors import InvalidParameter, SessionLost, SessionNotFound
from luod.fds import FdBundle, OwnedFd
from luod.interface import custody
from luod.interface import model as wire
from luod.interface.custody import File, Session, WatchReply
from luod.kernel import api
from luod.lifecycle import Direction, Mode
from luod.sockets import FDS_MAX

Event = WatchReply


@dataclass(frozen=True)
class ToPreserve:
    """A descriptor to preserve. luod chooses a token where it is None; `name` is the owner's own word for it."""

    fd: int | HasFileno
    token: int | None = None
    name: str | None = None


def create(name: str, labels: dict[str, str] | None = None, owner: int | None = None) -> Exchange[Session]:
    """Make a session whose files luod preserves and retrieves. Raises SessionExists.

    Where luod ended in it, so that nobody can tell, one that was made since and has these labels counts as this one.
    """
    ask, since = _custody("Create", name=name, labels=labels, owner=owner), _now()
    while True:
        try:
            reply, _ = yield from one(ask, custody.CreateReply)
        except Unanswered:
            there = yield from _there(name, owner)
            if there is not None and _was_made(there, since, Mode.CUSTODIAL, labels):
                return there
        else:
            return reply.session


def create_delegated(
    name: str, labels: dict[str, str] | None = None, owner: int | None = None
) -> Exchange[tuple[Session, api.Session]]:
    """Make a session in which the caller preserves and retrieves. Its kernel session is the caller's to give up.

    luod holds a copy of it: giving up this one loses nothing. What is preserved in it comes back only in the next
    kernel: after a crash in this one, discard the session and make it anew. Raises SessionExists.

    Where luod ended in it, one that was made since counts as this one, as with `create`.
    """
    ask, since = _custody("Create", name=name, mode=Mode.DELEGATED, labels=labels, owner=owner), _now()
    while True:
        try:
            reply, answer = yield from one(ask, custody.CreateReply)
        except Unanswered:
            there = yield from _there(name, owner)
            if there is not None and _was_made(there, since, Mode.DELEGATED, labels):
                return there, (yield from claim(name, owner))
        else:
            if reply.file_descriptor_index is None:
                raise BadReply(ask.call.method, "a delegated session came without its descriptor")
            return reply.session, _kernel_session(_take(ask, answer, reply.file_descriptor_index))


def preserve(
    session: str, fd: int | HasFileno, token: int | None = None, name: str | None = None, owner: int | None = None
) -> Exchange[File]:
    """Preserve the file behind the borrowed `fd`. Returns what luod recorded: its token, and its size in bytes.

    Raises SessionNotFound, TokenInUse, NotPreservable, AlreadyPreserved, WrongDirection, QuotaExceeded.
    """
    files = yield from preserve_all(session, [ToPreserve(fd, token, name)], owner)
    return files[0]


def preserve_all(session: str, files: Sequence[ToPreserve], owner: int | None = None) -> Exchange[list[File]]:
    """Preserve all of these files, 1 to 253, or none. Returns what luod recorded, in order. Raises as `preserve`."""
    if len(files) > FDS_MAX:
        raise InvalidParameter("files", f"one call takes at most {FDS_MAX} descriptors")
    named = [{"fileDescriptorIndex": i, "token": f.token, "name": f.name} for i, f in enumerate(files)]
    ask = _custody("Preserve", [f.fd for f in files], session=session, files=named, owner=owner)
    while True:
        try:
            reply, _ = yield from one(ask, custody.PreserveReply)
        except Unanswered:
            if there := (yield from _preserved(session, files, owner)):
                return there
        else:
            if len(reply.files) != len(files):
                raise BadReply(ask.call.method, f"{len(reply.files)} files for {len(files)} descriptors")
            return reply.files


def unpreserve(session: str, tokens: Sequence[int], owner: int | None = None) -> Exchange[bool]:
    """Take files out of an outgoing session. Returns whether their memory is known to be free; it is, at the latest,
    when the session ends.

    Where luod ended in it, what is under these tokens by then is taken out: two clients that use the same tokens of one
    session at the same time have to agree. Raises SessionNotFound, TokenNotFound, WrongDirection.
    """
    ask = _custody("Unpreserve", session=session, tokens=list(tokens), owner=owner)
    while True:
        try:
            reply, _ = yield from one(ask, custody.UnpreserveReply)
        except Unanswered:
            there = yield from _there(session, owner)
            if there is not None and not there.lost and not {file.token for file in there.files} & set(tokens):
                return False
        else:
            return reply.released


def retrieve(
    session: str, tokens: Sequence[int] | None = None, owner: int | None = None
) -> Exchange[dict[int, OwnedFd]]:
    """Get files back, all of them where `tokens` is None: by token, and the caller's to close. All come, or none.

    Any number of times, before a live update and after it, until `finish`. Raises SessionNotFound, SessionLost,
    TokenNotFound, RetrieveFailed and RestoreUnavailable.
    """
    wanted = None if tokens is None else list(dict.fromkeys(tokens))
    files: dict[int, OwnedFd] = {}
    with FdBundle() as got:
        while True:
            ask = _custody("Retrieve", session=session, tokens=wanted, owner=owner)
            reply, answer = yield from one(ask, custody.RetrieveReply)
            for file in reply.files:
                if file.token in files:
                    raise BadReply(ask.call.method, f"token {file.token} came twice")
                files[file.token] = _take(ask, answer, file.file_descriptor_index)
                got.add(files[file.token])
            if not reply.next:
                got.take_all()
                return files
            if not reply.files:
                raise BadReply(ask.call.method, "a page without a file, and more to follow")
            wanted = reply.next


def finish(session: str, *, rearm: bool = False, owner: int | None = None) -> Exchange[None]:
    """End an incoming session: its owner has all that it needs, what nobody retrieved is gone.

    `rearm` preserves the same files again for the next live update.
    Raises SessionNotFound, WrongDirection, FinishRefused.
    """
    ask, since = _custody("Finish", session=session, rearm=rearm or None, owner=owner), _now()
    while True:
        try:
            yield from one(ask, wire.Reply)
        except Unanswered:
            there = yield from _there(session, owner)
            if _is_over(there, since) or (rearm and _was_rearmed(there)):
                return
        else:
            return


def discard(session: str, owner: int | None = None) -> Exchange[None]:
    """Give an outgoing session up, everything in it is unpreserved; or forget a lost one.

    Raises SessionNotFound, WrongDirection.
    """
    ask, since = _custody("Discard", session=session, owner=owner), _now()
    while True:
        try:
            yield from one(ask, wire.Reply)
        except Unanswered:
            if _is_over((yield from _there(session, owner)), since):
                return
        else:
            return


def claim(session: str, owner: int | None = None) -> Exchange[api.Session]:
    """Get the kernel session of a delegated session, the caller's to give up: luod holds a copy of it.

    Raises SessionNotFound, SessionLost, WrongMode and RestoreUnavailable.
    """
    ask = _custody("Claim", session=session, owner=owner)
    reply, answer = yield from one(ask, custody.ClaimReply)
    return _kernel_session(_take(ask, answer, reply.file_descriptor_index))


def find(session: str, owner: int | None = None) -> Exchange[Session | None]:
    """The session, or None: the owner has none of this name, and only then may it start afresh.

    Raises SessionLost where it was there and can't be given back, RestoreUnavailable where this boot can't tell.
    """
    there = yield from _there(session, owner)
    if there is not None and there.lost is not None:
        raise SessionLost(session, there.lost)
    return there


def list_sessions(*, all_owners: bool = False, owner: int | None = None) -> Exchange[list[Session]]:
    """The owner's sessions, or everybody's. Lost ones are among them: `lost` says why."""
    ask = _custody("List", all=all_owners or None, owner=owner, more=True)
    sessions: list[Session] = []
    while True:
        answer = yield ask
        if answer.is_first:
            sessions.clear()
        reply = read(ask, answer, custody.ListReply)
        if reply.session is not None:
            sessions.append(reply.session)
        if not answer.continues:
            return sessions


def ready(event: Event) -> Exchange[None]:
    """Tell luod that this watcher is ready for the live update that `event` announced. Raises NoUpdate.

    Raises Disconnected where luod ended in it: that is the end of the live update, and of the watcher.
    """
    number, watcher = _taking_part(event)
    yield from one(_custody("Ready", update=number, watcher=watcher), wire.Reply)


def veto(event: Event, reason: str) -> Exchange[None]:
    """Refuse the live update that `event` announced. Raises as `ready`."""
    number, watcher = _taking_part(event)
    yield from one(_custody("Veto", update=number, watcher=watcher, reason=reason), wire.Reply)


def call(
    method: str, parameters: Mapping[str, Any] | None = None, fds: Sequence[int | HasFileno] = ()
) -> Exchange[Answer]:
    """Call any Varlink method, with borrowed descriptors. The answer's own are the caller's to close.

    Not asked again where luod ended before it answered: only the caller knows whether that would do harm.
    """
    answer = yield raw(method, parameters, fds)
    return _handed_over(answer)


def stream(method: str, parameters: Mapping[str, Any] | None, fds: Sequence[int | HasFileno]) -> Stream[Answer]:
    """Call any Varlink method with `more`."""
    return Stream(raw(method, parameters, fds, more=True), _handed_over)


def watch(sessions: Sequence[str] | None, *, participate: bool, owner: int | None) -> Stream[Event]:
    """The events of Watch, each with the watcher that the first one named. After luod's end it goes on with the next
    luod, and another first one.
    """
    names = None if sessions is None else list(sessions)
    ask = _custody("Watch", sessions=names, participate=participate or None, owner=owner, more=True)
    watcher: str | None = None

    def event_of(answer: Answer) -> Event:
        nonlocal watcher
        event = read(ask, answer, WatchReply)
        watcher = event.watcher or watcher
        return event.model_copy(update={"watcher": watcher})

    return Stream(ask, event_of)


def _custody(member: str, fds: Sequence[int | HasFileno] = (), /, *, more: bool = False, **parameters: Any) -> Ask:
    return question(custody.NAME, custody.METHODS, member, fds, more=more, **parameters)


def _there(session: str, owner: int | None) -> Exchange[Session | None]:
    """The session, a lost one too; None where the owner has none of this name."""
    try:
        reply, _ = yield from one(_custody("List", session=session, owner=owner), custody.ListReply)
    except SessionNotFound:
        return None
    return reply.session


def _now() -> int:
    """CLOCK_REALTIME in microseconds, as in Session."""
    return time.time_ns() // 1000


def _was_made(there: Session, since: int, mode: Mode, labels: dict[str, str] | None) -> bool:
    return there.created_usec >= since and (there.mode, there.labels) == (mode, labels or {})


def _is_over(there: Session | None, since: int) -> bool:
    """Whether a session is no more, or another has its name."""
    return there is None or there.created_usec >= since


def _was_rearmed(there: Session | None) -> bool:
    return there is not None and there.direction is Direction.OUTGOING and there.generation > 0


def _preserved(session: str, files: Sequence[ToPreserve], owner: int | None) -> Exchange[list[File] | None]:
    """What luod recorded of these files, known by their inodes; None if one of them isn't there as it was to be."""
    there = yield from _there(session, owner)
    if there is None:
        return None
    wanted = [(file, os.fstat(number(file.fd))) for file in files]
    alike = {(file.name, status.st_size) for file, status in wanted}
    held = {file.token: file for file in there.files if (file.name, file.size) in alike}
    tokens: dict[tuple[int, int], int] = {}
    for page in pages(held):
        lent = yield from retrieve(session, page, owner)
        with FdBundle(lent.values()):
            tokens |= {_inode(os.fstat(fd.fileno())): token for token, fd in lent.items()}
    found = [(file, held[tokens[_inode(status)]]) for file, status in wanted if _inode(status) in tokens]
    right = [known for file, known in found if known.name == file.name and file.token in (None, known.token)]
    return right if len({known.token for known in right}) == len(files) else None


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _take(ask: Ask, answer: Answer, index: int) -> OwnedFd:
    """Take one of the answer's descriptors from it."""
    try:
        return OwnedFd(answer.fds[index].hand_on())
    except (IndexError, ValueError):
        raise BadReply(ask.call.method, f"descriptor {index} is not there") from None


def _handed_over(answer: Answer) -> Answer:
    return replace(answer, fds=FdBundle(answer.fds.take_all()))


def _kernel_session(fd: OwnedFd) -> api.Session:
    from luod.kernel.find import session_of  # needed by few clients

    try:
        return session_of(fd)
    except BaseException:
        fd.close()
        raise


def _taking_part(event: Event) -> tuple[int, str]:
    if event.update is None or event.watcher is None:
        raise ValueError(f"event {event.event!r} doesn't announce a live update")
    return event.update, event.watcher
