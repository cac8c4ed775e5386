"""With --json every command prints what the interface says, to the letter."""

import json

import pytest

from luod.client import connect
from luod.ctl.help import COMMANDS
from luod.interface import custody, update
from luod.interface.model import Reply
from luod.sim.process import simulator
from memory import memfds

from .conftest import Machine

ELSEWHERE = {
    "manifest": "test_commands.py: it is read as luod reads it",
    "config": "test_config.py",
    "network": "test_network.py",
    "install-units": "test_units.py",
    "introspect": "test_commands.py: Varlink's own reply",
    "call": "test_commands.py: whatever the method replies",
    "watch": "test_watch.py",
    "timeline": "test_timeline.py: a reply, and what is made of it",
    "claim": "test_lifecycle.py: the command has standard output for itself",
    "completion": "test_completion.py: it takes no --json",
    "load": "test_kernel.py: an image, as luod describes it",
    "unload": "test_kernel.py",
    "preflight": "test_update.py",
    "update": "test_update.py",
    "abort": "test_update.py",
    "wait-restored": "test_restored.py",
    "start-afresh": "test_restored.py",
}
"""What is no reply of io.luod.*, and where it is tested."""

SHAPES = {
    ("list",): [custody.Session],
    ("show", "ram"): custody.Session,
    ("create", "new"): custody.Session,
    ("create", "new-vm", "--delegated"): custody.Session,
    ("preserve", "new", __file__): custody.File,
    ("retrieve", "ram", "7", "--output", "/dev/null"): custody.File,
    ("unpreserve", "ram", "7"): custody.UnpreserveReply,
    ("finish", "came", "--rearm"): Reply,
    ("finish", "over"): Reply,
    ("discard", "ram"): Reply,
    ("status",): update.StatusReply,
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine on which `came` and `over` came over, and `ram` was made since."""
    directory = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as monkeypatch, simulator(directory / "sim") as sim:
        machine = Machine(sim, directory, monkeypatch)
        with connect() as luod, memfds(b"content") as (file,):
            luod.create("came")
            luod.create("over")
            luod.preserve("came", file)
        machine.live_update()
        with connect() as luod, memfds(b"content") as (file,):
            luod.create("ram")
            luod.preserve("ram", file, 7, "word")
        yield machine
        machine.stop()


@pytest.mark.parametrize(("words", "shape"), SHAPES.items(), ids=[" ".join(words) for words in SHAPES])
def test_it_is_what_the_interface_says(luoctl, machine, words, shape):
    ran = luoctl(*words, "--json")
    assert (ran.status, ran.err) == (0, "")
    said, model = (ran.json, shape[0]) if isinstance(shape, list) else ([ran.json], shape)
    assert said
    assert [model.model_validate(each).wire() for each in said] == said


def test_no_command_was_forgotten():
    assert {words[0] for words in SHAPES} | ELSEWHERE.keys() == COMMANDS.keys()


def test_it_is_one_value_for_a_program_to_read(luoctl, machine):
    assert json.loads(luoctl("--json", "list").out) == luoctl("list", "--json").json
