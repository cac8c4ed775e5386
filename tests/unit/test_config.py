"""What is configured is used, or refused with the place and the reason."""

from pathlib import Path

import pytest

from luod.config import Config, ConfigError, files


@pytest.fixture
def file(tmp_path):
    return tmp_path / "luod.toml"


@pytest.fixture
def root(tmp_path):
    """A system's root, into which a test writes."""
    return tmp_path / "root"


def write(root, path, text=""):
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


# Which files count


def test_without_a_file_there_are_defaults(root):
    assert files(root) == []
    assert Config.load(root=root) == Config()
    assert Config().device == "/dev/liveupdate"


def test_of_the_file_itself_the_nearest_to_the_administrator_counts_alone(root):
    write(root, "usr/lib/luod/luod.toml", "device = 'vendor'\nsocket = '/vendor'")
    write(root, "run/luod/luod.toml", "device = 'today'")
    assert Config.load(root=root).device == "today"
    write(root, "etc/luod/luod.toml", "carry_over_seconds = 5")
    loaded = Config.load(root=root)
    assert (loaded.device, loaded.socket, loaded.carry_over_seconds) == (Config().device, Config().socket, 5)


def test_drop_ins_come_after_it_by_their_names_wherever_they_are(root):
    write(root, "etc/luod/luod.toml.d/10-a.toml", "device = 'etc 10'\n[limits]\nconnections = 10")
    write(root, "usr/lib/luod/luod.toml.d/20-b.toml", "device = 'vendor 20'")
    write(root, "etc/luod/luod.toml", "device = 'itself'\ncarry_over_seconds = 5\n[limits]\nwatchers_per_owner = 1")
    write(root, "run/luod/luod.toml.d/30-c.toml", "limits.connections = 30")
    assert [path.name for path in files(root)] == ["luod.toml", "10-a.toml", "20-b.toml", "30-c.toml"]
    loaded = Config.load(root=root)
    assert (loaded.device, loaded.carry_over_seconds) == ("vendor 20", 5)
    assert (loaded.limits.connections, loaded.limits.watchers_per_owner) == (30, 1)


def test_of_drop_ins_with_the_same_name_one_counts(root):
    for place in ("usr/lib", "run", "etc"):
        write(root, f"{place}/luod/luod.toml.d/a.toml", f"device = '{place}'")
        assert files(root) == [root / place / "luod/luod.toml.d/a.toml"]
        assert Config.load(root=root).device == place


@pytest.mark.parametrize("how", ["empty", "link"])
@pytest.mark.parametrize("name", ["luod.toml", "luod.toml.d/a.toml"])
def test_an_empty_file_or_a_link_to_nothing_masks_its_namesake_alone(root, name, how):
    write(root, f"usr/lib/luod/{name}", "device = 'masked'")
    write(root, "usr/lib/luod/luod.toml.d/b.toml", "socket = '/b'")
    write(root, f"etc/luod/{name}")
    if how == "link":
        (root / "etc/luod" / name).unlink()
        (root / "etc/luod" / name).symlink_to("/dev/null")
    loaded = Config.load(root=root)
    assert (loaded.device, loaded.socket) == (Config().device, Path("/b"))


def test_what_is_no_drop_in_is_passed_over(root):
    for name in ("a.conf", "b.toml~", ".c.toml", "toml", "d.toml/e.toml", "sub/f.toml"):
        write(root, f"etc/luod/luod.toml.d/{name}", "device = 'x'")
    assert files(root) == []


def test_a_link_that_leads_nowhere_is_no_file_that_can_be_passed_over(root):
    write(root, "usr/lib/luod/luod.toml", "device = 'vendor'")
    (root / "etc/luod").mkdir(parents=True)
    (root / "etc/luod/luod.toml").symlink_to("gone")
    with pytest.raises(ConfigError, match=r"etc/luod/luod\.toml: No such file"):
        Config.load(root=root)


# What counts in them


def test_a_file_that_was_asked_for_is_read_alone(root, file):
    write(root, "etc/luod/luod.toml.d/a.toml", "device = 'x'")
    file.write_text("[limits]\nthreads_per_owner = 9\n")
    loaded = Config.load(file, root=root)
    assert (loaded.device, loaded.limits.threads_per_owner) == (Config().device, 9)


