"""How a service finds its methods and describes itself."""

import pytest

from luod.errors import InterfaceNotFound, InvalidParameter, MethodNotFound, MethodNotImplemented
from luod.interface import description
from luod.varlink.service import NAME, Service

PING = "interface org.example.ping\nmethod Ping() -> ()\nmethod Pong() -> ()\n"


@pytest.fixture
def service():
    service = Service(vendor="v", product="p", version="1", url="u", description=description(NAME))
    service.add("org.example.ping", PING, ["Ping"])
    return service


def test_a_method_that_is_there_is_found(service):
    assert service.find("org.example.ping.Ping") == ("org.example.ping", "Ping")
    assert service.find("org.varlink.service.GetInfo") == (NAME, "GetInfo")


def test_a_method_that_is_only_described_is_not_implemented(service):
    with pytest.raises(MethodNotImplemented) as caught:
        service.find("org.example.ping.Pong")
    assert caught.value.parameters() == {"method": "org.example.ping.Pong"}


@pytest.mark.parametrize("member", ["Pang", "ping", ""])
def test_a_method_that_is_not_described_is_not_found(service, member):
    with pytest.raises(MethodNotFound) as caught:
        service.find(f"org.example.ping.{member}")
    assert caught.value.parameters() == {"method": f"org.example.ping.{member}"}


@pytest.mark.parametrize(
    ("method", "interface"),
    [("org.example.pong.Ping", "org.example.pong"), ("Ping", "Ping"), ("", ""), (".Ping", ".Ping")],
)
def test_an_interface_that_is_not_offered_is_not_found(service, method, interface):
    with pytest.raises(InterfaceNotFound) as caught:
        service.find(method)
    assert caught.value.parameters() == {"interface": interface}


def test_a_service_tells_who_it_is_and_what_it_offers(service):
    assert service.answer("GetInfo", {}) == {
        "vendor": "v",
        "product": "p",
        "version": "1",
        "url": "u",
        "interfaces": [NAME, "org.example.ping"],
    }


def test_a_service_describes_its_interfaces(service):
    assert service.answer("GetInterfaceDescription", {"interface": "org.example.ping"}) == {"description": PING}
    assert service.answer("GetInterfaceDescription", {"interface": NAME}) == {"description": description(NAME)}
    with pytest.raises(InterfaceNotFound):
        service.answer("GetInterfaceDescription", {"interface": "org.example.pong"})


@pytest.mark.parametrize(
    ("member", "parameters", "wrong"),
    [
        ("GetInfo", {"interface": NAME}, "interface"),
        ("GetInterfaceDescription", {}, "interface"),
        ("GetInterfaceDescription", {"interface": None}, "interface"),
        ("GetInterfaceDescription", {"interface": []}, "interface"),
        ("GetInterfaceDescription", {"interface": NAME, "language": "en"}, "language"),
    ],
)
def test_a_wrong_parameter_is_named(service, member, parameters, wrong):
    with pytest.raises(InvalidParameter) as caught:
        service.answer(member, parameters)
    assert caught.value.parameter == wrong
