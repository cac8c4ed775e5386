"""Clients that are at it all the time, whatever becomes of luod meanwhile."""

import os
import random
import threading
from contextlib import contextmanager

from luod.client import ToPreserve, connect
from luod.errors import SessionLost
from memory import content, memfds

LOOK_EVERY = 20
"""After how many requests a client looks at what is there."""


class Wanderer:
    """A client that asks for one thing after another, and is answered whatever luod dies of meanwhile.

    `sure` is what it was told is there, by session and token. `exposed` are those of its sessions that came over and of
    which nothing was answered since: only if luod dies between RETRIEVE_SESSION and FDSTORE, one is lost.
    """

    def __init__(self, luod, number):
        self.problems = []
        self.done = 0
        self.lost = 0
        self._luod = luod
        self._number = number
        self._random = random.Random(number)
        self._count = 0
        self.sure = {}
        self.exposed = set()

    def run(self, stop):
        """Go on until `stop`, an event."""
        try:
            with connect(self._luod.socket) as client:
                while not stop.is_set():
                    if self.done % LOOK_EVERY == 0:
                        self.look(client)
                    try:
                        self.ask(client)
                    except SessionLost as error:
                        self.lose(client, error.session)
                    self.done += 1
        except BaseException as error:
            self.problems.append(f"w{self._number}: {error!r}")
            raise

    def look(self, client):
        """Find what is there, and that it is what it must be."""
        found = {}
        for session in client.list():
            if session.name.startswith(f"w{self._number}-"):
                try:
                    files = client.retrieve(session.name)
                except SessionLost:
                    self.lose(client, session.name)
                    continue
                self.exposed.discard(session.name)
                found[session.name] = {token: content(fd) for token, fd in files.items()}
                for fd in files.values():
                    fd.close()
        assert found == self.sure

    def lose(self, client, name):
        assert name in self.exposed, f"{name} is lost, and it can't be"
        self.exposed.remove(name)
        self.lost += 1
        client.discard(name)
        self.sure.pop(name)

    def ask(self, client):
        """Ask for something. It is sure once it was answered."""
        act, after = self._random.choice([self._create, self._preserve, self._preserve, self._unpreserve, self._end])()
        if act is not None:
            act(client)
            self.sure = after

    def _copy(self):
        return {name: dict(files) for name, files in self.sure.items()}

    def _create(self):
        if len(self.sure) >= 4:
            return None, None
        self._count += 1
        name = f"w{self._number}-{self._count}"
        return lambda client: client.create(name), self._copy() | {name: {}}

    def _preserve(self):
        if not self.sure:
            return None, None
        name = self._random.choice(list(self.sure))
        self._count += 1
        contents = {self._count * 10 + more: os.urandom(50) for more in range(self._random.randint(1, 4))}
        after = self._copy()
        after[name] |= contents
        return lambda client: self._outgoing(client, name) and self._give(client, name, contents), after

    def _give(self, client, name, contents):
        with memfds(*contents.values()) as fds:
            given = [ToPreserve(fd, token) for token, fd in zip(contents, fds, strict=True)]
            client.preserve_all(name, given)

    def _outgoing(self, client, name):
        """Take back what came over, before something is added to it."""
        if client.find(name).direction == "incoming":
            client.finish(name, rearm=True)
        self.exposed.discard(name)
        return True

    def _unpreserve(self):
        names = [name for name, files in self.sure.items() if files]
        if not names:
            return None, None
        name = self._random.choice(names)
        tokens = self._random.sample(list(self.sure[name]), self._random.randint(1, len(self.sure[name])))
        after = self._copy()
        for token in tokens:
            del after[name][token]
        return lambda client: self._outgoing(client, name) and client.unpreserve(name, tokens), after

    def _end(self):
        if len(self.sure) < 3:
            return None, None
        name = self._random.choice(list(self.sure))
        after = self._copy()
        del after[name]

        def end(client):
            if client.find(name).direction == "incoming":
                client.finish(name)
            else:
                client.discard(name)
            self.exposed.discard(name)

        return end, after


@contextmanager
def wandering(wanderers):
    """Have them wander for the `with` block; yields the event that ends it. They met nothing that they should not."""
    stop = threading.Event()
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in wanderers]
    for thread in threads:
        thread.start()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [problem for each in wanderers for problem in each.problems] == []
