"""Debian's packages from other suites than the machine's own, without touching the machine's configuration.

The mirror is the one that apt on this machine is configured with. It may be a dated snapshot: then its signatures
are right and its dates are old.
"""

import re
from pathlib import Path

from vm.cache import cache, locked
from vm.commands import CannotMake, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ("unstable", "stable-backports")
"""Where kernels that know live updates are looked for, and under these suites' own names: a mirror may have an older
state of one of the two."""

AGED = "Acquire::Check-Valid-Until=false"
OLDEST = (6, 19)


def mirror():
    """The address of Debian's archive, as this machine's apt has it."""
    debian = ("Created-By: Packages", "Label: Debian", "Component: main")
    addresses = run("apt-get", "indextargets", "--format", "$(REPO_URI)", *debian).splitlines()
    if not addresses:
        raise CannotMake("apt on this machine knows no mirror of Debian: give it one, and run apt-get update")
    return addresses[0]


def kernel_sources():
    """The kernels whose source the suites offer and that know live updates: "7.3", "7.2", … newest first.

    As they were when the mirror was asked last: see `update`.
    """
    try:
        return (cache() / "apt" / "offered").read_text().split()
    except FileNotFoundError:
        return update()


def update():
    """Ask the mirror what there is; as `kernel_sources`."""
    with locked("apt"):
        suites = _ask_the_mirror()
        names = _apt("apt-cache", "pkgnames", "linux-source-", suites=suites).split()
        numbers = [re.fullmatch(r"linux-source-(\d+)\.(\d+)", name) for name in names]
        found = {tuple(map(int, number.groups())) for number in numbers if number}
        offered = [f"{major}.{minor}" for major, minor in sorted(found, reverse=True) if (major, minor) >= OLDEST]
        (cache() / "apt" / "offered").write_text(" ".join(offered))
        return offered


def download_source(kernel, directory):
    """Put the source of a kernel as a tarball into `directory`; the path of the tarball."""
    with locked("apt"):
        suites = _ask_the_mirror()  # what it had when it was asked last may be gone
        _apt("apt-get", "download", f"linux-source-{kernel}", suites=suites, cwd=directory)
    (package,) = Path(directory).glob("*.deb")
    run("dpkg-deb", "-x", package, directory)
    package.unlink()
    return Path(directory, "usr", "src", f"linux-source-{kernel}.tar.xz")


def _ask_the_mirror():
    """Have its lists of what the suites have; the suites, by all their names."""
    _apt("apt-get", "update", suites=SUITES)
    names = _apt("apt-get", "indextargets", "--format", "$(CODENAME)", "Created-By: Packages", suites=SUITES).split()
    suites = sorted({*SUITES, *names})
    _apt("apt-get", "update", suites=suites)
    return suites


def _apt(command, *arguments, suites, **options):
    here = cache() / "apt"
    (here / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    sources = here / "sources.list"
    sources.write_text("".join(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n" for suite in suites))
    settings = (f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-", f"Dir::State::lists={here / 'lists'}")
    settings += (f"Dir::Cache={here}", AGED, "APT::Update::Error-Mode=any", "APT::Sandbox::User=root")
    settings += ("Debug::NoLocking=true",)
    return run(command, *[word for setting in settings for word in ("-o", setting)], *arguments, **options)
