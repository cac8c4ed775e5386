"""luod as a service of a real systemd: of one that carries its fd store over (261), and of one before it (255)."""

from contextlib import contextmanager

import pytest

from vm import systemd
from vm.guest import clients
from vm.rootfs import SYSTEMD
from vm.steps import comes_back

CARRIES, KEEPS = "unstable", "stable"
"""Suites of Debian whose systemd carries fd stores over, and whose systemd doesn't."""

EXPOSURE = 20
"""The most that `systemd-analyze security` may say, in tenths."""

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


@pytest.fixture
def boot(machine):
    """Boots a machine with the systemd of a suite, and installs luod there: `with boot(suite) as vm`."""

    @contextmanager
    def booted(suite):
        with machine(suite=suite, init=SYSTEMD) as vm:
            systemd.install(vm)
            yield vm

    return booted


@pytest.mark.parametrize("suite", [CARRIES, KEEPS])
def test_a_live_update_by_systemctl_carries_everything_over(boot, suite):
    with boot(suite) as vm:
        vm.run("systemd-analyze", "security", f"--threshold={EXPOSURE}", "luod.service")
        given = owners_preserve(vm)
        given["table"] |= vm.call(clients.preserve_delegated)["table"]
        assert systemd.update(vm).number == 1
        assert (systemd.handed(vm) > 1) == (suite == CARRIES)
        comes_back(vm, **given, finish=True)


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


def owners_preserve(vm):
    """Have root and somebody else preserve in sessions of the same names; what each of them gave."""
    others = {str(USER): vm.call(clients.preserve_as, uid=USER, sessions=2, files=3)["table"]}
    return {"table": vm.call(clients.preserve, sessions=3, files=20)["table"], "others": others}
