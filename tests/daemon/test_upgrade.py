"""luod upgraded by pip while it is in use: its files are replaced under it, and one signal starts the new one."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eventually import within
from luod.client import connect
from luod.errors import InvalidParameter, MethodNotFound, NoUpdate, PreflightFailed
from luod.interface import custody
from luod.served import SERVED, STREAMS
from luod.sim.image import bzimage
from memory import content, memfd
from survivor import survivor
from wanderer import Wanderer, wandering

CHECKOUT = Path(__file__).parents[2]
OLD, NEW = "100.0", "100.1"
DESCRIBE = "org.varlink.service.GetInterfaceDescription"

IMPORTS = """
import os, sys

def say(event, arguments):
    if event == "import":
        os.write(2, f"process {os.getpid()} imports {arguments[0]}\\n".encode())

sys.addaudithook(say)
"""
"""What each Python that luod runs in does first: say what it imports."""


def pip(*words):
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "--quiet", *map(str, words)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """luod as it is, as wheels of two versions."""
    made = {}
    for version in (OLD, NEW):
        source = tmp_path_factory.mktemp("source")
        for name in ("luod", "systemd"):
            shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(CHECKOUT / name, source)
        init = source / "luod" / "__init__.py"
        init.write_text(re.sub("__version__ = .*", f"__version__ = {version!r}", init.read_text()))
        pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", source / "dist", source)
        [made[version]] = (source / "dist").iterdir()
    return made


class Installed:
    """An environment into which luod is installed. What luod needs is that of the tests."""

    def __init__(self, place):
        self.place = place
        self._python = place / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        first = place / "first"
        first.mkdir()
        (first / "sitecustomize.py").write_text(IMPORTS)
        path = [str(first), *(path for path in sys.path if path.endswith("-packages"))]
        self.luod = ["env", f"PYTHONPATH={os.pathsep.join(path)}", str(place / "bin" / "luod")]
        self.supervise = [*self.luod, "supervise"]

    def install(self, wheel):
        pip("--python", self._python, "install", "--no-deps", "--no-index", "--upgrade", wheel)

    def uninstall(self):
        pip("--python", self._python, "uninstall", "--yes", "luod")


@pytest.fixture
def installed(tmp_path, wheels):
    installed = Installed(tmp_path / "installed")
    installed.install(wheels[OLD])
    return installed


def version(luod):
    with connect(luod.socket) as client:
        return client.call("org.varlink.service.GetInfo").parameters["version"]


def go_on(wanderers, requests=20):
    """Wait until each of them has got so many answers more."""
    enough = [each.done + requests for each in wanderers]
    within(60, lambda: all(each.done >= done or each.problems for each, done in zip(wanderers, enough, strict=True)))


def imported(luod, pid):
    """What a luod has imported so far."""
    return re.findall(rf"^process {pid} imports (\S+)", luod.log(), re.MULTILINE)


def preserve(client, name):
    with memfd(b"one") as fd:
        client.preserve(name, fd, 0)


def create(client, name):
    client.create(name)
    preserve(client, name)


def is_whole(luod):
    with connect(luod.socket) as client, client.retrieve("ram")[0] as back:
        return content(back) == b"one"


def watch(client):
    with client.watch() as events:
        assert next(events).event == "watching"


def load(client):
    with memfd(bzimage()) as fd:
        client.load_kernel(fd, reuse=True)


def update(client):
    """One that comes to nothing, for no kernel is loaded."""
    with client.update() as steps, pytest.raises(PreflightFailed):
        list(steps)


def follow(client):
    with client.follow() as steps:
        next(steps)


def refused(client, member, error, **parameters):
    with pytest.raises(error):
        client.call(member if "." in member else f"{custody.NAME}.{member}", parameters)


ASKED = {
    "Create": lambda client: (client.create("asked"), client.create_delegated("lent")[1].give_up()),
    "Preserve": lambda client: preserve(client, "asked"),
    "Unpreserve": lambda client: client.unpreserve("asked", [0]),
    "Retrieve": lambda client: client.retrieve("came")[0].close(),
    "Finish": lambda client: (client.finish("came", rearm=True), client.finish("left")),
    "Claim": lambda client: client.claim("lent").give_up(),
    "Discard": lambda client: [client.discard(name) for name in ("asked", "lent", "came")],
    "List": lambda client: client.list(),
    "Ready": lambda client: refused(client, "Ready", InvalidParameter, update=1, watcher="nobody"),
    "Veto": lambda client: refused(client, "Veto", InvalidParameter, update=1, watcher="nobody", reason=""),
    "Status": lambda client: client.status(),
    "Manifest": lambda client: client.manifest(),
    "Watch": watch,
    "Preflight": lambda client: client.preflight(),
    "Start": update,
    "LoadKernel": load,
    "Follow": follow,
    "Abort": lambda client: refused(client, "io.luod.Update.Abort", NoUpdate),
    "UnloadKernel": lambda client: client.unload_kernel(),
    "Timeline": lambda client: client.timeline(),
    "StartAfresh": lambda client: client.start_afresh(),
    "GetInfo": lambda client: client.call("org.varlink.service.GetInfo"),
    "GetInterfaceDescription": lambda client: client.call(DESCRIBE, {"interface": custody.NAME}),
    "no such method": lambda client: refused(client, "Nonsense", MethodNotFound),
}
"""Each thing that luod can be asked for, where sessions `came` and `left` have come over."""


def test_everything_is_asked_for():
    assert {name.rpartition(".")[2] for name in (*SERVED, *STREAMS)} <= ASKED.keys()


def test_an_upgrade_under_load_undoes_nothing_and_the_old_luod_serves_until_it_is_stopped(
    sim, tmp_path, installed, wheels
):
    with survivor(sim.path, tmp_path / "luod", installed.supervise) as luod:
        with connect(luod.socket) as client:
            for name in ("came", "left"):
                create(client, name)
        sim.kexec()
        luod.power_off()
        luod.start()
        old = luod.pid()
        with connect(luod.socket) as client:
            client.status()  # is answered when all is there that it takes to leave, too
        needed = imported(luod, old)
        wanderers = [Wanderer(luod, number) for number in range(8)]
        with wandering(wanderers):
            go_on(wanderers)
            installed.install(wheels[NEW])
            go_on(wanderers)
            assert version(luod) == OLD
            with connect(luod.socket) as client:
                for ask in ASKED.values():
                    ask(client)
            os.kill(old, signal.SIGHUP)
            within(30, lambda: "the configuration was read again" in luod.log())
            luod.upgrade()
            within(30, lambda: luod.pid() not in (None, old))
            assert version(luod) == NEW
            go_on(wanderers)
        with connect(luod.socket) as client:
            for each in wanderers:
                each.look(client)
            status, sessions = client.status(), client.list()
        assert status.sessions == len(sessions)
        assert status.fd_store["unclear"] == []
        assert not any(each.lost for each in wanderers)
        assert imported(luod, old) == needed  # another version's, after an upgrade, or gone


def test_a_luod_that_dies_while_its_files_are_gone_comes_again_with_them(sim, tmp_path, installed, wheels):
    with survivor(sim.path, tmp_path / "luod", installed.supervise) as luod:
        with connect(luod.socket) as client:
            create(client, "ram")
        installed.uninstall()
        luod.kill()
        within(30, lambda: "ended with status" in luod.log())
        installed.install(wheels[NEW])
        assert version(luod) == NEW
        assert is_whole(luod)


def test_a_luod_that_lacks_a_file_takes_nothing_over(sim, tmp_path, installed, wheels):
    with survivor(sim.path, tmp_path / "luod", installed.supervise) as luod:
        with connect(luod.socket) as client:
            create(client, "ram")
        sim.kexec()
    (missing,) = installed.place.rglob(f"{custody.NAME}.varlink")
    missing.unlink()
    alone = [*installed.luod, "--device", sim.path, "--socket", tmp_path / "io.luod", "--runtime-directory", tmp_path]
    ran = subprocess.run(alone, capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1] == "luod: the descriptions of the interfaces: No such file or directory"
    installed.install(wheels[NEW])
    with survivor(sim.path, tmp_path / "luod", installed.supervise) as luod:
        assert is_whole(luod)
