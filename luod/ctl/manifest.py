"""luoctl manifest: what goes over with a live update, from luod or from a copy."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from luod.ctl.command import Failed, Group, Options
from luod.ctl.link import luod_at
from luod.ctl.output import age, count, facts, print_json, print_line, show, size, styled, table, user

if TYPE_CHECKING:
    from rich.console import RenderableType

    from luod.manifest import Document

COPY = "/run/luod/manifest.json"

file_argument = click.argument("file", required=False)


@click.group("manifest", cls=Group)
def manifest_command() -> None:
    """Show or verify what goes over with a live update: the manifest.

    It comes from luod, or from FILE: /run/luod/manifest.json or a copy of it, a copy of the journal, or - for standard
    input.
    """


@manifest_command.command("show")
@file_argument
@click.pass_obj
def show_manifest(options: Options, file: str | None) -> None:
    """Show every session and file in the manifest. With --json: the manifest."""
    copy = _read(options, file)
    if options.json or copy.document is None:
        print_json(copy.json)
    else:
        show(*_parts(copy.document))
    if copy.distrust is not None:
        click.echo(f"luoctl: {copy.distrust}", err=True)


@manifest_command.command("verify")
@file_argument
@click.pass_obj
def verify_manifest(options: Options, file: str | None) -> None:
    """Say whether the manifest is whole and luod can read it. With --json: {"ok", "reason"}."""
    copy = _read(options, file)
    if options.json:
        print_json({"ok": copy.distrust is None, "reason": copy.distrust})
    if copy.distrust is not None or copy.document is None:
        raise Failed(copy.distrust or f"{copy.name} can't be read")
    if not options.json:
        whole = copy.document
        files = sum(len(session.files) for session in whole.sessions)
        holds = f"{count(len(whole.sessions), 'session')}, {count(files, 'file')}"
        print_line(f"{copy.name} is whole: version {whole.version}, generation {whole.generation}, {holds}")


@dataclass(frozen=True)
class Copy:
    """A manifest. `document` is None where it can't be read, `distrust` says why luod couldn't rely on it."""

    name: str
    json: dict[str, Any]
    document: "Document | None"
    distrust: str | None


def _read(options: Options, file: str | None) -> Copy:
    """Raises Failed where there is nothing to show."""
    if file is not None:
        try:
            return _copy(file, sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
        except OSError as error:
            raise Failed(f"can't read {file}: {error.strerror}") from None
    with luod_at(options, instead=f"its last manifest may be in {COPY}: name that as FILE") as luod:
        manifest = luod.manifest()
    return _copy("the manifest", json.dumps(manifest).encode())


def _copy(name: str, data: bytes) -> Copy:
    from pydantic import ValidationError

    from luod.manifest import Document, ManifestError

    try:
        document = Document.read(data)
        return Copy(name, document.model_dump(mode="json", by_alias=True), document, None)
    except ManifestError as error:
        distrust = f"{name} can't be trusted: {error.reason}"
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Failed(distrust)
    try:
        return Copy(name, found, Document.model_validate(found), distrust)
    except ValidationError:
        return Copy(name, found, None, distrust)


def _parts(document: "Document") -> "list[RenderableType]":
    about = facts(
        {
            "Version": document.version,
            "Generation": document.generation,
            "Boot": document.boot_id,
            "Epoch": document.epoch,
            "Checksum": document.checksum,
        }
    )
    if not document.sessions:
        return [about, styled("no sessions", "dim")]
    sessions = table(
        "SESSION",
        "OWNER",
        "STATE",
        "MODE",
        ">UPDATES",
        ">FILES",
        "CREATED",
        "IN THE KERNEL",
        rows=[
            (
                session.name,
                user(session.uid),
                session.state,
                session.mode,
                session.generation,
                len(session.files),
                age(session.created_usec),
                session.kernel_name,
            )
            for session in document.sessions
        ],
    )
    files = [
        (session.name, user(session.uid), file.token, number, file.name, size(file.size), file.state)
        for session in document.sessions
        for number, file in session.files.items()
    ]
    if not files:
        return [about, sessions]
    return [
        about,
        sessions,
        table("SESSION", "OWNER", ">TOKEN", ">IN THE KERNEL", "NAME", ">SIZE", "STATE", rows=files),
    ]
