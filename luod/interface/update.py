"""io.luod.Update: the models of its methods. The text beside this file says what each means."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from luod.interface import Method
from luod.interface.model import FileDescriptorIndex, Parameters, Reply
from luod.lifecycle import Unready, Via

NAME = "io.luod.Update"

Object = dict[str, Any]

WireVia = Annotated[Via, Field(strict=False)]
WireUnready = Annotated[Unready, Field(strict=False)]


class Outcome(StrEnum):
    """What came of a check: `fail` means that a live update would lose something."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


class Check(Reply):
    name: str
    outcome: Annotated[Outcome, Field(strict=False)]
    detail: str
    remedy: str | None = None
    loses: list[str] | None = None


class StatusReply(Reply):
    phase: str
    generation: int
    kernel: Object
    image: Object | None = None
    sessions: int
    files: int
    bytes: int
    device: Object
    fd_store: Object | None = None
    participants: list[Object] | None = None
    last_update: Object | None = None
    network: Object | None = None
    problems: list[str] | None = None


class PreflightParameters(Parameters):
    via: WireVia | None = None


class PreflightReply(Reply):
    checks: list[Check]


class LoadKernelParameters(Parameters):
    kernel_file_descriptor: FileDescriptorIndex
    initrd_file_descriptor: FileDescriptorIndex | None = None
    running_file_descriptor: FileDescriptorIndex | None = None
    command_line: str | None = None
    reuse_command_line: bool | None = None


class LoadKernelReply(Reply):
    image: Object


class StartParameters(Parameters):
    via: WireVia | None = None
    deadline_sec: Annotated[int, Field(gt=0, le=86400)] | None = None
    unready: WireUnready | None = None
    force: bool | None = None


class ProgressReply(Reply):
    phase: str
    ready: int
    waiting: list[str]
    detail: str | None = None
    update: int | None = None
    deadline_usec: int | None = None


class AbortParameters(Parameters):
    reason: Annotated[str, Field(max_length=1000)] | None = None


class TimelineParameters(Parameters):
    generation: int | None = None


class TimelineReply(Reply):
    generation: int
    generations: list[int]
    events: list[Object]


class ManifestReply(Reply):
    manifest: Object


METHODS = {
    "Status": Method(Parameters, StatusReply),
    "Preflight": Method(PreflightParameters, PreflightReply),
    "LoadKernel": Method(LoadKernelParameters, LoadKernelReply),
    "UnloadKernel": Method(Parameters, Reply),
    "Start": Method(StartParameters, ProgressReply, more=True),
    "Follow": Method(Parameters, ProgressReply, more=True),
    "Abort": Method(AbortParameters, Reply),
    "Timeline": Method(TimelineParameters, TimelineReply),
    "Manifest": Method(Parameters, ManifestReply),
    "StartAfresh": Method(Parameters, Reply),
}
