"""What luoctl says where luod refuses: what was wrong, with what, and what to do next. The only place for remedies."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from luod import errors
from luod.client import BadReply, Client, Disconnected, LuodError, NotRunning, RemoteError, Session
from luod.ctl.command import Given, nearest
from luod.ctl.output import tokens, user, whose
from luod.kernel.api import MEANING, Call


class Asked(NamedTuple):
    """What luod was asked: for whose sessions, and with which descriptors."""

    luod: Client | None = None
    owner: int | None = None
    given: Sequence[Given] = ()

    @property
    def whose(self) -> str:
        return whose(self.owner)

    @property
    def for_owner(self) -> str:
        """What a command of luoctl takes to be about the same sessions."""
        return "" if self.owner is None else f" --owner {self.whose}"

    def named(self, session: str) -> str:
        """A session as a command of luoctl takes it."""
        return session + self.for_owner

    def sessions(self, *, all_owners: bool = False) -> list[Session]:
        """Those of this owner; none where luod doesn't say."""
        with suppress(LuodError, OSError):
            if self.luod is not None:
                return self.luod.list(all_owners=all_owners, owner=None if all_owners else self.owner)
        return []


def explained(error: LuodError, asked: Asked = Asked()) -> str:  # noqa: B008 - it can't be changed
    """An error in one line, with its remedy where there is one."""
    remedy = next((REMEDIES[kind] for kind in type(error).__mro__ if kind in REMEDIES), "")
    if isinstance(remedy, str):
        remedy = remedy.format(session=asked.named(getattr(error, "session", "")))
    else:
        remedy = remedy(error, asked)
    return f"{_text(error, asked)}{'' if not remedy or remedy.startswith(',') else '; '}{remedy}"


def _text(error: LuodError, asked: Asked) -> str:
    """What was wrong, with what, as a user of luoctl knows it."""
    match error:
        case errors.SessionNotFound(session):
            return f"{asked.whose} has no session {session!r}"
        case errors.SessionLost(session, reason):
            return f"session {session!r} is lost: {reason}"
        case errors.WrongDirection(session, state) | errors.WrongMode(session, state):
            return f"session {session!r} is {state}"
        case errors.NotPreservable(index, reason) if asked.given:
            return f"{asked.given[index].called} can't be preserved: {reason}"
        case errors.AlreadyPreserved(index) if asked.given:
            return f"{asked.given[index].called} is preserved already"
        case errors.RetrieveFailed(errno=number):
            return f"{error} ({_meaning(Call.RETRIEVE_FD, number)})"
        case errors.FinishRefused(errno=number):
            return f"{error} ({_meaning(Call.FINISH, number)})"
        case errors.KernelFailed(call, number):
            return f"{error} ({_meaning(call, number)})"
    return str(error)


def _meaning(call: str, number: int) -> str:
    known = (meaning for (of, answer), meaning in MEANING.items() if (of, answer) == (call, number))
    return next(known, os.strerror(number))


def _of_another_name(error: errors.SessionNotFound, asked: Asked) -> str:
    for session in asked.sessions(all_owners=True):
        if session.name == error.session and user(session.uid) != asked.whose:
            return f"{user(session.uid)} has one: add --owner {user(session.uid)}"
    return nearest(error.session, [session.name for session in asked.sessions()]) or f"see luoctl list{asked.for_owner}"


def _other_tokens(error: errors.TokenNotFound, asked: Asked) -> str:
    there = [session.files for session in asked.sessions() if session.name == error.session]
    return f"it has {tokens(there[0])}" if there and there[0] else f"see luoctl show {asked.named(error.session)}"


def _for_whom(error: errors.NotPreservable, asked: Asked) -> str:
    """Whose memory may be preserved for whom isn't said by its reason, which says all else."""
    for given in asked.given[error.file_descriptor_index :][:1]:
        if given.uid not in (os.getuid(), asked.owner):
            return f"for that, add --owner {user(given.uid)}"
    return ""


