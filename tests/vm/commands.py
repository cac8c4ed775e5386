"""The commands of the host that a virtual machine is made with."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

COMMANDS = {
    "apt-get": "apt",
    "bc": "bc",
    "bison": "bison",
    "dpkg-deb": "dpkg",
    "flex": "flex",
    "gcc": "gcc",
    "make": "make",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "rsync": "rsync",
    "tar": "tar",
    "unshare": "util-linux",
    "xz": "xz-utils",
}
FILES = {
    "/usr/include/libelf.h": "libelf-dev",
    "/usr/include/stdlib.h": "libc6-dev",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
"""Which package each comes with; `make vm-deps` installs them all."""

os.environ["PATH"] += ":/usr/sbin:/sbin"


class CannotMake(Exception):
    """Something that a virtual machine is made of can't be made; the message says why."""


def impossible():
    """Why no virtual machine can be made here, or None."""
    commands = [package for command, package in COMMANDS.items() if shutil.which(command) is None]
    files = [package for file, package in FILES.items() if not os.path.exists(file)]
    if packages := commands + files:
        return f"not installed: {' '.join(packages)} (make vm-deps)"
    if os.geteuid() != 0:
        return "only root can make a Debian"
    return None


def run(*command, log=None, **options):
    """Run a command to its good end; returns what it printed, or leaves all that it says in `log`, an open file."""
    words = [str(word) for word in command]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if log is not None:
        print("+", *words, file=log, flush=True)
        streams = {"stdout": log, "stderr": subprocess.STDOUT}
    options |= streams | {"stdin": subprocess.DEVNULL, "text": True, "env": _environment(), "process_group": 0}
    with subprocess.Popen(words, **options) as process:
        try:
            printed, complaints = process.communicate()
        except BaseException:  # with it goes what it has started
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        said = complaints if log is None else Path(log.name).read_text()
        end = "\n".join(said.splitlines()[-30:])
        raise CannotMake(f"{' '.join(words)}: exit status {process.returncode}\n{end}")
    return printed


def _environment():
    """Ours, without what a `make` that runs us has for makes under it: the kernel's is none."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