def test_what_is_given_goes_before_what_is_written(file):
    file.write_text("device = '/run/sim'\nsocket = '/run/one'\n")
    loaded = Config.load(file, device=None, socket=Path("/run/two"))
    assert (loaded.device, loaded.socket) == ("/run/sim", Path("/run/two"))


def test_what_is_given_can_be_wrong_too():
    with pytest.raises(ConfigError, match=r"^the command line: carry_over_seconds: must be greater than 0, not -1"):
        Config.load(carry_over_seconds=-1)


def test_a_file_that_was_asked_for_must_be_there(file):
    with pytest.raises(ConfigError, match=r"luod\.toml: No such file"):
        Config.load(file)


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="Is a directory"):
        Config.load(tmp_path)


WRONG = {
    "device = ": ":1: invalid value, at the end",
    "\ndevice = x\n": ":2: invalid value, at column 10",
    "device = 5": ":1: device: must be a valid string, not 5",
    "devise = 'x'": ":1: devise: there is no such setting, did you mean 'device'?",
    "colour = 'red'": ":1: colour: there is no such setting",
    "limits = 5": ":1: limits: must be a valid dictionary",
    "[limits]\nconnections = 0": ":2: limits.connections: must be greater than 0, not 0",
    "#connections = 1\n\n[limits]\n\nconnections = 'no'": ":5: limits.connections: must be a valid integer, not 'no'",
    "[limits]\nconnections = true": ":2: limits.connections: must be a valid integer, not True",
    "[limits]\nconections = 5": ":2: limits.conections: there is no such setting, did you mean 'connections'?",
    "[limits]\nslow_reader_seconds = nan": ":2: limits.slow_reader_seconds: must be greater than 0, not nan",
    "socket = '/a'\nlimits = { watchers_per_owner = 1.5 }": ":2: limits.watchers_per_owner: must be a valid integer",
    "[network]\nhandover = 'br0'": ":2: network.handover: must be a list, not 'br0'",
    "[network]\nhandover = ['br0', 5]": ":2: network.handover: must be a valid string, not 5",
    "[network]\nhandover = [\n  'br0',\n  '',\n]": ":2: network.handover: must be a link's name or a pattern of names",
    "[network]\nhandover = ['eth/0']": ":2: network.handover: must be a link's name or a pattern of names: 1 to 127 "
    "letters, no space, / or :, not 'eth/0'",
    "[network]\ndiffering = 'keep'": ":2: network.differing: must be 'set' or 'leave', not 'keep'",
    "[network]\nwait_seconds = -1": ":2: network.wait_seconds: must be greater than or equal to 0, not -1",
    "[network]\nwait_seconds = 61": ":2: network.wait_seconds: must be less than or equal to 60, not 61",
    "[network]\nwait_second = 1": ":2: network.wait_second: there is no such setting, did you mean 'wait_seconds'?",
    "device = [\n  'a',\n  'b',\n]\n": ":1: device: must be a valid string",
    "device = 'a'\ndevice = 'b'\n": ":2: cannot overwrite a value, at column ",
    "socket = '/a'\ndevice = '\xff'": ":2: it is not UTF-8",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:30])
def test_what_is_wrong_is_named_with_its_file_line_and_key(file, text):
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    assert str(caught.value).startswith(f"{file}{WRONG[text]}")
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(root):
    write(root, "etc/luod/luod.toml", "device = 5\nsocket = 6\n")
    write(root, "etc/luod/luod.toml.d/a.toml", "devise = 5\n")
    with pytest.raises(ConfigError) as caught:
        Config.load(root=root)
    assert [(Path(problem.file).name, problem.line, problem.key) for problem in caught.value.problems] == [
        ("luod.toml", 1, "device"),
        ("luod.toml", 2, "socket"),
        ("a.toml", 1, "devise"),
    ]


def test_what_is_wrong_in_one_file_is_not_mended_by_another(root):
    write(root, "usr/lib/luod/luod.toml", "device = 5")
    write(root, "etc/luod/luod.toml.d/a.toml", "device = 'x'")
    with pytest.raises(ConfigError, match=r"usr/lib/luod/luod\.toml:1: device"):
        Config.load(root=root)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().device = "other"
