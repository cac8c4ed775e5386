"""A luod that each test plays itself, and both kinds of client."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from luod.client import Client, connect

from .played import InTrio, Stage


@pytest.fixture
def luod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(str(tmp_path / "io.luod"))
    monkeypatch.setenv("LUOD_SOCKET", stage.path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(stage.path)
        listener.listen()
        thread = threading.Thread(target=stage.serve, args=[listener])
        thread.start()
        yield stage
        stage.scripts.put(None)
        thread.join()
    assert stage.failures == []


@pytest.fixture(params=[connect, InTrio], ids=["blocking", "trio"])
def connected(request: pytest.FixtureRequest) -> Callable[..., Client]:
    return request.param
