"""What each method of io.luod.Custody does: from a call's parameters and descriptors to what the Custodian is asked."""

from dataclasses import dataclass, field
from typing import Any

from luod import errors
from luod.custody import Custodian
from luod.fds import FdBundle, OwnedFd
from luod.flight import Recorder
from luod.interface import custody
from luod.interface.model import Reply
from luod.lifecycle import Mode, State
from luod.manifest import File, Session
from luod.memory import Given
from luod.policy import Owner, Policy
from luod.recovery import RestoreImpossible
from luod.sockets import Peer
from luod.systemd import unit_of
from luod.update import Updates


@dataclass(frozen=True)
class Request:
    """A call that was read: by whom, its parameters' model, its descriptors, and whether it takes several replies."""

    peer: Peer
    parameters: Any
    fds: FdBundle
    more: bool = False


@dataclass(frozen=True)
class Answer:
    """One reply, and the descriptors that go with it: whoever sends it closes them."""

    parameters: dict[str, Any] = field(default_factory=dict)
    fds: FdBundle = field(default_factory=FdBundle)


Answers = list[Answer]


def answer(reply: Reply, *fds: OwnedFd) -> Answer:
    return Answer(reply.wire(), FdBundle(fds))


def restored(there: Custodian | RestoreImpossible) -> Custodian:
    """The Custodian. Raises RestoreUnavailable where this boot can't restore."""
    if isinstance(there, RestoreImpossible):
        raise errors.RestoreUnavailable(there.reason)
    return there


class Methods:
    """The methods. Each blocks, and runs in a thread of its caller's.

    Where there is no Custodian this boot can't restore, and whoever asks for a session is told so.
    """

    def __init__(
        self,
        there: Custodian | RestoreImpossible,
        policy: Policy,
        updates: Updates,
        recorder: Recorder,
    ) -> None:
        self._there = there
        self._policy = policy
        self._updates = updates
        self._recorder = recorder

    @property
    def custodian(self) -> Custodian:
        """Raises RestoreUnavailable."""
        return restored(self._there)

    def owner(self, request: Request) -> Owner:
        """Whose sessions are meant. Raises PermissionDenied."""
        return self._policy.owner(request.peer.uid, request.peer.gid, request.parameters.owner)

    def create(self, request: Request) -> Answers:
        asked: custody.CreateParameters = request.parameters
        mode, labels, unit = asked.mode or Mode.CUSTODIAL, asked.labels or {}, unit_of(request.peer.pid)
        session, lent = self.custodian.create(self.owner(request), asked.name, mode, labels, unit)
        if lent is None:
            return [answer(custody.CreateReply(session=_session(session)))]
        return [answer(custody.CreateReply(session=_session(session), file_descriptor_index=0), lent)]

    def preserve(self, request: Request) -> Answers:
        asked: custody.PreserveParameters = request.parameters
        given = [
            Given(index, request.fds[index], file.token, file.name)
            for file in asked.files
            for index in [file.file_descriptor_index]
        ]
        files = self.custodian.preserve(self.owner(request), asked.session, given)
        return [answer(custody.PreserveReply(files=[_file(file) for file in files]))]

    def unpreserve(self, request: Request) -> Answers:
        asked: custody.UnpreserveParameters = request.parameters
        released = self.custodian.unpreserve(self.owner(request), asked.session, asked.tokens)
        return [answer(custody.UnpreserveReply(released=released))]

    def retrieve(self, request: Request) -> Answers:
        asked: custody.RetrieveParameters = request.parameters
        lent, rest = self.custodian.retrieve(self.owner(request), asked.session, asked.tokens)
        files = [
            custody.RetrievedFile(file_descriptor_index=index, token=file.token, name=file.name)
            for index, file in enumerate(lent)
        ]
        return [answer(custody.RetrieveReply(files=files, next=rest or None), *(file.fd for file in lent))]

    def finish(self, request: Request) -> Answers:
        asked: custody.FinishParameters = request.parameters
        finish = self.custodian.rearm if asked.rearm else self.custodian.finish
        finish(self.owner(request), asked.session)
        return [Answer()]

    def discard(self, request: Request) -> Answers:
        self.custodian.discard(self.owner(request), request.parameters.session)
        return [Answer()]

    def claim(self, request: Request) -> Answers:
        session, lent = self.custodian.claim(self.owner(request), request.parameters.session)
        return [answer(custody.ClaimReply(session=_session(session), file_descriptor_index=0), lent)]

    def list_sessions(self, request: Request) -> Answers:
        asked: custody.ListParameters = request.parameters
        owner = self.owner(request)
        if asked.session is not None:
            return [answer(custody.ListReply(session=_session(self.custodian.session(owner.uid, asked.session))))]
        if asked.all:
            self._policy.require_operator(request.peer.uid)
        if not request.more:
            raise errors.ExpectedMore
        sessions = self.custodian.sessions(None if asked.all else owner.uid)
        return [answer(custody.ListReply(session=_session(session))) for session in sessions] or [
            answer(custody.ListReply())
        ]

    def anything_incoming(self, uid: int, names: frozenset[str] | None) -> bool:
        """Whether sessions of this owner came over and wait to be finished."""
        return any(
            session.state in (State.INCOMING, State.CARRIED) and (names is None or session.name in names)
            for session in self.custodian.sessions(uid)
        )

    def ready(self, request: Request) -> Answers:
        self._updates.answer(request.peer.uid, request.parameters.update, request.parameters.watcher)
        return [Answer()]

    def veto(self, request: Request) -> Answers:
        asked: custody.VetoParameters = request.parameters
        each = self._updates.answer(request.peer.uid, asked.update, asked.watcher, asked.reason)
        self._recorder.note("veto", each.who, reason=asked.reason)
        return [Answer()]


def _session(session: Session) -> custody.Session:
    return custody.Session(
        name=session.name,
        kernel_name=session.kernel_name,
        mode=session.mode,
        direction=session.direction,
        uid=session.uid,
        gid=session.gid,
        unit=session.unit,
        labels=session.labels,
        files=[] if session.state is State.LOST else [_file(file) for file in session.held().values()],
        generation=session.generation,
        created_usec=session.created_usec,
        carried_over=session.state is State.CARRIED or None,
        lost=session.lost,
    )


def _file(file: File) -> custody.File:
    return custody.File(token=file.token, name=file.name, size=file.size, retrieved=file.retrieved)
