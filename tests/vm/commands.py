"""The commands of the host that a virtual machine is made with."""

import os
import shutil
import subprocess

NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "make": "make",
    "gcc": "gcc",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "rsync": "rsync",
    "xz": "xz-utils",
    "unshare": "util-linux",
}
"""Which package a command comes with; `make vm-deps` installs them all."""

LIBRARIES = {"/usr/include/libelf.h": "libelf-dev"}
"""Headers that the kernel's own tools are built with."""

os.environ["PATH"] += ":/usr/sbin:/sbin"


class CommandFailed(Exception):
    """A command of the host failed; the message has the end of what it said."""


def missing():
    """The packages that `make vm-deps` would install and that aren't there."""
    commands = [package for command, package in NEEDED.items() if shutil.which(command) is None]
    return commands + [package for header, package in LIBRARIES.items() if not os.path.exists(header)]


def run(*command, log=None, **options):
    """Run a command and return what it printed. What it said goes to `log`, an open file, too."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if log is not None:
        log.write(f"+ {' '.join(words)}\n{done.stdout}")
        log.flush()
    if done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-30:])
        raise CommandFailed(f"{' '.join(words)}: exit status {done.returncode}\n{end}")
    return done.stdout


def as_root(*command):
    """The command, as root of a namespace of its own: nothing here needs to be the machine's root."""
    map_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ("unshare", *map_root, "--mount", "--", *command)
