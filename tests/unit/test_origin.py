"""Where a kernel came from is told by its command line; what should have come over and didn't is missed."""

import pytest

from luod.origin import Afresh, Origin, origin_in, with_origin, without_origin

BOOT = "0a1b2c3d-0000-4000-8000-00000000000f"
OTHER = BOOT.replace("f", "e")


@pytest.mark.parametrize(
    ("line", "origin"),
    [
        ("", None),
        ("quiet", None),
        (f"quiet luod.from={BOOT}/7", Origin(BOOT, 7)),
        (f"luod.from={OTHER}/6 quiet luod.from={BOOT}/7", Origin(BOOT, 7)),
        (f"quiet -- luod.from={BOOT}/7", None),
        (f"luod.from={BOOT}", None),
        (f"luod.from={BOOT}/-1", None),
        ("luod.from=nowhere/1", None),
        ("luod.from", None),
    ],
)
def test_the_last_origin_that_makes_sense_counts(line, origin):
    assert origin_in(line) == origin


def test_an_older_origin_is_taken_out_of_a_line_that_is_used_again():
    line = with_origin("quiet root=/dev/vda -- single", Origin(OTHER, 6))
    assert with_origin(line, Origin(BOOT, 7)) == f"quiet root=/dev/vda luod.from={BOOT}/7 -- single"
    assert without_origin(line) == "quiet root=/dev/vda -- single"


def test_a_start_afresh_is_allowed_in_this_boot_only(tmp_path):
    directory = tmp_path / "luod"
    assert not Afresh(directory, BOOT).is_allowed()
    Afresh(directory, BOOT).allow()
    Afresh(directory, BOOT).allow()
    assert Afresh(directory, BOOT).is_allowed()
    assert not Afresh(directory, OTHER).is_allowed()
    assert [path.name for path in directory.iterdir()] == ["start-afresh"]


def test_what_came_from_another_boot_is_missed_where_it_is_not_there(machine):
    origin = f"{machine.recovered.manifest.boot_id}/0"
    machine.create("ram", b"one")
    machine.goes_into(f"liveupdate=on luod.from={origin}", kho=("kho-v9",))
    reason = machine.impossible()
    assert reason == (
        f"a live update from boot {origin.partition('/')[0]}, generation 0 started this kernel, and nothing came over"
    )
    assert machine.impossible() == reason
    machine.afresh = True
    machine.boot()
    assert machine.everything() == {}


def test_a_luod_that_begins_again_in_the_same_kernel_misses_nothing(kept_machine):
    machine = kept_machine
    machine.goes_into(f"liveupdate=on luod.from={machine.recovered.manifest.boot_id}/0")
    machine.boot()
    machine.start_anew()
    assert machine.recovered.manifest.generation == 1


def test_without_an_origin_a_kernel_with_nothing_is_a_first_one(machine):
    machine.goes_into("liveupdate=on", kho=("kho-v9",))
    machine.boot()
    assert machine.recovered.manifest.generation == 0
