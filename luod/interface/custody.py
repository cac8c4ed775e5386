"""io.luod.Custody: the models of its methods. The text beside this file says what each means."""

from typing import Annotated

from pydantic import Field

from luod.interface import Method
from luod.interface.model import (
    FileDescriptorIndex,
    FileName,
    Labels,
    Model,
    Parameters,
    Reply,
    SessionName,
    Token,
    Uid,
)
from luod.lifecycle import Direction, Mode

NAME = "io.luod.Custody"


WireMode = Annotated[Mode, Field(strict=False)]
Tokens = Annotated[list[Token], Field(fail_fast=True)]


class File(Reply):
    token: int
    name: str | None = None
    size: int | None = None
    retrieved: bool


class Session(Reply):
    name: str
    kernel_name: str
    mode: WireMode
    direction: Annotated[Direction, Field(strict=False)]
    uid: int
    gid: int
    unit: str | None = None
    labels: dict[str, str]
    files: list[File]
    generation: int
    created_usec: int
    carried_over: bool | None = None
    lost: str | None = None


class FileToPreserve(Model):
    file_descriptor_index: FileDescriptorIndex
    token: Token | None = None
    name: FileName | None = None


class RetrievedFile(Reply):
    file_descriptor_index: int
    token: int
    name: str | None = None


class ForOwner(Parameters):
    """Whose sessions are meant: the caller's own where `owner` is left out."""

    owner: Uid | None = None


class OfSession(ForOwner):
    session: SessionName


class CreateParameters(ForOwner):
    name: SessionName
    mode: WireMode | None = None
    labels: Labels | None = None


class CreateReply(Reply):
    session: Session
    file_descriptor_index: int | None = None


class PreserveParameters(OfSession):
    files: Annotated[list[FileToPreserve], Field(min_length=1, fail_fast=True)]


class PreserveReply(Reply):
    files: list[File]


class UnpreserveParameters(OfSession):
    tokens: Annotated[Tokens, Field(min_length=1)]


class UnpreserveReply(Reply):
    released: bool


class RetrieveParameters(OfSession):
    tokens: Tokens | None = None


class RetrieveReply(Reply):
    files: list[RetrievedFile]
    next: list[int] | None = None


class FinishParameters(OfSession):
    rearm: bool | None = None


class ClaimReply(Reply):
    session: Session
    file_descriptor_index: int


class ListParameters(ForOwner):
    session: SessionName | None = None
    all: bool | None = None


class ListReply(Reply):
    session: Session | None = None


class WatchParameters(ForOwner):
    sessions: Annotated[list[SessionName], Field(fail_fast=True)] | None = None
    participate: bool | None = None


class WatchReply(Reply):
    event: str
    watcher: str | None = None
    update: int | None = None
    deadline_usec: int | None = None
    reason: str | None = None


class ReadyParameters(Parameters):
    update: int
    watcher: str


class VetoParameters(ReadyParameters):
    reason: str


METHODS = {
    "Create": Method(CreateParameters, CreateReply),
    "Preserve": Method(PreserveParameters, PreserveReply),
    "Unpreserve": Method(UnpreserveParameters, UnpreserveReply),
    "Retrieve": Method(RetrieveParameters, RetrieveReply),
    "Finish": Method(FinishParameters, Reply),
    "Discard": Method(OfSession, Reply),
    "Claim": Method(OfSession, ClaimReply),
    "List": Method(ListParameters, ListReply, more=True),
    "Watch": Method(WatchParameters, WatchReply, more=True),
    "Ready": Method(ReadyParameters, Reply),
    "Veto": Method(VetoParameters, Reply),
}
