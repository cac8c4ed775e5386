"""Kernels that do live updates, built from Debian's source packages with `kernel.config`."""

import os
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vm.cache import made, recipe
from vm.commands import CannotMake, run
from vm.packages import download_source, kernel_sources, update

CONFIG = Path(__file__).with_name("kernel.config")
WITHOUT_MEMFD, WITHOUT_LUO, FOREIGN = "bzImage-without-memfd", "bzImage-without-luo", "bzImage-foreign"
"""Images of the same kernel that can't take over what it hands over: for want of the handler of memory files, or of
all of LUO; and one whose LUO has another form."""

SELFTESTS = ("liveupdate", "luo_kexec_simple", "luo_multi_session", "luo_stress_files", "luo_stress_sessions")


@dataclass(frozen=True)
class Kernel:
    """A kernel that was built. `number` is its source package's: "7.3"."""

    number: str
    path: Path

    @property
    def image(self):
        return self.path / "bzImage"

    @property
    def images(self):
        """All that were built of it, by name."""
        return {name: self.path / name for name in ("bzImage", WITHOUT_MEMFD, WITHOUT_LUO, FOREIGN)}

    @property
    def selftests(self):
        """The kernel's own tests of live updates, as programs."""
        return self.path / "selftests"

    @cached_property
    def release(self):
        return (self.path / "release").read_text().strip()


def kernels():
    """The kernels that are asked for, oldest first: $LUOD_VM_KERNELS ("7.2 7.3"), else the newest that there is."""
    wanted = os.environ.get("LUOD_VM_KERNELS", "").split()
    offered = kernel_sources()
    if not offered or set(wanted) - set(offered):
        offered = update()
    if unknown := set(wanted) - set(offered):
        raise CannotMake(f"no source of {', '.join(sorted(unknown))}: there is {', '.join(offered) or 'none'}")
    if not offered:
        raise CannotMake("no suite offers the source of a kernel that knows live updates")
    return [_built(number) for number in reversed(offered) if number in (wanted or offered[:1])]


def _built(number):
    ingredients = (number, CONFIG.read_text(), recipe("kernels.py"))
    return Kernel(number, made(f"kernel-{number}", ingredients, lambda path: _build(number, path)))


def _build(number, path):
    print(f"building Linux {number}, once: this takes minutes; {path}/build.log", flush=True)
    with tempfile.TemporaryDirectory(dir=path) as scratch, open(path / "build.log", "w") as log:
        tarball = download_source(number, scratch)
        source = Path(scratch, "linux")
        source.mkdir()
        run("tar", "-xf", tarball, "-C", source, "--strip-components=1", log=log)
        tarball.unlink()
        jobs = f"-j{os.cpu_count()}"

        run("make", "tinyconfig", cwd=source, log=log)
        run("scripts/kconfig/merge_config.sh", "-m", ".config", CONFIG, cwd=source, log=log)
        run("make", "olddefconfig", cwd=source, log=log)
        _check_config((source / ".config").read_text())
        run("make", jobs, "bzImage", cwd=source, log=log)
        image = source / "arch" / "x86" / "boot" / "bzImage"
        image.rename(path / "bzImage")
        (path / "release").write_text(run("make", "-s", "kernelrelease", cwd=source))

        _build_selftests(source, path / "selftests", log)

        form = source / "include" / "linux" / "kho" / "abi" / "luo.h"
        ours = form.read_text()
        form.write_text(re.sub(r'"luo-v(\d+)"', r'"luo-v99\1"', ours))
        run("make", jobs, "bzImage", cwd=source, log=log)
        image.rename(path / FOREIGN)
        form.write_text(ours)

        for option, name in (("LIVEUPDATE_MEMFD", WITHOUT_MEMFD), ("LIVEUPDATE", WITHOUT_LUO)):
            run("scripts/config", "--disable", option, cwd=source, log=log)
            run("make", jobs, "olddefconfig", "bzImage", cwd=source, log=log)
            image.rename(path / name)


def _check_config(config):
    """What kconfig left out for want of a dependency would be missed much later."""
    refused = [
        line
        for line in CONFIG.read_text().splitlines()
        if re.fullmatch(r'CONFIG_\w+=(y|".*")', line) and line not in config.splitlines()
    ]
    if refused:
        raise CannotMake(f"this source doesn't know what kernel.config asks for: {', '.join(refused)}")


def _build_selftests(source, path, log):
    path.mkdir()
    run("make", "headers_install", f"INSTALL_HDR_PATH={path}", cwd=source, log=log)
    tests = source / "tools" / "testing" / "selftests" / "liveupdate"
    library = sorted((tests / "lib").glob("*.c")) or [tests / "luo_test_utils.c"]
    includes = (path / "include", tests / "lib" / "include", tests.parent)
    for name in SELFTESTS:
        flags = ["-static", "-O2", *[f"-I{directory}" for directory in includes]]
        run("gcc", *flags, "-o", path / name, tests / f"{name}.c", *library, log=log)
    run("rm", "-r", path / "include")
