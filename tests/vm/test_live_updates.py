"""Live updates that nobody announced to luod: whatever it had acknowledged comes back, to the last byte."""

import hashlib

import pytest

from vm.guest import clients
from vm.steps import comes_back, luod, nothing_is_left, report

LARGE = 1024
"""Mebibytes in a large file."""


@pytest.mark.parametrize(
    ("sessions", "files"),
    [
        pytest.param(1, 0, id="an empty session"),
        pytest.param(1, 500, id="500 files in a session"),
        pytest.param(2000, 1, id="2,000 sessions", marks=pytest.mark.long),
        pytest.param(100, 100, id="10,000 files", marks=pytest.mark.long),
    ],
)
def test_all_files_come_back(vm, sessions, files):
    luod(vm)
    given = vm.call(clients.preserve, sessions=sessions, files=files)
    report("before", given)
    assert vm.kexec().number == 1
    luod(vm)
    held = comes_back(vm, given["table"], finish=True)["held"]
    assert held == {"generation": 1, "sessions": [sessions] * 3, "files": [sessions * files] * 3}
    assert nothing_is_left(vm)


def test_a_file_of_a_gibibyte_comes_back(machine):
    with machine(memory="4G") as vm:
        luod(vm)
        report("before", vm.call(clients.preserve_large, size=LARGE))
        vm.kexec()
        luod(vm)
        digest = hashlib.sha256()
        for mebibyte in clients.mebibytes(LARGE):
            digest.update(mebibyte)
        comes_back(vm, {"large": {"0": digest.hexdigest()}})


def test_a_delegated_session_comes_back_to_its_owner(vm):
    luod(vm)
    given = vm.call(clients.preserve_delegated)
    vm.kexec()
    luod(vm)
    comes_back(vm, given["table"], finish=True)
    assert nothing_is_left(vm)


def test_what_is_finished_with_rearm_comes_through_the_next_live_update_too(vm):
    luod(vm)
    given = vm.call(clients.preserve, sessions=3, files=20)["table"]
    for generation in 1, 2:
        assert vm.kexec().number == generation
        luod(vm)
        assert comes_back(vm, given, rearm=True)["held"]["generation"] == generation
