"""One text says what luoctl can do, and costs next to nothing."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from luod.ctl.help import COMMANDS, VERSION, help_text
from luod.ctl.run import luoctl as group

TOP = click.Context(group, info_name="luoctl")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], []])
def test_help_and_version_import_nothing_but_what_they_print(arguments):
    code = f"""if True:
        import sys
        before = set(sys.modules)
        from luod.ctl import main
        main({arguments})
        print(sorted(sys.modules.keys() - before))
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "['luod', 'luod.ctl', 'luod.ctl.help']"


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["--json", "--help"], ["--help", "list"]])
def test_the_help_is_the_same_wherever_it_is_asked_for(luoctl, arguments):
    ran = luoctl(*arguments)
    assert (ran.status, ran.out, ran.err) == (0, help_text() + "\n", "")


def test_no_command_is_a_wrong_usage_that_gets_the_help(luoctl):
    ran = luoctl()
    assert (ran.status, ran.out, ran.err) == (2, "", help_text() + "\n")
    assert luoctl("--json").err == "luoctl: missing command (see luoctl -h)\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--json", "--version"]])
def test_the_version_is_the_same_wherever_it_is_asked_for(luoctl, arguments):
    assert luoctl(*arguments).out == f"{VERSION}\n"


def test_the_help_fits_80_columns():
    assert max(map(len, help_text().splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_what_the_table_says(name):
    _, _, arguments, _ = COMMANDS[name]
    command = group.get_command(TOP, name)
    assert command.name == name
    if isinstance(command, click.Group):
        assert arguments.split()[0] == "|".join(command.commands)
    else:
        usage = command.collect_usage_pieces(click.Context(command, info_name=name))
        assert " ".join(usage).startswith(f"[OPTIONS] {arguments}".strip())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_of_its_own(luoctl, name):
    ran = luoctl(name, "--help")
    assert ran.status == 0
    assert ran.out.startswith(f"Usage: luoctl {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json_and_a_socket(name):
    command = group.get_command(TOP, name)
    if name == "completion":  # a script is no JSON, and needs no luod
        return
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        options = {option for param in leaf.params for option in param.opts}
        assert {"--json", "--socket"} <= options
        named = {param.name for param in leaf.params}
        assert "--owner" in options or not named & {"session", "sessions"}


def test_the_documents_name_every_command():
    text = (Path(__file__).parents[3] / "docs" / "luoctl.md").read_text()
    named = re.findall(r"^\| `([a-z-]+)", text, re.MULTILINE)
    assert list(dict.fromkeys(named)) == list(COMMANDS)
