"""What holds for every test: it leaves no descriptor, no process and no unexpected word in the log behind."""

import logging
import signal

import pytest

from leftovers import children, open_descriptors
from luod.sim.process import simulator


def pytest_configure():
    """Ctrl-C means what it means, for what tests start too: a shell's background jobs ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_is_left_over(caplog, request):
    """Fail a test that leaks. One that expects luod to warn says so: @pytest.mark.warns("text", ...)."""
    before = open_descriptors(), children()
    yield
    assert (open_descriptors(), children()) == before
    marker = request.node.get_closest_marker("warns")
    expected = marker.args if marker else ()
    records = [record for phase in ("setup", "call", "teardown") for record in caplog.get_records(phase)]
    said = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    allowed = (*expected, "letting go of")  # what luod says when it is stopped with sessions
    assert [text for text in said if not any(known in text for known in allowed)] == []
    assert [known for known in expected if not any(known in text for text in said)] == []


@pytest.fixture
def sim(tmp_path):
    """A simulated kernel of this test's own: its `Control`."""
    with simulator(tmp_path / "sim") as control:
        yield control
