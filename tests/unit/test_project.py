"""What the files beside the code say is what the code does."""

import re
import tomllib
from pathlib import Path

from luod.config import Config
from vm import commands

ROOT = Path(__file__).parents[2]


def test_the_commented_configuration_shows_every_default():
    text = (ROOT / "config" / "luod.toml").read_text()
    shown = tomllib.loads(re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE))
    assert shown == Config().model_dump(mode="json")


def test_make_installs_all_that_virtual_machines_are_made_with():
    (packages,) = re.findall(r"^VM_PACKAGES = ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(packages.replace("\\", "").split()) == {*commands.COMMANDS.values(), *commands.FILES.values()}


def test_nothing_limits_the_memory_of_the_service():
    """A kill while what came over is retrieved would destroy it."""
    text = "".join(path.read_text() for path in (ROOT / "systemd").rglob("*") if path.is_file())
    assert "FileDescriptorStoreMax=" in text
    assert re.findall(r"^(?:Memory(?!Deny)\w+|Limit(?:AS|DATA|RSS))=.*", text, re.MULTILINE) == []


def test_the_configuration_as_it_stands_changes_nothing():
    assert Config.load(ROOT / "config" / "luod.toml") == Config()
