"""What a virtual machine starts from: Debian with Python on one disk, luod and its tests on another."""

import hashlib
import shutil
from pathlib import Path

from vm.cache import made, recipe
from vm.commands import run
from vm.packages import AGED, KEYRING, mirror

CHECKOUT = Path(__file__).parents[2]
PACKAGES = (
    "dbus",
    "python3",
    "python3-click",
    "python3-coverage",
    "python3-hypothesis",
    "python3-pydantic",
    "python3-pyroute2",
    "python3-pytest",
    "python3-pytest-trio",
    "python3-rich",
    "python3-trio",
    "iproute2",
    "kexec-tools",
    "mount",
    "procps",
    "systemd",
    "udev",
)
INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 PYTHONPATH=/opt/luod:/opt/luod/tests PYTHONUNBUFFERED=1
if [ $$ = 1 ]; then
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t tmpfs run /run
    mount -t tmpfs tmp /tmp
    mount -t debugfs debug /sys/kernel/debug
    ip link set lo up
fi
mount -o ro /dev/vdb /opt/luod
if grep -qw luod.coverage /proc/cmdline; then
    export COVERAGE_PROCESS_START=/opt/luod/pyproject.toml COVERAGE_FILE=/var/coverage/.coverage
    mkdir -p /var/coverage
fi
cd /opt/luod
exec python3 -m vm.guest.agent
"""
"""What starts the agent: as PID 1, for by the time that luod is there, there is nothing else; or as a service."""

AGENT = "/init"
SYSTEMD = "/usr/lib/systemd/systemd"
"""What the kernel starts: the agent itself, or systemd, which starts it as a service."""

SERVICE = f"""[Unit]
Description=The agent of the test bench
DefaultDependencies=no
# It sees the shutdown to its end, and the kernel that comes then knows by its session that there was a live update.
SurviveFinalKillSignal=yes
IgnoreOnIsolate=yes

[Service]
ExecStart={AGENT}
"""

NETWORKD = ("systemd-networkd.service", "systemd-networkd.socket", "systemd-networkd-varlink.socket")
UDEV = (
    "systemd-hwdb-update.service",
    "systemd-udev-load-credentials.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-varlink.socket",
    "systemd-udevd.service",
)
"""What names a machine's devices, and what networkd waits for with each link."""

MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "getty.target",
    "kexec-load.service",
    "ldconfig.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    *NETWORKD,
    *UDEV,
)
"""What takes time, and few tests need: these unmask it."""

COVERAGE = "import os; os.environ.get('COVERAGE_PROCESS_START') and __import__('coverage').process_startup()"
"""What each Python in the guest does first."""

SHARED = ("luod", "tests", "config", "systemd", "pyproject.toml")
"""What of the checkout the second disk has, at /opt/luod."""

COMMANDS = {"luod": "luod.__main__", "luoctl": "luod.ctl"}
COMMAND = """#!/usr/bin/python3
import sys
sys.path.insert(0, "/opt/luod")
from {module} import main
sys.exit(main())
"""
"""What pip makes of an entry point, in /opt/luod/bin: for who starts luod without the agent's environment."""


COMPILING = 'mount --bind "$0" "$1/opt/luod" && chroot "$1" python3 -m compileall -q /opt/luod'
"""Compiles what is to be at /opt/luod with the Python that a root has."""


def root(suite):
    """A directory with `tree/`, a Debian of this suite, and `disk`, the same as an image."""
    return made(f"root-{suite}", (suite, *PACKAGES, recipe("rootfs.py")), lambda path: _debootstrap(suite, path))


def _debootstrap(suite, path):
    print(f"making a Debian {suite}, once: this takes a minute; {path}/build.log", flush=True)
    tree = path / "tree"
    tree.mkdir()
    with open(path / "build.log", "w") as log:
        source = f"deb [signed-by={KEYRING}] {mirror()} {suite} main"
        name, _, value = AGED.partition("=")
        options = ("--variant=apt", f"--include={','.join(PACKAGES)}", f'--aptopt={name} "{value}"')
        run(
            "mmdebstrap", *options, "--dpkgopt=path-exclude=/usr/share/doc/*", suite, path / "tree.tar", source, log=log
        )
        run("tar", "-xf", path / "tree.tar", "-C", tree, "--exclude=./dev/*", log=log)
        (path / "tree.tar").unlink()
        (tree / "opt" / "luod").mkdir()
        (tree / "init").write_text(INIT)
        (tree / "init").chmod(0o755)
        _set_up_systemd(tree / "etc")
        (tree / "usr" / "lib" / "python3" / "dist-packages" / "coverage-of-luod.pth").write_text(COVERAGE)
        run("mke2fs", "-q", "-t", "ext2", "-d", tree, path / "disk", "1200M", log=log)


def _set_up_systemd(etc):
    """Have the agent started, and nothing that asks or waits for somebody."""
    (etc / "machine-id").write_text(f"{hashlib.sha256(b'luod').hexdigest()[:32]}\n")
    units = etc / "systemd" / "system"
    (units / "vm-agent.service").write_text(SERVICE)
    wanted = units / "sysinit.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "vm-agent.service").symlink_to("../vm-agent.service")
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")


def luod_disk(root, images):
    """A disk with the checkout as it is, compiled for the root's Python, and with some kernels' images.

    `images` has a path for each name under /opt/luod/kernels.
    """
    files = [file for name in SHARED for file in _files(CHECKOUT / name)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(CHECKOUT)}\0{file.stat().st_mtime_ns}\0{file.stat().st_size}\0".encode())
    ingredients = (digest.hexdigest(), root.name, recipe("rootfs.py"), *sorted(str(path) for path in images.values()))
    return made("luod", ingredients, lambda path: _copy(root, files, images, path)) / "disk"


def _files(path):
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _copy(root, files, images, path):
    tree = path / "tree"
    for file in files:
        target = tree / file.relative_to(CHECKOUT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    for name, image in images.items():
        target = tree / "kernels" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(image, target)
    for name, module in COMMANDS.items():
        command = tree / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(COMMAND.format(module=module))
        command.chmod(0o755)
    run("unshare", "--mount", "--", "sh", "-c", COMPILING, tree, root / "tree")
    run("mke2fs", "-q", "-t", "ext2", "-d", tree, path / "disk", "300M")
    shutil.rmtree(tree)
