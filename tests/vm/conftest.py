"""Virtual machines for tests. Without what they are made with the tests skip; with LUOD_VM=1 they fail instead."""

import functools
import os
import re
import shutil

import pytest

from vm.cache import cache
from vm.commands import impossible
from vm.kernels import kernels as build_kernels
from vm.machine import Machine, VmLost
from vm.rootfs import luod_disk, root
from vm.steps import luod_never_complained

LOST = "lost its VM"


@pytest.fixture(scope="session")
def aloud(request):
    """What is printed `with aloud()` is seen at once: a first run says what it takes its time for."""
    return request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled


@pytest.fixture(scope="session")
def kernels(aloud):
    """The kernels that were built, oldest first."""
    if reason := impossible():
        if os.environ.get("LUOD_VM") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with aloud():
        return build_kernels()


@pytest.fixture(scope="session")
def disks_of(kernels, aloud):
    """What a machine starts from, by Debian's suite: Debian, and luod with the kernels' images."""

    @functools.cache
    def disks(suite):
        images = kernels[-1].images
        for kernel in kernels:
            images |= {f"{kernel.number}/{file.name}": file for file in (kernel.image, *kernel.selftests.iterdir())}
        with aloud():
            system = root(suite)
            return [system / "disk", luod_disk(system, images)]

    return disks


@pytest.fixture(scope="session")
def disks(disks_of):
    """What a machine starts from where nothing else is asked for."""
    return disks_of("unstable")


@pytest.fixture
def logs(request):
    """Where a test's machine leaves what it said: in the cache, beside what it was made of."""
    directory = cache() / "logs" / re.sub(r"[^\w.-]+", "-", request.node.nodeid.removeprefix("tests/vm/"))
    shutil.rmtree(directory, ignore_errors=True)
    return directory


@pytest.fixture
def machine(kernels, disks_of, logs):
    """Makes a machine that boots the newest kernel, or another one: `with machine(cmdline=…) as vm`."""
    machines = []

    def make(kernel=None, *, suite="unstable", **options):
        machines.append(Machine((kernel or kernels[-1]).image, disks_of(suite), logs, **options))
        return machines[-1]

    yield make
    for vm in machines:
        luod_never_complained(vm)


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
    if report.failed and "logs" in getattr(item, "funcargs", ()):
        report.sections.append(("Logs of the virtual machine", str(item.funcargs["logs"])))


def pytest_report_teststatus(report):
    """A test that lost its machine says nothing about luod, and is not counted among those that do."""
    if report.failed and getattr(report, "vm_lost", False):
        return LOST, "L", "VM LOST"
    return None


def pytest_terminal_summary(terminalreporter):
    """Say of each such test how it was lost: pytest itself does so of its own kinds of failures only."""
    for report in terminalreporter.getreports(LOST):
        for title, text in (f"VM LOST: {report.nodeid}", report.longreprtext), *report.sections:
            terminalreporter.section(title, sep="_")
            terminalreporter.write_line(text)
