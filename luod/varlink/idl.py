"""Reads interface descriptions (https://varlink.org/Interface-Definition)."""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|->|\[string\]|\[\]|\S")
_INTERFACE: Final = r"[A-Za-z](-*[A-Za-z0-9])*(\.[A-Za-z0-9](-*[A-Za-z0-9])*)+"
_MEMBER: Final = r"[A-Z][A-Za-z0-9]*"
_FIELD: Final = r"[A-Za-z](_?[A-Za-z0-9])*"
_MAX_DEPTH: Final = 32

BUILTIN: Final = ("bool", "int", "float", "string", "object")


class DescriptionError(ValueError):
    """A description that breaks the grammar in `line`, counted from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


@dataclass(frozen=True)
class Type:
    """`wrappers`, outermost first, are `?` (nullable), `[]` and `[string]`; `base` a builtin's or a type's name."""

    wrappers: tuple[str, ...]
    base: "str | Struct | Enum"


@dataclass(frozen=True)
class Field:
    name: str
    type: Type
    doc: str


@dataclass(frozen=True)
class Struct:
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Enum:
    values: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    parameters: Struct
    reply: Struct
    doc: str


@dataclass(frozen=True)
class Definition:
    """Of a type, or of an error, which is a Struct."""

    type: Struct | Enum
    doc: str


@dataclass(frozen=True)
class Interface:
    """An interface and its members by name. A `doc` is the comment right above."""

    name: str
    doc: str
    types: dict[str, Definition]
    methods: dict[str, Method]
    errors: dict[str, Definition]


def parse(description: str) -> Interface:
    """Read a description. Raises DescriptionError."""
    return _Parser(description).interface()


class _Token(NamedTuple):
    text: str
    line: int
    doc: str


class _Parser:
    def __init__(self, description: str) -> None:
        self._tokens: list[_Token] = []
        self._at = 0
        self._references: list[_Token] = []
        doc: list[str] = []
        lines = description.split("\n")
        for number, line in enumerate(lines, 1):
            code, comment, text = line.partition("#")
            if not code.strip():
                doc = [*doc, text.removeprefix(" ").rstrip()] if comment else []
            for match in _TOKEN.finditer(code):
                self._tokens.append(_Token(match[0], number, "\n".join(doc)))
                doc = []
        self._tokens.append(_Token("", len(lines), ""))

    def interface(self) -> Interface:
        doc = self._take("interface").doc
        interface = Interface(self._take(_INTERFACE, "an interface's name").text, doc, {}, {}, {})
        while self._next.text:
            keyword = self._take("type|method|error", "type, method or error")
            name = self._take(_MEMBER, "a name that starts with a capital")
            if name.text in interface.types | interface.methods | interface.errors:
                raise DescriptionError(name.line, f"{name.text} is there already")
            if keyword.text == "type":
                interface.types[name.text] = Definition(self._struct_or_enum(), keyword.doc)
            elif keyword.text == "error":
                interface.errors[name.text] = Definition(self._struct(), keyword.doc)
            else:
                parameters, _, reply = self._struct(), self._take("->"), self._struct()
                interface.methods[name.text] = Method(parameters, reply, keyword.doc)
        for reference in self._references:
            if reference.text not in (*BUILTIN, *interface.types):
                raise DescriptionError(reference.line, f"there is no type {reference.text}")
        return interface

    def _struct(self) -> Struct:
        line = self._next.line
        struct = self._struct_or_enum()
        if isinstance(struct, Enum):
            raise DescriptionError(line, "expected fields with types, not an enum")
        return struct

    def _struct_or_enum(self, depth: int = 1) -> Struct | Enum:
        if depth > _MAX_DEPTH:
            raise DescriptionError(self._next.line, f"nested deeper than {_MAX_DEPTH} levels")
        self._take(r"\(", "(")
        names: set[str] = set()
        fields: list[Field] = []
        values: list[str] = []
        while not self._skip(")"):
            if names:
                self._take(",", ", or )")
            name = self._take(_FIELD, "a field's name")
            if name.text in names:
                raise DescriptionError(name.line, f"{name.text} is there already")
            names.add(name.text)
            if values or (not fields and self._next.text != ":"):
                values.append(name.text)
            else:
                self._take(":")
                fields.append(Field(name.text, self._type(depth), name.doc))
        return Enum(tuple(values)) if values else Struct(tuple(fields))

    def _type(self, depth: int) -> Type:
        wrappers: list[str] = []
        while self._next.text in ("?", "[]", "[string]"):
            if self._next.text == "?" and wrappers[-1:] == ["?"]:
                raise DescriptionError(self._next.line, "a type can't be nullable twice")
            wrappers.append(self._next.text)
            self._at += 1
        if self._next.text == "(":
            return Type(tuple(wrappers), self._struct_or_enum(depth + 1))
        base = self._take("|".join((*BUILTIN, _MEMBER)), "a type")
        self._references.append(base)
        return Type(tuple(wrappers), base.text)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, pattern: str, what: str = "") -> _Token:
        token = self._next
        if re.fullmatch(pattern, token.text) is None:
            raise DescriptionError(token.line, f"expected {what or pattern}, not {token.text or 'the end'}")
        self._at += 1
        return token

    def _skip(self, text: str) -> bool:
        found = self._next.text == text
        self._at += found
        return found
