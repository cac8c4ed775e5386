"""Services paused and let go on, by a systemctl that is a script: it knows each unit by a file with its state."""

import os

import pytest

from luod import pause, systemd
from luod.systemd import CantAsk

SYSTEMCTL = """#!/bin/sh
shift 2
verb=$1
shift
cd "$(dirname "$0")/units"
echo "$verb" >>../asked
case $verb in
show)
    shift
    for unit in $*; do
        [ -e "$unit" ] && is=active || is=inactive
        printf 'Id=%s\\nActiveState=%s\\n' "$unit" "$is"
        printf 'FreezerState=%s\\n\\n' "$(cat "$unit" 2>/dev/null || echo running)"
    done ;;
freeze | thaw)
    for unit; do
        case $(cat "$unit" 2>/dev/null) in
        '') echo "Failed to $verb unit $unit: Unit $unit not loaded." >&2 ;;
        stuck) ;;
        *) [ "$verb" = freeze ] && echo frozen >"$unit" || echo running >"$unit" ;;
        esac
    done ;;
esac
"""

STORES = """#!/bin/sh
cat <<END
Id=luod.service
FileDescriptorStorePreserve=yes
NFileDescriptorStore=9

Id=vm.service
FileDescriptorStorePreserve=yes
NFileDescriptorStore=2

Id=empty.service
FileDescriptorStorePreserve=yes
NFileDescriptorStore=0

Id=forgetful.service
FileDescriptorStorePreserve=restart
NFileDescriptorStore=3

Id=old.service
END
"""


class Systemd:
    """A systemd that consists of this script."""

    def __init__(self, path):
        self.path = path
        (path / "units").mkdir()

    def script(self, text):
        (self.path / "systemctl").write_text(text)
        (self.path / "systemctl").chmod(0o755)

    def has(self, **states):
        for name, state in states.items():
            (self.path / "units" / f"{name}.service").write_text(f"{state}\n")

    def state(self, name):
        return (self.path / "units" / f"{name}.service").read_text().strip()


@pytest.fixture
def manager(tmp_path, monkeypatch):
    monkeypatch.setattr(systemd, "_SYSTEMD_RUNS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    manager = Systemd(tmp_path)
    manager.script(SYSTEMCTL)
    return manager


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "runtime").mkdir()
    return tmp_path / "runtime"


def test_what_is_paused_is_known_until_it_goes_on(manager, directory):
    manager.has(a="running", b="running")
    assert pause.freeze(["a.service", "b.service", "a.service"], directory) == {}
    assert [manager.state(name) for name in "ab"] == ["frozen"] * 2
    assert (directory / pause.FROZEN).read_text().split() == ["a.service", "b.service"]
    assert pause.thaw(directory) == {}
    assert [manager.state(name) for name in "ab"] == ["running"] * 2
    assert list(directory.iterdir()) == []


def test_what_can_not_be_paused_is_named_with_the_reason(manager, directory):
    manager.has(a="running", b="stuck")
    failures = pause.freeze(["a.service", "b.service", "none.service"], directory)
    assert failures == {"b.service": "it is stuck", "none.service": "Unit none.service not loaded."}
    assert manager.state("a") == "frozen"


def test_where_nothing_runs_there_is_nothing_to_pause(manager):
    manager.has(b="running", a="frozen")
    assert pause.at_work(["b.service", "none.service", "a.service", "b.service"]) == ["a.service", "b.service"]
    assert pause.at_work([]) == []


def test_where_systemd_does_not_tell_everything_may_run(manager, tmp_path, monkeypatch):
    manager.script("#!/bin/sh\nexit 1\n")
    assert pause.at_work(["none.service"]) == ["none.service"]
    monkeypatch.setattr(systemd, "_SYSTEMD_RUNS", tmp_path / "nowhere")
    assert pause.at_work(["none.service"]) == ["none.service"]


def test_what_luod_needs_itself_and_what_is_no_service_is_not_even_asked_for(manager, directory):
    failures = pause.freeze(["luod.service", "init.scope", "dbus.service", "user.slice", "a.mount"], directory)
    assert list(failures.values()) == ["luod itself needs it"] * 3 + ["only services and scopes are paused"] * 2
    assert not (manager.path / "asked").exists()
    assert list(directory.iterdir()) == []


def test_each_is_let_go_on_whatever_becomes_of_the_others_and_those_that_do_not_are_tried_again(manager, directory):
    manager.has(a="running", b="running")
    pause.freeze(["b.service", "a.service"], directory)
    manager.has(b="stuck")
    assert pause.thaw(directory) == {"b.service": "it is stuck"}
    assert manager.state("a") == "running"
    manager.has(b="frozen")
    assert pause.thaw(directory) == {}
    assert list(directory.iterdir()) == []


def test_a_systemd_that_does_not_answer_has_paused_nothing_as_far_as_anybody_knows(manager, directory, monkeypatch):
    monkeypatch.setattr(pause, "PATIENCE", 0.05)
    manager.script("#!/bin/sh\nexec sleep 60\n")
    assert pause.freeze(["a.service"], directory) == {"a.service": "systemctl show: no answer for 0.05 s"}
    assert (directory / pause.FROZEN).read_text().split() == ["a.service"]


def test_without_systemd_nothing_is_paused(tmp_path, directory, monkeypatch):
    monkeypatch.setattr(systemd, "_SYSTEMD_RUNS", tmp_path / "not there")
    assert pause.freeze(["a.service"], directory) == {"a.service": "there is no systemd"}
    assert pause.thaw(directory) == {}
    assert pause.other_stores() == {}


def test_stores_are_those_of_others_that_have_something_in_them_and_are_to_be_kept(manager):
    manager.script(STORES)
    assert pause.other_stores() == {"vm.service": 2}


def test_a_systemd_that_says_nothing_of_stores_is_not_taken_for_one_without_any(manager):
    manager.script("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    with pytest.raises(CantAsk, match="systemctl show: Failed to connect to bus"):
        pause.other_stores()