def _by_direction(error: errors.WrongDirection, asked: Asked) -> str:
    session = asked.named(error.session)
    return {
        "outgoing": f"only what came over can be finished, luoctl discard {session} gives this one up",
        "incoming": f"luoctl finish {session} ends it, with --rearm it becomes outgoing",
    }.get(error.direction, "")


def _by_mode(error: errors.WrongMode, asked: Asked) -> str:
    session = asked.named(error.session)
    return {
        "custodial": f"luod itself has its files, luoctl retrieve {session} gives them back",
        "delegated": f"only its owner knows what is in it, luoctl claim {session} -- COMMAND lends it",
    }.get(error.mode, "")


def _as_whom(error: errors.PermissionDenied, asked: Asked) -> str:
    return "this is for operators, try it as root" if asked.owner is None else "only root acts for other users"


def _what_there_is(error: errors.MethodNotFound, asked: Asked) -> str:
    return f"see luoctl introspect {error.method.rpartition('.')[0]}"


def _where_it_is_set(error: errors.QuotaExceeded, asked: Asked) -> str:
    return SET_BY.get(error.quota, _LOG)


_LOG: Final = "luod's log says more (journalctl -u luod)"

_CONFIGURED: Final = "raise {} under [limits] (luoctl config cat), then systemctl reload luod"

SET_BY: Final[dict[str, str]] = {
    "connections": _CONFIGURED.format("connections_per_owner"),
    "descriptors": "raise LimitNOFILE= of luod.service, and restart it",
    "descriptors in flight": _CONFIGURED.format("descriptors_in_flight_per_owner"),
    "fd store entries": "raise FileDescriptorStoreMax= of luod.service, and restart it",
    "files": _CONFIGURED.format("files_per_owner"),
    "files in a bag (net.core.wmem_max)": "raise the sysctl net.core.wmem_max, and restart luod",
    "files in a session": _CONFIGURED.format("files_per_session"),
    "sessions": _CONFIGURED.format("sessions_per_owner"),
    "watchers": _CONFIGURED.format("watchers_per_owner"),
}
"""Which setting a quota comes from."""

REMEDIES: Final[dict[type[LuodError], str | Callable[[Any, Asked], str]]] = {
    errors.InterfaceNotFound: "see luoctl introspect",
    errors.MethodNotFound: _what_there_is,
    errors.MethodNotImplemented: "a newer luod may have it",
    errors.InvalidParameter: "see luoctl introspect INTERFACE",
    errors.PermissionDenied: _as_whom,
    errors.ExpectedMore: "that is luoctl call --more",
    errors.SessionNotFound: _of_another_name,
    errors.SessionExists: "see luoctl show {session}",
    errors.SessionLost: "luoctl discard {session} forgets it",
    errors.TokenNotFound: _other_tokens,
    errors.TokenInUse: "leave --token out, and a free one is chosen",
    errors.NotPreservable: _for_whom,
    errors.AlreadyPreserved: "the kernel takes a file once, luoctl unpreserve takes it out of its session",
    errors.WrongDirection: _by_direction,
    errors.WrongMode: _by_mode,
    errors.RetrieveFailed: "the other files can be had by their tokens",
    errors.FinishRefused: "nothing has changed, try it again later",
    errors.RearmRefused: "nothing has changed, luoctl finish {session} without --rearm gives all of it up",
    errors.UpdateInProgress: "try it again when that is over, luoctl abort ends it",
    errors.QuotaExceeded: _where_it_is_set,
    errors.RestoreUnavailable: _LOG,
    errors.KernelFailed: _LOG,
    errors.PreflightFailed: "see luoctl preflight",
    errors.BadImage: "",
    errors.NoUpdate: "see luoctl status",
    errors.UpdateAborted: "everything is as before",
    NotRunning: "start it (systemctl start luod), or name its socket with --socket or $LUOD_SOCKET",
    Disconnected: "see luoctl list whether it was done",
    BadReply: "luod may be of another version: restart it",
    RemoteError: "a newer luod says so: update luoctl",
}
"""What to do next, by what luod says. `{session}` is the session as a command takes it; empty, where all is said."""
