"""The contract of luod/kernel/api.py: which kernel it is put to, and what that can do for a test."""

import tempfile

import pytest

from luod.kernel.find import kernel_at
from luod.sim.client import Control

from .steps import DEVICE, ONLY_A_SIMULATED_KEXEC, ONLY_SIMULATED, is_in_memory


@pytest.fixture
def simulated(sim):
    return sim.path


@pytest.fixture
def real():
    return DEVICE


@pytest.fixture(params=["real" if DEVICE else "simulated"])
def kernel_path(request):
    """The path of a kernel's device."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def kernel(kernel_path):
    return kernel_at(kernel_path)


@pytest.fixture
def control(kernel_path):
    """What only a simulated kernel can be told: to fail, and to kexec under a test that lives on."""
    if DEVICE:
        pytest.skip(ONLY_SIMULATED)
    return Control(kernel_path)


@pytest.fixture
def kexec(request):
    """Starts the next kernel."""
    if DEVICE:
        pytest.skip(ONLY_A_SIMULATED_KEXEC)
    return request.getfixturevalue("control").kexec


def _first(directories, reason, *, in_memory):
    for directory in directories:
        try:
            with tempfile.TemporaryFile(dir=directory) as file:
                if is_in_memory(file.fileno()) == in_memory:
                    return directory
        except OSError:
            continue
    pytest.skip(reason)


@pytest.fixture
def in_memory(tmp_path):
    """A directory whose files are in memory."""
    return _first(("/dev/shm", tmp_path), "no file system here is in memory", in_memory=True)


@pytest.fixture
def on_disk(tmp_path):
    """A directory whose files are on a disk."""
    return _first((tmp_path, "/var/tmp"), "there is no disk here", in_memory=False)
