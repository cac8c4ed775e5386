"""luoctl install-units: luod's units, for a luod that pip has put somewhere."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

import luod
from luod.ctl.command import Command, Failed, Options
from luod.ctl.output import print_json, print_line
from luod.systemd import CARRIES, KEXEC_SERVICE, NETWORK_SERVICES, SURVIVES

DIRECTORY: Final = Path("/usr/local/lib/systemd/system")
"""Where systemd.unit(5) has units that an administrator installed: `systemctl edit` in /etc comes before them."""

UNITS: Final = ("luod.socket", "luod.service")
ALWAYS: Final = (*UNITS, KEXEC_SERVICE, *NETWORK_SERVICES)
"""What is to be enabled; what is, where the network is to go over; and what luod starts by itself as well."""

SURVIVE: Final = "luod.service.d/50-survive.conf"

CARRIED: Final = "systemd carries over what luod holds"
KEPT: Final = (
    "systemd {} doesn't carry the fd store over, so luod lives until the reboot; run this again after an upgrade"
)
ENABLE: Final = f"systemctl enable --now {' '.join(UNITS)}"
DISABLE: Final = f"systemctl disable --now {' '.join((*UNITS, *NETWORK_SERVICES))}"

HIDDEN: Final = ("/home", "/root", "/run/user")
"""What ProtectHome= hides from the service."""

_EXECUTABLE: Final = re.compile(r"(?<==)(\+?)/usr/bin/(luod|luoctl)\b")
_SYSTEMD_RUNS: Final = Path("/run/systemd/system")


@click.command("install-units", cls=Command)
@click.option("--root", type=click.Path(path_type=Path), default="/", help="Of the system to install into.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DIRECTORY,
    help=f"Where to, below the root. [default: {DIRECTORY}]",
)
@click.option(
    "--executable",
    metavar="PATH",
    help="What the service runs, a luod with luoctl beside it. [default: the one beside this luoctl]",
)
@click.option("--systemd", type=int, metavar="VERSION", help="What to install for. [default: as systemctl says]")
@click.option("--remove", is_flag=True, help="Remove them, once luod is stopped and holds nothing.")
@click.pass_obj
def install_units_command(
    options: Options, *, root: Path, directory: Path, executable: str | None, systemd: int | None, remove: bool
) -> None:
    """Put luod's systemd units in place, or the new ones of another luod. Nothing is started or stopped.

    With --json: {"systemd", "written", "removed"}.
    """
    here, place = root == Path("/"), root / str(directory).lstrip("/")
    version, contents = None, dict[str, str]()
    if not remove:
        version = _version() if systemd is None else systemd
        contents = dict(_contents(version, executable or _beside_luoctl()))
    elif here:
        _require_idle()
    written, removed = _have_there(place, contents)
    if here and _SYSTEMD_RUNS.exists():
        _systemctl("daemon-reload")
    if options.json:
        print_json({"systemd": version, "written": list(map(str, written)), "removed": list(map(str, removed))})
        return
    _say(place, written, removed)
    if version is not None:
        print_line(CARRIED if version >= CARRIES else KEPT.format(version))
        print_line(f"next: {ENABLE}" if here else f"next, there: {ENABLE}")


def _contents(version: int | None, executable: str) -> Iterator[tuple[str, str]]:
    """The files that belong there, by name. Raises Failed where nothing would live through a live update."""
    if version is None or version < SURVIVES:
        what = "there is no systemd" if version is None else f"systemd {version} would lose what luod holds"
        raise Failed(f"{what}: it takes systemd {SURVIVES}, better {CARRIES}; without it, run `luod supervise`")
    if hidden := next((path for path in HIDDEN if Path(executable).is_relative_to(path)), None):
        raise Failed(
            f"{executable}: a system service doesn't see {hidden}; install luod elsewhere, in /opt for instance"
        )
    paths = {"luod": executable, "luoctl": str(Path(executable).with_name("luoctl"))}
    commands = {name: shlex.quote(path).replace("%", "%%") for name, path in paths.items()}
    for name in (*ALWAYS, *([SURVIVE] if version < CARRIES else [])):
        yield name, _EXECUTABLE.sub(lambda match: match[1] + commands[match[2]], (_shipped() / name).read_text())


def _have_there(place: Path, contents: Mapping[str, str]) -> tuple[list[Path], list[Path]]:
    """Have these files there and no others of ours. Which were written, and which removed. Raises Failed."""
    try:
        written = [path for name, text in contents.items() if _write(path := place / name, text)]
        removed = [path for name in (*ALWAYS, SURVIVE) if name not in contents and _remove(path := place / name)]
    except OSError as error:
        hint = ": try it as root" if isinstance(error, PermissionError) else ""
        raise Failed(f"{error.filename}: {error.strerror}{hint}") from None
    return written, removed


def _say(place: Path, written: Sequence[Path], removed: Sequence[Path]) -> None:
    for done, paths in (("wrote", written), ("removed", removed)):
        for path in paths:
            print_line(f"{done} {path}")
    if not written and not removed:
        print_line(f"nothing to do in {place}")


def _shipped() -> Path:
    """The units as they came with this luod: in a wheel, else in a checkout."""
    package = Path(luod.__file__).parent
    return units if (units := package / "units").is_dir() else package.parent / "systemd"


def _beside_luoctl() -> str:
    """The luod that came with this luoctl. Raises Failed."""
    for neighbour in (Path(sys.argv[0]).resolve(), Path(sys.executable)):
        if os.access(found := neighbour.with_name("luod"), os.X_OK) and found.is_file():
            return str(found)
    raise Failed("there is no luod beside this luoctl: say --executable PATH")


def _version() -> int | None:
    """That of systemd here; None where there is none."""
    try:
        said = _systemctl("--version")
    except FileNotFoundError:
        return None
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else None


def _require_idle() -> None:
    """Raises Failed as long as luod runs, would be started again, or has anything in the fd store."""
    try:
        said = _systemctl("show", "--property=ActiveState,UnitFileState,NFileDescriptorStore", "luod.service")
    except FileNotFoundError:
        return
    state = dict(line.partition("=")[::2] for line in said.splitlines())
    if state.get("ActiveState") not in ("inactive", "failed") or state.get("UnitFileState") == "enabled":
        raise Failed(f"luod is in use: first, {DISABLE}")
    if state.get("NFileDescriptorStore") not in (None, "0"):
        raise Failed(
            "the fd store still has what luod held: systemctl clean --what=fdstore luod.service lets go of it, for good"
        )


def _systemctl(*arguments: str) -> str:
    """Raises Failed, or FileNotFoundError where there is none."""
    ran = subprocess.run(["systemctl", *arguments], capture_output=True, text=True)
    if ran.returncode:
        raise Failed(f"systemctl {arguments[0]}: {ran.stderr.strip()}")
    return ran.stdout


def _write(path: Path, text: str) -> bool:
    """Whether it wasn't so already. It appears whole."""
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)
    return True


def _remove(path: Path) -> bool:
    """Whether it was there. The directory of a drop-in goes with it, unless there are others."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    if path.parent.suffix == ".d" and not any(path.parent.iterdir()):
        path.parent.rmdir()
    return True
