"""luoctl watch: each event on a line, as it comes."""

import json
import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from luod.client import connect
from luod.interface.custody import WatchReply

from .conftest import LUOCTL


@contextmanager
def watching(*arguments):
    """A luoctl that watches; Ctrl-C ends it without a word."""
    command = [*LUOCTL, "watch", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
    assert (process.returncode, rest) == (130, "")


@pytest.fixture
def ram(machine):
    with connect() as luod:
        luod.create("ram")
    return machine


def test_it_tells_of_a_live_update_and_goes_on_after_it(ram):
    with watching() as luoctl:
        first = luoctl.stdout.readline()
        ram.live_update()
        told = [luoctl.stdout.readline() for _ in range(3)]
    assert re.fullmatch(r"\d\d:\d\d:\d\d  watching\n", first)
    assert [line[10:] for line in told] == [
        "stopping  luod stops\n",
        "watching\n",
        "restored  sessions came over and wait for their owner\n",
    ]


def test_it_tells_of_an_update_that_comes_and_of_one_that_is_off(scripted):
    def watch(conversation, parameters):
        conversation.says({"event": "watching", "watcher": "secret"})
        until = time.time_ns() // 1000 + 30_200_000
        conversation.says({"event": "prepare", "update": 4, "deadlineUSec": until})
        conversation.says({"event": "aborted", "update": 4, "reason": "a guest is migrating"})
        assert conversation.hear() is None

    scripted(Watch=watch)
    with watching() as luoctl:
        told = [luoctl.stdout.readline() for _ in range(3)]
    assert [re.sub(r"2\d s left", "30 s left", line[10:]) for line in told] == [
        "watching\n",
        "prepare   live update 4; 30 s left to get ready\n",
        "aborted   it is off, everything is as before; live update 4; a guest is migrating\n",
    ]


def test_as_json_each_line_is_a_reply_without_the_secret(ram):
    with watching("--json", "ram") as luoctl:
        said = json.loads(luoctl.stdout.readline())
    assert said == {"event": "watching"}
    assert WatchReply.model_validate(said).wire() == said


def test_a_session_that_is_not_there_yet_is_watched_with_a_warning(ram):
    with watching("rma") as luoctl:
        assert luoctl.stderr.readline().endswith(" has no session 'rma', did you mean 'ram'? (watching all the same)\n")
        assert luoctl.stdout.readline().endswith("watching\n")


def test_it_needs_a_luod_to_begin_with(luoctl):
    assert luoctl("watch", "--socket", "/nowhere").status == 3


def test_a_reader_that_goes_away_ends_it_at_the_next_event(ram):
    reading, writing = os.pipe()
    with subprocess.Popen([*LUOCTL, "watch"], stdout=writing, stderr=subprocess.PIPE) as luoctl:
        os.close(writing)
        os.read(reading, 100)
        os.close(reading)
        ram.stop()
        assert luoctl.stderr.read() == b""
    assert luoctl.returncode == 141
