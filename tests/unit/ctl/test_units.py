"""luoctl install-units: the right units for this systemd, and none where they would lose what luod holds."""

import json

import pytest

from luod.ctl.units import ALWAYS, DIRECTORY, SURVIVE
from luod.systemd import KEXEC_SERVICE, NETWORK_SERVICES


@pytest.fixture
def install(luoctl, tmp_path):
    """Runs luoctl install-units for a system elsewhere, with this version of systemd."""
    return lambda *words, systemd=262: luoctl(
        "--json", "install-units", f"--root={tmp_path}", f"--systemd={systemd}", "--executable=/opt/luod/luod", *words
    )


@pytest.fixture
def place(tmp_path):
    return tmp_path / str(DIRECTORY).lstrip("/")


def installed(place):
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize(("systemd", "names"), [(255, [*ALWAYS, SURVIVE]), (260, [*ALWAYS, SURVIVE]), (261, ALWAYS)])
def test_puts_there_what_this_systemd_needs(install, place, systemd, names):
    said = json.loads(install(systemd=systemd).out)
    assert installed(place) == sorted(names)
    assert said == {"systemd": systemd, "written": [str(place / name) for name in names], "removed": []}
    service = (place / "luod.service").read_text()
    assert "\nExecStart=/opt/luod/luod\n" in service
    assert "\nExecReload=/opt/luod/luod --check-config\n" in service
    kexec = (place / KEXEC_SERVICE).read_text()
    assert "\nExecStart=/opt/luod/luod kexec\n" in kexec
    assert "\nExecStopPost=+/opt/luod/luod kexec --undo\n" in kexec
    network, snapshot = ((place / name).read_text() for name in NETWORK_SERVICES)
    assert "\nExecStart=/opt/luod/luoctl network apply\n" in network
    assert "\nExecReload=/opt/luod/luoctl network snapshot\n" in snapshot
    assert "\nExecStop=/opt/luod/luoctl network snapshot --unless-taken\n" in snapshot
    assert "/usr/bin" not in service + kexec + network + snapshot


def test_after_an_upgrade_of_systemd_takes_away_what_it_no_longer_needs(install, place):
    install(systemd=257)
    said = json.loads(install(systemd=262).out)
    assert (said["written"], said["removed"]) == ([], [str(place / SURVIVE)])
    assert installed(place) == sorted(ALWAYS)
    assert not (place / SURVIVE).parent.exists()


def test_removes_what_it_has_installed(install, place):
    install(systemd=257)
    install("--remove")
    assert installed(place) == []


@pytest.mark.parametrize(
    ("words", "systemd", "why"),
    [
        ((), 254, "systemd 254 would lose what luod holds: it takes systemd 255, better 261"),
        (("--executable=/root/v/bin/luod",), 262, "a system service doesn't see /root"),
    ],
)
def test_installs_nothing_that_would_not_work(install, place, words, systemd, why):
    ran = install(*words, systemd=systemd)
    assert (ran.status, installed(place)) == (1, [])
    assert why in ran.err
