"""What other services have in their fd stores that a kernel may take over, by a systemd that consists of scripts."""

import json
import os

import pytest

from luod import pause, systemd

STORES = """#!/bin/sh
for unit in journal vm; do
    printf 'Id=%s.service\\nFileDescriptorStorePreserve=yes\\nNFileDescriptorStore=2\\n\\n' $unit
done
"""

SOCKET, WATCH, MEMORY = "socket:[874]", "anon_inode:inotify", "/memfd:state (deleted)"


@pytest.fixture
def in_store(tmp_path, monkeypatch):
    """Says what is in each store. Of others systemd says nothing."""
    monkeypatch.setattr(systemd, "_SYSTEMD_RUNS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    _script(tmp_path / "systemctl", STORES)

    def say(**paths):
        for unit, entries in paths.items():
            (tmp_path / f"{unit}.service").write_text(json.dumps([{"path": path} for path in entries]))
        _script(tmp_path / "systemd-analyze", f'#!/bin/sh\ncd {tmp_path} && cat "$4"\n')

    return say


def _script(path, text):
    path.write_text(text)
    path.chmod(0o755)


def test_what_no_kernel_carries_over_does_not_count(in_store):
    in_store(journal=[SOCKET, "pipe:[12]", WATCH], vm=[MEMORY, SOCKET])
    assert pause.other_stores() == {"vm.service": 1}


def test_where_systemd_does_not_say_what_there_is_all_counts(in_store):
    in_store(journal=[SOCKET, SOCKET])
    assert pause.other_stores() == {"vm.service": 2}
