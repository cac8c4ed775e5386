"""Every test of these has a network of its own."""

import pytest

from .spaces import Namespace


@pytest.fixture
def namespace():
    """A new network namespace, in which there is a loopback link, down."""
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def another():
    """A second one."""
    with Namespace() as namespace:
        yield namespace
