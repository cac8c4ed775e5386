"""The connection to luod, and how luoctl ends where luod refuses or isn't there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from luod.ctl.command import Failed, Given, Options
from luod.ctl.output import user

if TYPE_CHECKING:
    from luod.client import Client, Session

REFUSED = 1
NOT_RUNNING = 3
RESTORE_UNAVAILABLE = 4


@contextmanager
def luod_at(
    options: Options,
    *,
    instead: str = "",
    raw: bool = False,
    given: Sequence[Given] = (),
    patience: float | None = None,
    wait: bool = False,
) -> Iterator["Client"]:
    """Connect for the `with` block. Every failure of luod's becomes a `Failed`.

    `instead` is what can be done without luod. `raw` names errors as the wire does. `given` are the descriptors that
    are sent. `patience` and `wait` are those of `luod.client.connect`.
    """
    from luod.client import ClientError, NotRunning, connect
    from luod.client.exchange import PATIENCE
    from luod.ctl.remedies import Asked, explained
    from luod.errors import RestoreUnavailable, WireError

    try:
        client = connect(options.socket, patience=PATIENCE if patience is None else patience, wait=wait)
    except NotRunning as error:
        raise Failed(f"{error}; {instead}" if instead else explained(error), NOT_RUNNING) from None
    except PermissionError as error:
        raise Failed(f"can't connect to luod at {error.filename}: {error.strerror}; try it as root") from None
    except OSError as error:
        raise Failed(f"can't connect to luod at {error.filename}: {error.strerror}") from None
    with client:
        try:
            yield client
        except WireError as error:
            status = RESTORE_UNAVAILABLE if isinstance(error, RestoreUnavailable) else REFUSED
            name = f"{error.wire_name()}: " if raw else ""
            raise Failed(f"{name}{explained(error, Asked(client, options.owner, given))}", status) from None
        except ClientError as error:
            raise Failed(explained(error), NOT_RUNNING if isinstance(error, NotRunning) else REFUSED) from None


def session_named(luod: "Client", options: Options, name: str) -> "Session":
    """A session as luod lists it, a lost one too. Raises SessionNotFound."""
    from luod.errors import SessionNotFound

    for session in luod.list(owner=options.owner):
        if session.name == name:
            return session
    raise SessionNotFound(name)


def called(options: Options, session: str) -> str:
    """A session in a sentence: `ram`, `ram of alice`."""
    return session if options.owner is None else f"{session} of {user(options.owner)}"
