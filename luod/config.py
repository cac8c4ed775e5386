"""luod's configuration: one model, filled by TOML files and their drop-ins.

Which files count is what the UAPI Configuration Files Specification says: of two with the same name that in /etc before
that in /run before that in /usr/lib; drop-ins (luod.toml.d/*.toml) after the file itself, by their names, each coming
before what was read before it. So an empty file, or a link to /dev/null, masks its namesake.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from luod import names
from luod.kernel.device import PATH
from luod.policy import Limits, Seconds

NAME: Final = "luod.toml"
PLACES: Final = ("etc/luod", "run/luod", "usr/lib/luod")
"""Where the files are, below the root; those that count for more come first."""

_ARGUMENTS: Final = "the command line"


@dataclass(frozen=True)
class Problem:
    """Why a file can't be used: what is wrong there, in which line, and with which key."""

    file: str
    reason: str
    line: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.key, self.reason) if part is not None)


class ConfigError(Exception):
    """The configuration can't be used. `problems` is all that is wrong with it; the text says it, one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)


Pattern: TypeAlias = Annotated[str, AfterValidator(names.link_pattern)]
"""Of links' names, as fnmatch(3) has it."""


class Network(BaseModel):
    """What of the host's network goes over with a live update, and how it is set up again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    handover: tuple[Pattern, ...] = ()
    """The links, by their names; and what they depend on. None: nothing."""
    differing: Literal["set", "leave"] = "set"
    """What becomes of something that is there already and differs."""
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0
    """How long a physical link that isn't there yet is waited for."""


class Config(BaseModel):
    """Everything that can be configured. The commented default stands in config/luod.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = PATH
    """/dev/liveupdate, or the socket of a simulated kernel."""
    socket: Path = Path("/run/luod/io.luod")
    """Where clients connect."""
    runtime_directory: Path = Path("/run/luod")
    """Where manifest.json is written."""
    carry_over_seconds: Seconds = 120.0
    """How long owners have to come back after a live update before luod preserves for the next one what is theirs."""
    finish_unclaimed_seconds: Annotated[float, Field(ge=0)] = 0.0
    """How long after its start luod finishes what came over and nobody has come for: it is lost then. 0: never."""
    network: Network = Network()
    limits: Limits = Limits()

    @classmethod
    def load(cls, path: Path | None = None, root: Path = Path("/"), **overrides: object) -> Self:
        """Read `path` alone, or what there is below `root`; it works without any. Raises ConfigError.

        `overrides` come before all files; those that are None are none.
        """
        given: dict[str, Any] = {}
        problems: list[Problem] = []
        for file in files(root) if path is None else [path]:
            try:
                _merge(given, _read(cls, file))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        given |= {key: value for key, value in overrides.items() if value is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ConfigError(list(_problems(cls, error, _ARGUMENTS, ""))) from None


START_ONLY: Final = ("device", "socket", "runtime_directory")
"""What a luod that runs can't change."""


def files(root: Path = Path("/")) -> list[Path]:
    """The files that count, in the order in which they are read: what comes later counts for more.

    Raises ConfigError where nobody can tell.
    """
    places = [root / place for place in PLACES]
    main = [place / NAME for place in places if os.path.lexists(place / NAME)]
    drop_ins: dict[str, Path] = {}
    for place in reversed(places):
        directory = place / f"{NAME}.d"
        drop_ins |= {name: directory / name for name in _listed(directory) if _is_drop_in(directory / name)}
    return [*main[:1], *(drop_ins[name] for name in sorted(drop_ins))]


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError([Problem(str(directory), error.strerror or str(error))]) from None


def _is_drop_in(file: Path) -> bool:
    return file.suffix == ".toml" and not file.name.startswith(".") and not file.is_dir()


def _read(model: type[Config], file: Path) -> dict[str, Any]:
    """What a file says, which is valid by itself. Raises ConfigError."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(str(file), error.strerror or str(error))]) from None
    try:
        text = data.decode()
        given = tomllib.loads(text)
        model.model_validate(given)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(file), "it is not UTF-8", line)]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax(str(file), text, str(error))]) from None
    except ValidationError as error:
        raise ConfigError(list(_problems(model, error, str(file), text))) from None
    return given


def _syntax(file: str, text: str, said: str) -> Problem:
    reason = f"{said[:1].lower()}{said[1:]}"
    if found := re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", reason, re.DOTALL):
        what, line, column = found.groups()
        return Problem(file, f"{what}, at column {column}", int(line))
    return Problem(file, reason.replace(" (at end of document)", ", at the end"), text.count("\n") + 1)


def _problems(model: type[BaseModel], error: ValidationError, file: str, text: str) -> Iterator[Problem]:
    """Everything that the model refuses in what a file says."""
    for detail in error.errors(include_url=False):
        # Within a list, it is the list's key.
        path = tuple(map(str, takewhile(lambda part: isinstance(part, str), detail["loc"])))
        if detail["type"] == "extra_forbidden":
            reason = f"there is no such setting{_nearest(model, path)}"
        else:
            said = detail["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
            reason = f"{said.replace('Input should be', 'must be')}, not {detail['input']!r}"
        yield Problem(file, reason, _line_of(text, path), ".".join(path))


def _nearest(model: type[BaseModel], path: Sequence[str]) -> str:
    from difflib import get_close_matches

    for table in path[:-1]:
        inner = model.model_fields[table].annotation
        assert isinstance(inner, type)
        model = inner
    near = get_close_matches(path[-1], model.model_fields, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _line_of(text: str, path: Sequence[str]) -> int | None:
    """The line in which a key is set: the first one of the shortest beginning of the text that has the key."""
    lines = text.split("\n")
    first = 1
    for count in range(1, len(lines) + 1):
        try:
            beginning: Any = tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:  # it ends in the middle of a value
            continue
        for name in path:
            beginning = beginning.get(name) if isinstance(beginning, dict) else None
        if beginning is not None:
            return first
        first = count + 1
    return None


def _merge(into: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Let what is given come before what was there, key by key."""
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
