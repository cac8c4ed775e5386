"""Every error says what was wrong, with what, and what to do next."""

import ast
import os
from dataclasses import fields
from errno import EBUSY, EIO, ENOMEM
from pathlib import Path

import pytest

import luod as package
from luod import errors
from luod.client import BadReply, ClientError, Disconnected, NotRunning, RemoteError, connect
from luod.client.failures import Unanswered
from luod.ctl.command import Given
from luod.ctl.output import whose
from luod.ctl.remedies import REMEDIES, SET_BY, Asked, explained
from luod.policy import Limits

OURS = whose(None)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.InterfaceNotFound("a.b"), "there is no interface 'a.b' here; see luoctl introspect"),
        (errors.MethodNotFound("a.b.C"), "there is no method 'a.b.C' here; see luoctl introspect a.b"),
        (
            errors.MethodNotImplemented("a.B"),
            "method 'a.B' is described but not implemented yet; a newer luod may have it",
        ),
        (errors.InvalidParameter("name", "must be"), "name: must be; see luoctl introspect INTERFACE"),
        (errors.PermissionDenied(), "permission denied; this is for operators, try it as root"),
        (
            errors.ExpectedMore(),
            "this method answers with several replies: call it with `more`; that is luoctl call --more",
        ),
        (errors.SessionNotFound("ram"), f"{OURS} has no session 'ram'; see luoctl list"),
        (errors.SessionExists("ram"), "there is a session 'ram' already; see luoctl show ram"),
        (errors.SessionLost("ram", "why"), "session 'ram' is lost: why; luoctl discard ram forgets it"),
        (errors.TokenNotFound("ram", 7), "session 'ram' has no token 7; see luoctl show ram"),
        (
            errors.TokenInUse("ram", 7),
            "session 'ram' has a file with token 7 already; leave --token out, and a free one is chosen",
        ),
        (errors.NotPreservable(0, "why"), "descriptor 0 can't be preserved: why"),
        (
            errors.AlreadyPreserved(0),
            "descriptor 0 is preserved already, or stands in this message twice; "
            "the kernel takes a file once, luoctl unpreserve takes it out of its session",
        ),
        (
            errors.WrongDirection("ram", "outgoing"),
            "session 'ram' is outgoing; only what came over can be finished, luoctl discard ram gives this one up",
        ),
        (
            errors.WrongDirection("ram", "incoming"),
            "session 'ram' is incoming; luoctl finish ram ends it, with --rearm it becomes outgoing",
        ),
        (
            errors.WrongMode("ram", "custodial"),
            "session 'ram' is custodial; luod itself has its files, luoctl retrieve ram gives them back",
        ),
        (
            errors.WrongMode("vm", "delegated"),
            "session 'vm' is delegated; only its owner knows what is in it, luoctl claim vm -- COMMAND lends it",
        ),
        (
            errors.RetrieveFailed("ram", 7, EIO),
            "the kernel can't give back token 7 of session 'ram': EIO (the file's memory couldn't be restored: "
            "it is gone); the other files can be had by their tokens",
        ),
        (
            errors.FinishRefused("ram", EBUSY),
            "the kernel refuses to finish session 'ram': EBUSY (a file in it isn't ready to be finished); "
            "nothing has changed, try it again later",
        ),
        (
            errors.RearmRefused("ram", 7, "why"),
            "token 7 of session 'ram' can't be preserved again: why; "
            "nothing has changed, luoctl finish ram without --rearm gives all of it up",
        ),
        (
            errors.UpdateInProgress(3),
            "live update 3 is in progress; try it again when that is over, luoctl abort ends it",
        ),
        (
            errors.QuotaExceeded("files in a session", 4096),
            "no more than 4096 files in a session; "
            "raise files_per_session under [limits] (luoctl config cat), then systemctl reload luod",
        ),
        (
            errors.RestoreUnavailable("why"),
            "this boot can't give anything back: why; do not start afresh; luod's log says more (journalctl -u luod)",
        ),
        (
            errors.KernelFailed("PRESERVE_FD", ENOMEM),
            "the kernel answered PRESERVE_FD with ENOMEM (there is not enough memory to preserve it); "
            "luod's log says more (journalctl -u luod)",
        ),
        (
            errors.KernelFailed("dup", EIO),
            "the kernel answered dup with EIO (Input/output error); luod's log says more (journalctl -u luod)",
        ),
        (errors.PreflightFailed(["image", "abi"]), "preflight failed: image, abi; see luoctl preflight"),
        (errors.BadImage("why"), "this can't be the next kernel: why"),
        (errors.NoUpdate(), "there is no such live update in progress; see luoctl status"),
        (errors.UpdateAborted("why"), "the live update was aborted: why; everything is as before"),
        (
            NotRunning("/nowhere", "why"),
            "luod is not running at /nowhere: why; start it (systemctl start luod), or name its socket with "
            "--socket or $LUOD_SOCKET",
        ),
        (Disconnected("why"), "the connection to luod is gone: why; see luoctl list whether it was done"),
        (Unanswered("why"), "the connection to luod is gone: why; see luoctl list whether it was done"),
        (BadReply("a.B", "why"), "can't read the answer to a.B: why; luod may be of another version: restart it"),
        (RemoteError("a.B", {}), "a.B; a newer luod says so: update luoctl"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_it_says_what_to_do_next(error, line):
    assert explained(error) == line


def test_no_error_was_forgotten():
    assert set(REMEDIES) == {*errors.wire_errors(), *ClientError.__subclasses__()}


def test_commands_that_it_names_are_about_the_same_owner():
    asked = Asked(owner=65533)
    assert explained(errors.SessionExists("ram"), asked).endswith("; see luoctl show ram --owner 65533")
    assert (
        explained(errors.SessionNotFound("ram"), asked) == "65533 has no session 'ram'; see luoctl list --owner 65533"
    )
    assert "luoctl discard ram --owner 65533 gives" in explained(errors.WrongDirection("ram", "outgoing"), asked)
    assert explained(errors.PermissionDenied(), asked) == "permission denied; only root acts for other users"


def test_descriptors_are_called_as_their_user_called_them():
    asked = Asked(given=[Given("'checkpoint.img'", os.getuid())])
    assert explained(errors.NotPreservable(0, "why"), asked) == "'checkpoint.img' can't be preserved: why"
    assert explained(errors.AlreadyPreserved(0), asked).startswith("'checkpoint.img' is preserved already; ")


def test_a_session_of_somebody_else_is_named_with_its_owner(luoctl, luod):
    luoctl("create", "theirs", "--owner", "65533")
    ran = luoctl("show", "theirs")
    assert ran.err == f"luoctl: {OURS} has no session 'theirs'; 65533 has one: add --owner 65533\n"


def test_where_luod_can_not_be_asked_the_error_is_said_all_the_same(luod):
    with connect(luod) as client:
        pass
    assert explained(errors.SessionNotFound("rma"), Asked(client)).endswith(" has no session 'rma'; see luoctl list")


def test_every_quota_is_set_somewhere():
    found = {
        node.args[0].value
        for path in Path(package.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("QuotaExceeded")
    }
    assert found == set(SET_BY)
    configured = [words.split()[1] for words in SET_BY.values() if "[limits]" in words]
    assert set(configured) <= set(Limits.model_fields)
    assert {field.name for field in fields(errors.QuotaExceeded)} == {"quota", "limit"}
