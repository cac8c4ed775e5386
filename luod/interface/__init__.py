"""The interfaces io.luod.*: their .varlink text, and a model for the parameters and the reply of each method."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from luod.interface.model import Parameters, Reply


@dataclass(frozen=True)
class Method:
    """A method that is there. `more`: whether it answers with several replies."""

    parameters: type[Parameters]
    reply: type[Reply]
    more: bool = False


@cache
def description(interface: str) -> str:
    """The .varlink text of an interface of ours, or of org.varlink.service."""
    return (files(__package__) / f"{interface}.varlink").read_text(encoding="utf-8")
