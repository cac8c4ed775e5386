"""What an operator can ask of luod, as `requests` is for owners: the next kernel, and the live update into it."""

from collections.abc import Sequence
from typing import Any

from luod.client.asking import HasFileno, one, question, read
from luod.client.exchange import Ask, Exchange, Stream
from luod.client.failures import Unanswered
from luod.interface import model as wire
from luod.interface import update
from luod.lifecycle import Phase, Unready, Via

Progress = update.ProgressReply
Check = update.Check
Timeline = update.TimelineReply


def status() -> Exchange[update.StatusReply]:
    """How luod and its kernel are doing, for operators. `phase` is `unavailable` where this boot can't restore."""
    reply, _ = yield from one(_update("Status"), update.StatusReply)
    return reply


def manifest() -> Exchange[dict[str, Any]]:
    """All that luod holds, as the JSON object that luod.manifest describes."""
    reply, _ = yield from one(_update("Manifest"), update.ManifestReply)
    return reply.manifest


def load_kernel(
    kernel_fd: int | HasFileno,
    initrd_fd: int | HasFileno | None = None,
    command_line: str | None = None,
    *,
    reuse: bool = False,
    running_fd: int | HasFileno | None = None,
) -> Exchange[dict[str, Any]]:
    """Load the next kernel from borrowed descriptors, in place of one that may be loaded. Returns what is known of it.

    `reuse`: it gets the command line of the kernel that runs. `running_fd` is the image of that one, where luod doesn't
    find it. Raises BadImage, InvalidParameter, KernelFailed, UpdateInProgress.
    """
    given = {"kernelFileDescriptor": kernel_fd, "initrdFileDescriptor": initrd_fd, "runningFileDescriptor": running_fd}
    fds = {name: fd for name, fd in given.items() if fd is not None}
    words: dict[str, Any] = {name: index for index, name in enumerate(fds)}
    words |= {"commandLine": command_line, "reuseCommandLine": reuse or None}
    ask = _update("LoadKernel", list(fds.values()), **words)
    reply, _ = yield from one(ask, update.LoadKernelReply)
    return reply.image


def unload_kernel() -> Exchange[None]:
    """Forget the kernel that was loaded, if one was. Raises KernelFailed, UpdateInProgress."""
    yield from one(_update("UnloadKernel"), wire.Reply)


def preflight(via: Via | str | None = None) -> Exchange[list[Check]]:
    """What a live update would meet now, done by systemd or directly; without `via`, as luod would do it."""
    reply, _ = yield from one(_update("Preflight", via=via), update.PreflightReply)
    return reply.checks


def abort_update(reason: str | None = None) -> Exchange[None]:
    """Bring everything back. Raises NoUpdate, and UpdateInProgress where there is no way back any more.

    Raises Disconnected where luod ended in it: that is the end of the live update, unless the machine is on its way.
    """
    yield from one(_update("Abort", reason=reason), wire.Reply)


def timeline(generation: int | None = None) -> Exchange[Timeline]:
    """What the flight recorder has of the live update that led to this generation; of the last one without it."""
    reply, _ = yield from one(_update("Timeline", generation=generation), update.TimelineReply)
    return reply


def start_afresh() -> Exchange[None]:
    """Accept that what this boot can't give back is lost: luod starts anew, with nothing.

    Where luod ended in it, it was done if this boot is no longer unable to give anything back.
    """
    ask = _update("StartAfresh")
    while True:
        try:
            yield from one(ask, wire.Reply)
        except Unanswered:
            if (yield from status()).phase != Phase.UNAVAILABLE:
                return
        else:
            return


def live_update(
    *, via: Via | str | None, deadline: int | None, unready: Unready | str | None, force: bool
) -> Stream[Progress]:
    """The progress of a live update that this begins. It is never begun again: where luod ends in it, it is off."""
    ask = _update("Start", more=True, via=via, deadlineSec=deadline, unready=unready, force=force or None)
    return Stream(ask, lambda answer: read(ask, answer, Progress))


def follow() -> Stream[Progress]:
    """The progress of whatever goes on, until nothing does any more. After luod's end it goes on with the next luod."""
    ask = _update("Follow", more=True)
    return Stream(ask, lambda answer: read(ask, answer, Progress))


def _update(member: str, fds: Sequence[int | HasFileno] = (), /, *, more: bool = False, **parameters: Any) -> Ask:
    return question(update.NAME, update.METHODS, member, fds, more=more, **parameters)
