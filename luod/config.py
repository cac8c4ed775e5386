"""luod's configuration: one model, one TOML file."""

import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from luod.kernel.device import PATH
from luod.policy import Limits, Seconds

DEFAULT = Path("/etc/luod/luod.toml")


class ConfigError(Exception):
    """The configuration can't be used; the text says which file, key and value, and why."""


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
    limits: Limits = Limits()

    @classmethod
    def load(cls, path: Path | None = None, **overrides: object) -> Self:
        """Read `path`, or /etc/luod/luod.toml where it is there. Raises ConfigError."""
        given: dict[str, object] = {}
        chosen = path or DEFAULT
        try:
            with chosen.open("rb") as file:
                given = tomllib.load(file)
        except FileNotFoundError as error:
            if path is not None:
                raise ConfigError(f"{chosen}: {error.strerror}") from None
        except (OSError, ValueError) as error:  # no TOML, or no UTF-8
            raise ConfigError(f"{chosen}: {error}") from None
        given |= {key: value for key, value in overrides.items() if value is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ConfigError(f"{chosen}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
