"""io.luod.Update: the models of its methods. The text beside this file says what each means."""

from typing import Annotated, Any

from pydantic import Field

from luod.interface import Method
from luod.interface.model import Model, Parameters, Reply

NAME = "io.luod.Update"

Object = dict[str, Any]


class Check(Model):
    name: str
    ok: bool
    detail: str
    remedy: str | None = None


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


class PreflightReply(Reply):
    checks: list[Check]


class LoadKernelParameters(Parameters):
    kernel_file_descriptor: Annotated[int, Field(ge=0)]
    initrd_file_descriptor: Annotated[int, Field(ge=0)] | None = None
    command_line: str | None = None
    reuse_command_line: bool | None = None


class LoadKernelReply(Reply):
    image: Object


class StartParameters(Parameters):
    via: str | None = None
    deadline_sec: int | None = None
    unready: str | None = None
    force: bool | None = None


class StartReply(Reply):
    phase: str
    ready: int
    waiting: list[str]
    detail: str | None = None


class AbortParameters(Parameters):
    reason: str | None = None


class TimelineParameters(Parameters):
    generation: int | None = None


class TimelineReply(Reply):
    events: list[Object]


class ManifestReply(Reply):
    manifest: Object


METHODS = {
    "Status": Method(Parameters, StatusReply),
    "Preflight": Method(Parameters, PreflightReply),
    "LoadKernel": Method(LoadKernelParameters, LoadKernelReply),
    "UnloadKernel": Method(Parameters, Reply),
    "Start": Method(StartParameters, StartReply, more=True),
    "Abort": Method(AbortParameters, Reply),
    "Timeline": Method(TimelineParameters, TimelineReply),
    "Manifest": Method(Parameters, ManifestReply),
}
