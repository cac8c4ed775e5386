"""What is configured is used or refused with the place and the reason."""

from pathlib import Path

import pytest

from luod import config
from luod.config import Config, ConfigError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "luod.toml"


def test_without_a_file_there_are_defaults(monkeypatch, file):
    monkeypatch.setattr(config, "DEFAULT", file)
    assert Config.load() == Config()
    assert Config().device == "/dev/liveupdate"


def test_the_usual_file_is_read_where_it_is_there(monkeypatch, file):
    monkeypatch.setattr(config, "DEFAULT", file)
    file.write_text('device = "/run/sim"\n[limits]\nthreads_per_owner = 9\n')
    loaded = Config.load()
    assert (loaded.device, loaded.limits.threads_per_owner) == ("/run/sim", 9)
    assert loaded.socket == Config().socket


def test_what_is_given_goes_before_what_is_written(file):
    file.write_text('device = "/run/sim"\nsocket = "/run/one"\n')
    loaded = Config.load(file, device=None, socket=Path("/run/two"))
    assert (loaded.device, loaded.socket) == ("/run/sim", Path("/run/two"))


def test_a_file_that_was_asked_for_must_be_there(file):
    with pytest.raises(ConfigError, match=r"luod\.toml: No such file"):
        Config.load(file)


def test_what_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="Is a directory"):
        Config.load(tmp_path)
    monkeypatch.setattr(config, "DEFAULT", tmp_path)
    with pytest.raises(ConfigError, match="Is a directory"):
        Config.load()


WRONG = {
    "device = ": "Invalid value",
    "device = x\n": "line 1",
    "device = 5": "device: ",
    "devise = 'x'": "devise: ",
    "limits = 5": "limits: ",
    "[limits]\nconnections = 0": "limits.connections: ",
    "[limits]\nconnections = 'many'": "limits.connections: ",
    "[limits]\nconnections = true": "limits.connections: ",
    "[limits]\nbananas = 5": "limits.bananas: ",
    "[limits]\nslow_reader_seconds = nan": "limits.slow_reader_seconds: ",
    "device = 'a'\ndevice = 'b'\n": "line 2",
    "device = '\xff'": "utf-8",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:30])
def test_what_is_wrong_is_named_with_its_file_in_one_line(file, text):
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert WRONG[text] in said
    assert "\n" not in said


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().device = "other"
