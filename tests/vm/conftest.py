"""Virtual machines for tests. Without what they are made with the tests skip; with LUOD_VM=1 they fail instead."""

import functools
import os
import re
import shutil

import pytest

from vm.cache import cache
from vm.commands import CommandFailed, missing
from vm.kernels import kernels as build_kernels
from vm.machine import Machine, VmLost
from vm.packages import NoSource
from vm.rootfs import luod_disk, root


def _impossible(reason):
    """Skip for this reason, or fail where virtual machines must be there."""
    if os.environ.get("LUOD_VM") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kernels():
    """The kernels that were built, oldest first."""
    if packages := missing():
        _impossible(f"not installed: {' '.join(packages)} (make vm-deps)")
    try:
        return build_kernels()
    except (CommandFailed, NoSource) as error:
        _impossible(str(error))


@pytest.fixture(scope="session")
def disks_of(kernels):
    """What a machine starts from, by Debian's suite: Debian, and luod with the kernels' images."""

    @functools.cache
    def disks(suite):
        images = {"bzImage": kernels[-1].image, "bzImage-without-memfd": kernels[-1].without_memfd}
        for kernel in kernels:
            images |= {f"{kernel.number}/{file.name}": file for file in (kernel.image, *kernel.selftests.iterdir())}
        try:
            system = root(suite)
            return [system / "disk", luod_disk(system, images)]
        except CommandFailed as error:
            _impossible(str(error))

    return disks


@pytest.fixture(scope="session")
def disks(disks_of):
    """What a machine starts from where nothing else is asked for."""
    return disks_of("unstable")


@pytest.fixture
def logs(request):
    """Where a test's machine leaves what it said: in the cache, beside what it was made of."""
    return _logs(request.node.nodeid)


def _logs(test):
    directory = cache() / "logs" / re.sub(r"[^\w.-]+", "-", test.removeprefix("tests/vm/"))
    shutil.rmtree(directory, ignore_errors=True)
    return directory


@pytest.fixture
def machine(kernels, disks_of, logs):
    """Makes a machine that boots the newest kernel, or another one: `with machine(cmdline=…) as vm`."""

    def make(kernel=None, *, suite="unstable", **options):
        return Machine((kernel or kernels[-1]).image, disks_of(suite), logs, **options)

    return make


@pytest.fixture
def vm(machine):
    """A machine of the test's own, booted."""
    with machine() as vm:
        yield vm


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    report.vm_lost = call.excinfo is not None and call.excinfo.errisinstance(VmLost)
    if report.failed and "machine" in getattr(item, "fixturenames", ()):
        report.sections.append(("Logs of the virtual machine", str(cache() / "logs")))


def pytest_report_teststatus(report):
    """A test that lost its machine says nothing about luod, and is not counted among those that do."""
    if report.failed and getattr(report, "vm_lost", False):
        return "lost its VM", "L", "VM LOST"
    return None
