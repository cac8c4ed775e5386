"""luod as a service of a real systemd: of one that carries its fd store over (261), and of one before it (255)."""

from contextlib import contextmanager
from signal import SIGKILL

import pytest

from luod.systemd import NETWORK_SERVICE, SNAPSHOT_SERVICE
from vm import systemd
from vm.guest import clients, services
from vm.guest.traffic import LOST, Owner, go_on
from vm.rootfs import SYSTEMD
from vm.steps import by_owner, comes_back

CARRIES, KEEPS = "unstable", "stable"
"""Suites of Debian whose systemd carries fd stores over, and whose systemd doesn't."""

EXPOSURE = 17
"""What `systemd-analyze security` says of each, in tenths."""

AT_ONCE, LATE = 0.1, 3600.0
"""Seconds after which luod carries over what nobody comes for: as good as none, and more than a test has."""

FEW = 20
"""How many requests an owner has acknowledged before the next thing happens."""

USER = 1001
"""Somebody who has a session of the same name as root's."""

EXITRD = """
root=/run/initramfs
for file in /bin/sh /sbin/kexec $(ldd /bin/sh /sbin/kexec | grep -o '/[^ ]*[^: ]'); do
    mkdir -p $root${file%/*} && cp -L $file $root$file
done
mkdir $root/dev $root/proc $root/run $root/sys
printf '#!/bin/sh\\n/sbin/kexec --exec\\n' >$root/shutdown
chmod +x $root/shutdown
"""
"""Makes what systemd-shutdown leaves the last steps to where it is there, as dracut has it."""

NEIGHBOUR = f"""[Service]
Type=notify
Environment=PYTHONPATH=/opt/luod:/opt/luod/tests
ExecStart=/usr/bin/python3 -m vm.guest.call vm.guest.services keep {{}}
LUOSession={services.SESSION}
FileDescriptorStorePreserve=yes

[Install]
WantedBy=multi-user.target
"""
"""Another service, whose session systemd makes and carries over by itself."""


@pytest.fixture
def boot(machine):
    """Boots a machine with the systemd of a suite, and installs luod there: `with boot(suite, key=value…) as vm`."""

    @contextmanager
    def booted(suite, **config):
        with machine(suite=suite, init=SYSTEMD) as vm:
            text = "".join(f"{key} = {value}\n" for key, value in config.items())
            vm.call(services.write, path="/etc/luod/luod.toml", text=text)
            systemd.install(vm)
            yield vm
            systemd.luod_never_complained(vm)

    return booted


@pytest.mark.parametrize("suite", [CARRIES, KEEPS])
def test_a_live_update_by_systemctl_carries_everything_over(boot, suite):
    with boot(suite) as vm:
        for unit in (systemd.SERVICE, NETWORK_SERVICE, SNAPSHOT_SERVICE):
            vm.run("systemd-analyze", "security", f"--threshold={EXPOSURE}", unit)
        given = owners_preserve(vm)
        given["table"] |= vm.call(clients.preserve_delegated)["table"]
        assert systemd.update(vm).number == 1
        assert (systemd.handed(vm) > 1) == (suite == CARRIES)
        comes_back(vm, **given, finish=True)


@pytest.mark.parametrize("suite", [CARRIES, KEEPS])
def test_a_reload_reads_the_configuration_again_and_fails_where_luod_keeps_the_old_one(boot, suite):
    with boot(suite) as vm:
        before = systemd.main_pid(vm)
        assert systemd.reload(vm, "carry_over_seconds = 5\n")
        assert not systemd.reload(vm, "carry_over_seconds = -5\n")
        assert "/etc/luod/luod.toml:1: carry_over_seconds: must be greater than 0" in systemd.said(vm)
        assert systemd.reload(vm, "carry_over_seconds = 6\n")
        assert systemd.main_pid(vm) == before


def test_where_an_exitrd_ends_the_shutdown_sessions_are_found_by_name(boot):
    with boot(CARRIES) as vm:
        given = owners_preserve(vm)
        vm.run("sh", "-ec", EXITRD)
        assert systemd.update(vm).number == 1
        assert systemd.handed(vm) == 1
        comes_back(vm, **given, finish=True)


def test_a_kexec_without_a_shutdown_carries_everything_over(boot):
    with boot(CARRIES) as vm:
        given = owners_preserve(vm)
        assert vm.kexec().number == 1
        systemd.up(vm)
        comes_back(vm, **given, finish=True)


