"""The connection to luod, and what luoctl says where luod refuses or isn't there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from luod.ctl.command import Failed, Options

if TYPE_CHECKING:
    from luod.client import Client

REFUSED = 1
NOT_RUNNING = 3
RESTORE_UNAVAILABLE = 4


@contextmanager
def luod_at(options: Options, *, instead: str = "", raw: bool = False) -> Iterator["Client"]:
    """Connect for the `with` block. Every failure of luod's becomes a `Failed`.

    `instead` is what can be done without luod. `raw` names errors as the wire does.
    """
    from luod.client import ClientError, NotRunning, connect
    from luod.errors import PermissionDenied, RestoreUnavailable, WireError

    try:
        client = connect(options.socket)
    except NotRunning as error:
        remedy = instead or "start it (systemctl start luod), or name its socket with --socket or $LUOD_SOCKET"
        raise Failed(f"{error}; {remedy}", NOT_RUNNING) from None
    except OSError as error:
        raise Failed(f"can't connect to luod at {error.filename}: {error.strerror}") from None
    with client:
        try:
            yield client
        except WireError as error:
            status = RESTORE_UNAVAILABLE if isinstance(error, RestoreUnavailable) else REFUSED
            name = f"{error.wire_name()}: " if raw else ""
            hint = ": this is for operators, try it as root" if isinstance(error, PermissionDenied) else ""
            raise Failed(f"{name}{error}{hint}", status) from None
        except ClientError as error:
            raise Failed(str(error)) from None
