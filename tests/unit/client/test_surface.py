"""What a program that uses the library sees of it before any call."""

from inspect import signature
from subprocess import run
from sys import executable

import pytest

from luod.client import Client
from luod.client.on_trio import TrioClient


def test_the_blocking_client_does_not_import_trio():
    code = "import luod.client, sys; print([name for name in ('trio', 'click', 'rich') if name in sys.modules])"
    assert run([executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("client", [Client, TrioClient])
def test_a_method_has_the_words_and_the_signature_of_its_request(client):
    assert "fresh" in client.find.__doc__
    assert str(signature(client.find)) == (
        "(self, /, session: str, owner: int | None = None) -> luod.interface.custody.Session | None"
    )