def test_nothing_that_ends_luod_lets_go_of_anything_but_clean(boot):
    with boot(CARRIES) as vm:
        given = owners_preserve(vm)
        for ending in (["kill", "--signal=KILL"], ["kill", "--signal=STOP"], ["restart"], ["stop"]):
            before = systemd.main_pid(vm)
            vm.run("systemctl", *ending, systemd.SERVICE)
            vm.run("sh", "-c", f"while [ -e /proc/{before} ]; do sleep 0.1; done")
            comes_back(vm, **given)
        vm.run("systemctl", "stop", *systemd.UNITS)
        vm.run("systemctl", "clean", "--what=fdstore", systemd.SERVICE)
        vm.run("systemctl", "start", *systemd.UNITS)
        assert vm.call(clients.look)["owners"] == {}


def test_a_restart_in_the_middle_of_everything_undoes_nothing_and_its_owner_goes_on(boot):
    with boot(CARRIES) as vm:
        owner = Owner(USER, boot=0, came={})
        busy = vm.begin(go_on, uid=owner.uid, boot=owner.boot, came=owner.came)
        for ending in (["restart"], ["kill", "--signal=KILL"], ["restart"]):
            enough = len(busy.lines["stdout"]) + FEW
            vm.run("systemctl", *ending, systemd.SERVICE)
            vm.wait(lambda enough=enough: len(busy.lines["stdout"]) >= enough or busy.over, "the owner to go on")
            assert not busy.over, busy.said()
        busy.signal(SIGKILL)
        acknowledged = len(busy.ended().lines["stdout"])
        found = vm.call(clients.look)["owners"][str(owner.uid)]
        assert found in (owner.has(acknowledged), owner.has(acknowledged + 1))


@pytest.mark.long
def test_a_neighbour_with_a_session_of_its_own_is_left_in_peace(boot):
    with boot(CARRIES) as vm:
        given = owners_preserve(vm)
        vm.call(services.write, path="/etc/systemd/system/neighbour.service", text=NEIGHBOUR)
        vm.run("systemctl", "enable", "--now", "neighbour.service")
        assert systemd.update(vm).number == 1
        vm.run("systemctl", "is-active", "neighbour.service")
        said = vm.run("journalctl", "--output=cat", "--boot", "--unit=neighbour.service").stdout
        assert f"came over: {services.CONTENT.decode()}" in said
        comes_back(vm, **given, finish=True)


@pytest.mark.long
@pytest.mark.parametrize(("suite", "grace"), [(CARRIES, LATE), (KEEPS, AT_ONCE)])
def test_who_never_comes_back_has_everything_after_three_live_updates(boot, suite, grace):
    with boot(suite, carry_over_seconds=grace) as vm:
        given = owners_preserve(vm)
        for generation in 1, 2, 3:
            assert systemd.update(vm).number == generation
            if suite == KEEPS:  # a luod that survives the shutdown isn't told of it
                vm.call(clients.wait_for_carry_over)
        comes_back(vm, **given, finish=True)


@pytest.mark.long
def test_a_second_kexec_right_after_the_first_brings_what_was_carried_over(boot):
    with boot(CARRIES, carry_over_seconds=AT_ONCE) as vm:
        given = owners_preserve(vm)
        systemd.update(vm)
        vm.call(clients.wait_for_carry_over)
        assert vm.kexec().number == 2
        systemd.up(vm)
        comes_back(vm, **given)


@pytest.mark.long
def test_a_second_kexec_right_after_the_first_loses_what_was_not_carried_over_yet(boot):
    with boot(CARRIES, carry_over_seconds=LATE) as vm:
        given = owners_preserve(vm)
        systemd.update(vm)
        assert vm.kexec().number == 2
        systemd.up(vm)
        lost = {uid: dict.fromkeys(table, LOST) for uid, table in by_owner(**given).items()}
        assert vm.call(clients.look)["owners"] == lost


def owners_preserve(vm):
    """Have root and somebody else preserve in sessions of the same names; what each of them gave."""
    others = {str(USER): vm.call(clients.preserve_as, uid=USER, sessions=2, files=3)["table"]}
    return {"table": vm.call(clients.preserve, sessions=3, files=20)["table"], "others": others}
