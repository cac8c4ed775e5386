"""The contract of luod/kernel/api.py: which kernels it is put to, and what they can do for a test."""

import pytest

from luod.kernel.find import kernel_at
from luod.sim.client import Control


def pytest_configure(config):
    config.addinivalue_line("markers", "not_simulated(reason): a fact that a simulated kernel doesn't show")


@pytest.fixture
def simulated(sim):
    return sim.path


@pytest.fixture(params=["simulated"])
def kernel_path(request):
    """The path of a kernel's device, for each kind of kernel."""
    marker = request.node.get_closest_marker("not_simulated")
    if marker is not None and request.param == "simulated":
        pytest.skip(marker.args[0])
    return request.getfixturevalue(request.param)


@pytest.fixture
def kernel(kernel_path):
    return kernel_at(kernel_path)


@pytest.fixture
def control(kernel_path):
    """What only a simulated kernel can be told: to fail, and to kexec under a test that lives on."""
    return Control(kernel_path)


@pytest.fixture
def kexec(control):
    """Starts the next kernel."""
    return control.kexec
