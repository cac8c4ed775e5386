"""Where a kernel came from: luod.from=BOOT/GENERATION behind the command line of one that luod has loaded.

Without it nobody could tell a first boot, which has nothing, from one that should have something and hasn't. A kernel
that others have loaded doesn't say it, or still says what was true of an earlier one: it is any other boot's than this.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

from luod.kernel.cmdline import parameters, with_parameter, without_parameter

FROM: Final = "luod.from"
MARKER: Final = "start-afresh"
"""The file in the runtime directory that allows a start with nothing."""

_ORIGIN: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/(\d{1,18})")


class Origin(NamedTuple):
    """The boot that a live update came from, and its generation."""

    boot_id: str
    generation: int

    def __str__(self) -> str:
        return f"{self.boot_id}/{self.generation}"


def origin_in(line: str) -> Origin | None:
    """What a command line says; of several, the last one. None where it says nothing that makes sense."""
    for name, value in reversed(list(parameters(line))):
        if name == FROM and value is not None and (origin := _ORIGIN.fullmatch(value)):
            return Origin(origin[1], int(origin[2]))
    return None


def without_origin(line: str) -> str:
    """The command line of a kernel that is to expect nothing."""
    return without_parameter(line, FROM)


def with_origin(line: str, origin: Origin) -> str:
    """The command line of a kernel that comes from there, and nowhere else. Raises CommandLineError."""
    return with_parameter(without_origin(line), FROM, str(origin))


class Afresh:
    """Whether luod may begin with nothing although this boot should have something: a marker, for this boot only."""

    def __init__(self, runtime_directory: Path, boot_id: str) -> None:
        self._path = runtime_directory / MARKER
        self._boot_id = boot_id

    def is_allowed(self) -> bool:
        try:
            return self._path.read_text(encoding="ascii", errors="replace").strip() == self._boot_id
        except OSError:
            return False

    def allow(self) -> None:
        """It may, from now on. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(f"{self._boot_id}\n", encoding="ascii")
        new.replace(self._path)
