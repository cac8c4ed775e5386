"""luoctl load, luoctl unload: which files go to luod, and what is said of them."""

import os

import pytest

from luod import errors
from memory import content

IMAGE = {
    "kind": "bzImage",
    "packing": "xz",
    "architecture": "x86_64",
    "release": "7.3.5",
    "commandLine": "quiet liveupdate=on luod.from=b/0",
}


@pytest.fixture
def files(tmp_path):
    """A kernel, an initrd and the kernel that runs, by their paths."""
    paths = [tmp_path / name for name in ("kernel", "initrd", "running")]
    for path in paths:
        path.write_bytes(path.name.encode() * 500)
    return [str(path) for path in paths]


@pytest.fixture
def loads(scripted):
    """A luod that loads what comes; `came` is what did, by the names of its parameters."""
    came = {}

    def load(conversation, parameters):
        for name, value in parameters.items():
            came[name] = content(conversation.fds[value])[:7] if name.endswith("FileDescriptor") else value
        conversation.answers({"image": IMAGE})

    scripted(LoadKernel=load, UnloadKernel={})
    return came


def test_load_sends_the_files_and_says_what_was_loaded(luoctl, loads, files):
    kernel, initrd, running = files
    ran = luoctl("load", kernel, "--initrd", initrd, "--running", running, "--cmdline", "quiet liveupdate=on")
    assert (ran.status, ran.err) == (0, "")
    assert loads == {
        "kernelFileDescriptor": b"kernelk",
        "initrdFileDescriptor": b"initrdi",
        "runningFileDescriptor": b"running",
        "commandLine": "quiet liveupdate=on",
    }
    assert [line.split(maxsplit=1) for line in ran.out.splitlines()][:4] == [
        ["Loaded", "7.3.5"],
        ["Kind", "bzImage for x86_64, packed with xz"],
        ["Size", "2.9 KiB"],
        ["Initrd", "2.9 KiB"],
    ]
    assert ran.out.splitlines()[4].endswith("quiet liveupdate=on luod.from=b/0")


def test_load_reuses_the_command_line_and_speaks_json(luoctl, loads, files):
    assert luoctl("load", files[0], "--reuse-cmdline", "--json").json == IMAGE
    assert loads == {"kernelFileDescriptor": b"kernelk", "reuseCommandLine": True}


def test_an_empty_command_line_is_one(luoctl, loads, files):
    assert luoctl("load", files[0], "--cmdline", "").status == 0
    assert loads["commandLine"] == ""


def test_what_is_no_file_is_not_sent(luoctl, scripted, tmp_path, files):
    luod = scripted()
    os.mkfifo(tmp_path / "pipe")
    for name, why in (
        ("missing", "can't read {}: No such file or directory"),
        ("", "can't load {}: it is a directory"),
        ("pipe", "can't load {}: it is not a file"),
    ):
        path = str(tmp_path / name)
        ran = luoctl("load", files[0], "--initrd", path, "--reuse-cmdline")
        assert (ran.status, ran.err) == (1, f"luoctl: {why.format(path)}\n")
    assert luod.asked == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_can_not_be_read_is_better_tried_as_root(luoctl, files):
    os.chmod(files[0], 0)
    assert luoctl("load", files[0], "--reuse-cmdline").err.endswith("Permission denied; try it as root\n")


def test_a_bad_image_is_refused_with_the_reason(luoctl, scripted, files):
    scripted(LoadKernel=errors.BadImage("there is no version of Linux in it"))
    ran = luoctl("load", files[0], "--reuse-cmdline")
    assert (ran.status, ran.err) == (1, "luoctl: this can't be the next kernel: there is no version of Linux in it\n")


@pytest.mark.parametrize(
    ("parameter", "line"),
    [
        ("runningFileDescriptor", "{}: it is another kernel's"),
        ("commandLine", "the command line: it is another kernel's"),
        ("message", "message: it is another kernel's; see luoctl introspect INTERFACE"),
    ],
)
def test_what_luod_doesn_t_take_is_called_as_its_user_called_it(luoctl, scripted, files, parameter, line):
    scripted(LoadKernel=errors.InvalidParameter(parameter, "it is another kernel's"))
    ran = luoctl("load", files[0], "--reuse-cmdline", "--running", files[2])
    assert (ran.status, ran.err) == (1, f"luoctl: {line.format(files[2])}\n")


def test_unload_asks_nothing(luoctl, loads):
    assert luoctl("unload").out == "no kernel is loaded\n"
    assert luoctl("unload", "--json").json == {}
