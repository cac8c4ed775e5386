"""luoctl config: the files that count, and what is wrong with them."""

import pytest


@pytest.fixture
def root(tmp_path):
    """A system's root, with a file of the vendor's, a masked one, and a drop-in of the administrator's."""
    for path, text in {
        "usr/lib/luod/luod.toml": "device = '/vendor'\n",
        "usr/lib/luod/luod.toml.d/20-masked.toml": "device = '/masked'\n",
        "etc/luod/luod.toml.d/20-masked.toml": "",
        "etc/luod/luod.toml.d/10-less.toml": "[limits]\nconnections = 5\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_cat_prints_what_counts_with_where_it_comes_from(luoctl, root):
    assert luoctl("config", "cat", "--root", str(root)).out == (
        f"# {root}/usr/lib/luod/luod.toml\n"
        "device = '/vendor'\n"
        "\n"
        f"# {root}/etc/luod/luod.toml.d/10-less.toml\n"
        "[limits]\n"
        "connections = 5\n"
        "\n"
        f"# {root}/etc/luod/luod.toml.d/20-masked.toml\n"
    )


def test_cat_as_json_is_the_files_in_order(luoctl, root):
    said = luoctl("config", "cat", "--json", "--root", str(root)).json
    assert [file["path"].removeprefix(f"{root}/") for file in said] == [
        "usr/lib/luod/luod.toml",
        "etc/luod/luod.toml.d/10-less.toml",
        "etc/luod/luod.toml.d/20-masked.toml",
    ]
    assert said[0]["content"] == "device = '/vendor'\n"


def test_cat_says_that_there_is_no_file(luoctl, tmp_path):
    assert (
        luoctl("config", "cat", "--root", str(tmp_path)).out == "# no file: everything is as luod has it by default\n"
    )
    assert luoctl("config", "cat", "--root", str(tmp_path), "--json").json == []


def test_what_is_in_a_file_can_not_command_the_terminal(luoctl, root):
    (root / "etc/luod/luod.toml.d/10-less.toml").write_bytes(b"# \x1b]0;owned\x07\xff\n")
    out = luoctl("config", "cat", "--root", str(root)).out
    assert r"# \x1b]0;owned\x07" in out


def test_check_says_that_all_is_well(luoctl, root, tmp_path):
    ran = luoctl("config", "check", "--root", str(root))
    assert (ran.status, ran.out, ran.err) == (0, "luod can use its configuration: 3 files\n", "")
    assert luoctl("config", "check", str(root / "usr/lib/luod/luod.toml")).out.endswith(": 1 file\n")


def test_check_names_all_that_is_wrong(luoctl, root):
    less = root / "etc/luod/luod.toml.d/10-less.toml"
    less.write_text("[limits]\nconections = 5\nconnections = 0\n")
    ran = luoctl("config", "check", "--root", str(root))
    assert (ran.status, ran.out) == (1, "")
    assert sorted(ran.err.splitlines()) == [
        f"luoctl: {less}:2: limits.conections: there is no such setting, did you mean 'connections'?",
        f"luoctl: {less}:3: limits.connections: must be greater than 0, not 0",
    ]
    said = luoctl("config", "check", "--root", str(root), "--json").json
    assert said["ok"] is False
    assert {
        "file": str(less),
        "line": 3,
        "key": "limits.connections",
        "reason": "must be greater than 0, not 0",
    } in said["problems"]


def test_check_needs_a_file_that_was_named(luoctl, tmp_path):
    ran = luoctl("config", "check", str(tmp_path / "none.toml"))
    assert (ran.status, ran.err) == (1, f"luoctl: {tmp_path / 'none.toml'}: No such file or directory\n")
