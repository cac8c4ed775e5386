"""The end of a kernel's session, and a new one in its place: what takes several steps, none of which can be undone.

What is about to be done is recorded first, so that another luod in the same kernel can do the rest of it.
"""

import errno
import logging
from collections.abc import Mapping

from luod import errors
from luod.bag import pages
from luod.holdings import Holding, Holdings
from luod.kernel.api import Call, KernelError
from luod.kernel.api import Session as KernelSession
from luod.lifecycle import Event, State
from luod.manifest import Finishing, Renewed, Renewing, SessionGone, SessionMissing
from luod.memory import Memory, look_at, status_of, without_memory

log = logging.getLogger(__name__)


def finish(holdings: Holdings, holding: Holding) -> None:
    """End an incoming session. Raises FinishRefused; then it is as it was."""
    kernel, number = holdings.to_finish(holding), holding.session.id
    holdings.record(Finishing(session_id=number, begun=True))
    try:
        if kernel is not None:
            kernel.finish()
    except KernelError as error:
        holdings.settle(Finishing(session_id=number, begun=False))
        raise errors.FinishRefused(holding.session.name, error.errno) from None
    _end(holdings, holding)


def renew(holdings: Holdings, holding: Holding, event: Event) -> None:
    """Put a new session of the kernel in the place of the old one, with all files that are held.

    Tombstones stay behind. Raises RearmRefused or FinishRefused; then the old one stays, and every file is in the bag.
    """
    predecessor = holdings.to_finish(holding)
    _pack_all(holdings, holding)
    successor, name = holdings.new_kernel_session()
    _move(holdings, holding, predecessor, successor, name, event)


def renew_if_empty(holdings: Holdings, holding: Holding) -> bool:
    """Where only tombstones are left, make the kernel let go of their memory. True where it has."""
    if holding.session.held():
        return False
    try:
        renew(holdings, holding, Event.RENEWED)
    except (KernelError, errors.WireError) as error:
        log.warning("session %s keeps what was taken out of it: %s", holding.session.kernel_name, error)
        return False
    return True


def go_on(holdings: Holdings, successors: Mapping[int, KernelSession]) -> None:
    """Do the rest of what another luod has begun: `successors` are to take a session's place, by session id."""
    for holding in holdings.all():
        try:
            _go_on(holdings, holding, successors.get(holding.session.id))
        except (KernelError, errors.WireError) as error:
            log.error("session %s: what was begun can't be ended: %s", holding.session.kernel_name, error)


def _go_on(holdings: Holdings, holding: Holding, successor: KernelSession | None) -> None:
    session = holding.session
    if session.finishing:
        if holding.kernel is not None:
            holding.kernel.finish()
        _end(holdings, holding)
    elif successor is not None and session.renewing is not None:
        event = Event.RENEWED if session.state is State.OUTGOING else Event.CARRIED_OVER
        _move(holdings, holding, holding.kernel, successor, session.renewing, event)
    elif session.renewing is not None:
        holdings.settle(Renewing(session_id=session.id, kernel_name=None))
    if holding.kernel is None and session.state in (State.OUTGOING, State.CARRIED):
        holdings.settle(SessionMissing(session_id=session.id, reason="luod ended, and nobody kept its descriptor"))


def _end(holdings: Holdings, holding: Holding) -> None:
    """Let go of a session that the kernel has finished. It is gone when nothing is left of it, not before."""
    holdings.forget(holding)
    holdings.settle(SessionGone(session_id=holding.session.id))


def _pack_all(holdings: Holdings, holding: Holding) -> None:
    """Have every file in the bag, before the kernel is told that it needn't have it any more."""
    session = holding.session
    there = set() if holding.bag is None else holding.bag.tokens
    for page in pages(session.held()):
        with holdings.files(holding, page) as files:
            for kernel_token, fd in files.items():
                if missing := without_memory(status_of(fd)):
                    reason = f"it is sparse, fallocate it first: {missing} of its bytes have no memory"
                    raise errors.RearmRefused(session.name, session.files[kernel_token].token, reason)
            if new := {token: fd for token, fd in files.items() if token not in there}:
                holdings.keep(holding, new)
    holdings.fd_store.barrier()


def _move(
    holdings: Holdings,
    holding: Holding,
    predecessor: KernelSession | None,
    successor: KernelSession,
    name: str,
    event: Event,
) -> None:
    """Let the kernel have what is held in `successor`, called `name`, in place of `predecessor`."""
    session = holding.session
    try:
        holdings.record(Renewing(session_id=session.id, kernel_name=name))
        if session.state is State.INCOMING and predecessor is not None:
            predecessor.finish()
        memory = _preserve_held(holdings, holding, successor)
    except BaseException as error:
        holdings.settle(Renewing(session_id=session.id, kernel_name=None))
        holdings.give_up(successor)
        if isinstance(error, KernelError) and error.call is Call.FINISH:
            raise errors.FinishRefused(session.name, error.errno) from None
        raise
    holding.kernel, holding.alone = successor, False
    if predecessor is not None:
        holdings.give_up(predecessor)
    holdings.settle(Renewed(session_id=session.id, event=event, files=memory))
    if not memory:
        holdings.replace_bag(holding, None)


def _preserve_held(holdings: Holdings, holding: Holding, kernel: KernelSession) -> dict[int, Memory]:
    session = holding.session
    memory: dict[int, Memory] = {}
    for page in pages(session.held()):
        with holdings.files(holding, page) as files:
            for kernel_token, fd in files.items():
                try:
                    kernel.preserve_fd(fd.fileno(), kernel_token)
                except KernelError as error:
                    if error.errno != errno.EEXIST:  # an earlier luod came so far
                        token = session.files[kernel_token].token
                        raise errors.RearmRefused(session.name, token, str(error)) from None
                memory[kernel_token] = look_at(fd)
    return memory
