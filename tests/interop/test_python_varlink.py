"""The reference implementation of Varlink for Python talks to luod, knowing nothing of it but its description."""

import pytest
import varlink

from running import luod_running


@pytest.fixture
def peer(sim, tmp_path):
    with luod_running(sim.path, tmp_path / "run") as path, varlink.Client(address=f"unix:{path}") as client:
        yield client


def test_it_reads_our_descriptions(peer):
    with peer.open("org.varlink.service") as service:
        info = service.GetInfo()
        assert info["product"] == "luod"
        assert info["interfaces"] == ["org.varlink.service", "io.luod.Custody", "io.luod.Update"]
    custody = peer.get_interface("io.luod.Custody")
    assert {"Create", "Preserve", "Retrieve", "Finish"} <= set(custody.members)


def test_it_calls_our_methods(peer):
    with peer.open("io.luod.Custody") as custody:
        created = custody.Create(name="ram", labels={"stage": "1"})
        assert created["session"]["direction"] == "outgoing"
        custody.Create(name="disk")
        assert [reply["session"]["name"] for reply in custody.List(_more=True)] == ["ram", "disk"]
        custody.Discard(session="disk")
        assert [reply["session"]["name"] for reply in custody.List(_more=True)] == ["ram"]


def test_it_understands_our_errors(peer):
    with peer.open("io.luod.Custody") as custody:
        with pytest.raises(varlink.VarlinkError) as caught:
            custody.Retrieve(session="nothing")
        assert caught.value.error() == "io.luod.Custody.SessionNotFound"
        assert caught.value.parameters() == {"session": "nothing"}
        with pytest.raises(varlink.InvalidParameter) as invalid:
            custody.Create(name="a/b")
        assert invalid.value.parameters()["parameter"] == "name"
