"""What a service is made of, and how it describes itself: org.varlink.service (https://varlink.org/Service)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from luod.errors import InterfaceNotFound, InvalidParameter, MethodNotFound, MethodNotImplemented
from luod.varlink import idl

NAME: Final = "org.varlink.service"


@dataclass
class _Interface:
    description: str
    implemented: frozenset[str]

    @cached_property
    def described(self) -> frozenset[str]:
        """The methods of the description, which is parsed when somebody asks: a cold start has no time for it."""
        return frozenset(idl.parse(self.description).methods)


class Service:
    """The interfaces of a service."""

    def __init__(self, *, vendor: str, product: str, version: str, url: str, description: str) -> None:
        """`description` is the text of org.varlink.service."""
        self._info = {"vendor": vendor, "product": product, "version": version, "url": url}
        self._interfaces: dict[str, _Interface] = {}
        self.add(NAME, description, ("GetInfo", "GetInterfaceDescription"))

    def add(self, interface: str, description: str, methods: Iterable[str]) -> None:
        """Offer an interface, of whose described methods `methods` are implemented."""
        self._interfaces[interface] = _Interface(description, frozenset(methods))

    def find(self, method: str) -> tuple[str, str]:
        """Split a method's full name into interface and member.

        Raises InterfaceNotFound, MethodNotFound, or MethodNotImplemented if it is only described.
        """
        interface, _, member = method.rpartition(".")
        offered = self._interfaces.get(interface)
        if offered is None:
            raise InterfaceNotFound(interface or method)
        if member in offered.implemented:
            return interface, member
        raise MethodNotImplemented(method) if member in offered.described else MethodNotFound(method)

    def answer(self, member: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """What org.varlink.service replies to a call of `member`. Raises InvalidParameter and InterfaceNotFound."""
        expected = {"interface"} if member == "GetInterfaceDescription" else set()
        for name in parameters.keys() - expected:
            raise InvalidParameter(name, "is not a parameter of this method")
        if not expected:
            return self._info | {"interfaces": list(self._interfaces)}
        interface = parameters.get("interface")
        if not isinstance(interface, str):
            raise InvalidParameter("interface", "must be a string")
        if interface not in self._interfaces:
            raise InterfaceNotFound(interface)
        return {"description": self._interfaces[interface].description}
