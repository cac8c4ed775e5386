"""The .varlink text and what Python says of it can't drift apart."""

import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import fields
from enum import EnumType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from luod.errors import CustodyError, UpdateError, VarlinkError, WireError
from luod.interface import Method, custody, description, update
from luod.names import camel
from luod.varlink import idl

BASES = {int: "int", str: "string", bool: "bool", float: "float", dict[str, Any]: "object"}

Fields = dict[str, str]


class Described:
    """Names and types of everything in an interface, as `?[]File`, with an enum's values for types of theirs."""

    def __init__(self) -> None:
        self.members: dict[str, Fields] = {}

    def add(self, name: str, fields: Fields) -> None:
        assert self.members.setdefault(name, fields) == fields, f"{name} is two things"


class FromText(Described):
    def __init__(self, text: str) -> None:
        super().__init__()
        interface = idl.parse(text)
        for name, definition in interface.types.items():
            if isinstance(definition.type, idl.Enum):
                self.add(f"enum {name}", dict.fromkeys(definition.type.values, ""))
            else:
                self.add(f"type {name}", self.fields(definition.type))
        for name, method in interface.methods.items():
            self.add(f"method {name}", self.fields(method.parameters))
            self.add(f"reply to {name}", self.fields(method.reply))
        for name, definition in interface.errors.items():
            assert isinstance(definition.type, idl.Struct)
            self.add(f"error {name}", self.fields(definition.type))

    def fields(self, struct: idl.Struct) -> Fields:
        return {field.name: self.spelled(field.type) for field in struct.fields}

    def spelled(self, spelled: idl.Type) -> str:
        assert isinstance(spelled.base, str), "our interfaces name their structs and enums"
        return "".join(spelled.wrappers) + spelled.base


class FromModels(Described):
    def __init__(self, methods: dict[str, Method], errors: Iterable[type[WireError]]) -> None:
        super().__init__()
        for name, method in methods.items():
            self.add(f"method {name}", self.fields(method.parameters))
            self.add(f"reply to {name}", self.fields(method.reply))
        for error in errors:
            known = {camel(field.name): field.type for field in fields(error)}
            self.add(f"error {error.__name__}", {name: self.spelled(known[name]) for name in known})

    def fields(self, model: type[BaseModel]) -> Fields:
        found = {}
        for name, field in model.model_fields.items():
            spelled = self.spelled(field.annotation)
            assert spelled.startswith("?") is not field.is_required(), f"{model.__name__}.{name}: null is the default"
            found[field.alias or name] = spelled
        return found

    def spelled(self, annotation: Any) -> str:
        origin, args = get_origin(annotation), get_args(annotation)
        if annotation in BASES:
            return BASES[annotation]
        if origin is Annotated:
            return self.spelled(args[0])
        if origin in (Union, types.UnionType):
            assert len(args) == 2
            assert args[1] is type(None)
            return "?" + self.spelled(args[0])
        if origin is list:
            return "[]" + self.spelled(args[0])
        if origin is dict:
            assert args[0] is str
            return "[string]" + self.spelled(args[1])
        if isinstance(annotation, EnumType):
            self.add(f"enum {annotation.__name__}", {value.value: "" for value in annotation})
        else:
            self.add(f"type {annotation.__name__}", self.fields(annotation))
        return annotation.__name__


def differences(text: Described, models: Described) -> Iterator[str]:
    """What stands on one side only, or differently."""
    for name in text.members.keys() | models.members.keys():
        if name not in models.members or name not in text.members:
            yield f"{name} stands on one side only"
            continue
        described, modelled = text.members[name], models.members[name]
        for field in described.keys() | modelled.keys():
            ours, theirs = modelled.get(field), described.get(field)
            # An error's enum is a plain str in Python: it may be raised by what knows nothing of the interface.
            plain = name.startswith("error ") and ours == "string" and f"enum {theirs}" in text.members
            if ours != theirs and not plain:
                yield f"{name}: {field} is {theirs} in the text, {ours} in Python"


INTERFACES = {
    custody.NAME: FromModels(custody.METHODS, CustodyError.__subclasses__()),
    update.NAME: FromModels(update.METHODS, UpdateError.__subclasses__()),
}


@pytest.mark.parametrize("name", INTERFACES)
def test_the_text_says_what_the_models_say(name):
    text = description(name)
    assert idl.parse(text).name == name
    assert sorted(differences(FromText(text), INTERFACES[name])) == []


def test_the_standard_errors_are_ours():
    """All but InvalidParameter's `reason`, by which we go beyond the standard."""
    text, ours = FromText(description("org.varlink.service")), FromModels({}, VarlinkError.__subclasses__())
    text.members = {name: fields for name, fields in text.members.items() if name.startswith("error ")}
    assert list(differences(text, ours)) == ["error InvalidParameter: reason is None in the text, string in Python"]


SPOILS = {
    "another type": (r"(?<=[]:?])(\s*)(int|string|bool|object)\b", r"\1float"),
    "another member": (r"(?m)^((?:type|method|error) \w+)", r"\1x"),
    "another field": (r"(\w+)(?=:)", r"\1x"),
    "another value": (r"(?m)(\w+)(?=(, \w+)*\)$)", r"\1x"),
    "never null": (r"\?", ""),
    "null": (r"(?<=: )(?=[\w[])", "?"),
    "a list": (r"(?<=: )", "[]"),
    "no list": (r"\[\]", ""),
    "no map": (r"\[string\]", ""),
    "no field": (r"(?<=\()\w+: [][?\w]+(?:, )?", ""),
    "no line": (r"(?m)^\S.*\)$", ""),
}


def spoiled(text: str) -> Iterator[tuple[str, int, str]]:
    """Every text that differs in one place."""
    for how, (pattern, replacement) in SPOILS.items():
        for found in re.finditer(pattern, text):
            yield how, found.start(), text[: found.start()] + found.expand(replacement) + text[found.end() :]


@pytest.mark.parametrize("name", INTERFACES)
def test_whatever_changes_in_the_text_is_noticed(name):
    text = re.sub(r"(?m)^\s*#.*\n|#.*", "", description(name)).partition("\n")[2]
    noticed = set()
    for how, at, spoilt in spoiled(text):
        try:
            described = FromText(f"interface a.b\n{spoilt}")
        except idl.DescriptionError:
            continue
        assert list(differences(described, INTERFACES[name])), f"{how} at {at}: nobody noticed"
        noticed.add(how)
    assert noticed >= SPOILS.keys() - {"another value", "no map"}  # io.luod.Update has no enum and no map
    assert name == update.NAME or noticed == SPOILS.keys()


@pytest.mark.parametrize("name", INTERFACES)
def test_whatever_is_missing_in_python_is_noticed(name):
    text = FromText(description(name))
    for member, known in INTERFACES[name].members.items():
        for missing in known:
            models = FromModels({}, [])
            models.members = INTERFACES[name].members | {member: {f: known[f] for f in known if f != missing}}
            assert len(list(differences(text, models))) == 1
