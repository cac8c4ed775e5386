"""A luod that a test writes: what it says to each method, on as many connections as there are."""

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from luod.errors import MethodNotFound, WireError
from luod.varlink.messages import Call

from ..client.played import Peer

Answer = dict | WireError | Callable[["Conversation", dict], None]


class Conversation(Peer):
    """One connection to it."""

    def hear(self) -> Call | None:
        """The next call; None when the client is gone."""
        try:
            return self.receives()
        except (AssertionError, ConnectionError):
            return None

    def says(self, said: dict) -> None:
        """A reply that isn't the last one."""
        self.answers(said, continues=True)


class Scripted:
    """It listens at `path`. `script` has an answer for each method, by its name; `asked` is what it was asked."""

    def __init__(self, path: str, script: Mapping[str, Answer]) -> None:
        self.path = path
        self.script = dict(script)
        self.asked: list[tuple[str, dict]] = []
        self.given: list[bytes] = []
        self._conversations: list[Conversation] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._begin(self._accept)

    def close(self) -> None:
        """It ends: whoever waits for an answer gets none."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for conversation in self._conversations:
            with suppress(OSError):
                conversation.sock.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()
        self._listener.close()

    def methods(self) -> list[str]:
        return [method for method, _ in self.asked]

    def _begin(self, work: Callable, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                conversation = Conversation(sock)
                self._conversations.append(conversation)
                self._begin(self._serve, conversation)

    def _serve(self, conversation: Conversation) -> None:
        with conversation.sock, suppress(ConnectionError):
            while (call := conversation.hear()) is not None:
                method = call.method.rpartition(".")[2]
                self.asked.append((method, call.parameters))
                answer = self.script.get(method, MethodNotFound(call.method))
                if callable(answer):
                    answer(conversation, call.parameters)
                elif isinstance(answer, WireError):
                    conversation.refuses(answer)
                else:
                    conversation.answers(answer)
            conversation.fds.close()
