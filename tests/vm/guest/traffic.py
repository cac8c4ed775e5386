"""Owners who never rest, and what their requests come to when a live update strikes.

What an owner asks for, and what is in his files, follows from the number of each request: so whoever knows how many
were done knows all that must be there, to the last byte.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from luod.client import OwnedFd, ToPreserve, connect

LOST = "lost"
"""What becomes of a session that came over and wasn't finished before the next live update."""


class Request(NamedTuple):
    """What an owner asks for: a method of luod's client, and the tokens of the files that it is about."""

    method: str
    session: str
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Owner:
    """An owner in one boot. `came` is what he has from before the last live update: session, token, SHA-256."""

    uid: int
    boot: int
    came: Mapping[str, Mapping[str, str]]

    def requests(self):
        """All that he asks for, without end. Half of what came over he finishes, one by one, every other with rearm."""
        came = iter([session for session in self.came if self.came[session] != LOST][: len(self.came) // 2])
        number = 0
        while True:
            new, old, older = (f"{self.boot}-{number - back}" for back in (0, 1, 3))
            yield Request("create", new)
            yield Request("preserve", new, (0, 1, 2))
            yield Request("preserve", new, (3,))
            if number >= 1:
                yield Request("unpreserve", old, (1, 3))
            if number % 3 == 2:  # the rest of it: luod renews an empty session
                yield Request("unpreserve", old, (0, 2))
                yield Request("preserve", old, (4, 5))
            if number % 5 == 4:
                yield Request("discard", older)
            if session := next(came, None):
                yield Request("rearm" if number % 2 else "finish", session)
            number += 1

    def files(self, request):
        """What the files of a request are called, and have in them."""
        return {str(token): sha256(self.uid, request.session, token) for token in request.tokens}

    def has(self, count):
        """What he has in the next kernel, where so many of his requests were done."""
        there = dict.fromkeys(self.came, LOST)
        for _, request in zip(range(count), self.requests(), strict=False):
            files = self.files(request)
            match request.method:
                case "create":
                    there[request.session] = {}
                case "preserve":
                    there[request.session] |= files
                case "unpreserve":
                    there[request.session] = {t: d for t, d in there[request.session].items() if t not in files}
                case "rearm":
                    there[request.session] = self.came[request.session]
                case "discard" | "finish":
                    del there[request.session]
        return there


def content(uid, session, token):
    """What is in a file: of another length under each token."""
    return f"{uid} {session} {token}\n".encode() * (200 + token * 100)


@cache
def sha256(uid, session, token):
    return hashlib.sha256(content(uid, session, token)).hexdigest()


def go_on(**owner):
    """Be an owner, for ever. Print each request, with its files, once luod has acknowledged it."""
    owner = Owner(**owner)
    os.setuid(owner.uid)
    with connect() as luod:
        for request in owner.requests():
            _ask(luod, owner, request)
            print(json.dumps([request.method, request.session, owner.files(request)]), flush=True)


def _ask(luod, owner, request):
    match request.method:
        case "preserve":
            with ExitStack() as stack:
                files = []
                for token in request.tokens:
                    fd = stack.enter_context(OwnedFd(os.memfd_create("traffic", os.MFD_CLOEXEC)))
                    os.write(fd.fileno(), content(owner.uid, request.session, token))
                    files.append(ToPreserve(fd, token))
                luod.preserve_all(request.session, files)
        case "unpreserve":
            luod.unpreserve(request.session, request.tokens)
        case "rearm":
            luod.finish(request.session, rearm=True)
        case "create" | "discard" | "finish":
            getattr(luod, request.method)(request.session)
