"""What may import what: downwards only, without circles, and each library only where it belongs."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import luod

ROOT = Path(luod.__file__).parent

LAYERS = (
    ("errors", "names"),
    (
        *("fds", "lifecycle", "manifest", "memory", "policy", "sockets", "bag", "blackbox", "timeline"),
        *("kernel.abi", "kernel.api", "kernel.shared", "kernel.cmdline", "kernel.compatible", "kernel.unpack"),
        *("network.abi", "network.model", "network.relations", "network.report", "network.steps", "network.words"),
        *("network.plan", "network.selection"),
    ),
    ("varlink", "interface", "holdings", "renewal", "custody", "update", "later"),
    (
        *("bell", "child", "config", "flight", "moments", "recovery", "sim", "store", "systemd", "transport"),
        *("next_kernel", "origin", "sealed"),
        *("kernel.device", "kernel.filesystems", "kernel.image", "kernel.kexec", "kernel.machine", "kernel.running"),
        *("network.applying", "network.changing", "network.changing.taps", "network.reading"),
    ),
    (
        *("kernel.find", "start", "leave", "going", "pause", "carry_over", "departure", "means"),
        *("facts", "methods", "preflight", "operations", "served", "conversation", "server", "client"),
        *("handover", "network.handing"),
    ),
    ("daemon", "supervisor", "ctl", "demo", "__main__"),
)
"""Lowest first. A module of a layer imports from its own and from those below."""

ONLY_IN = {
    "trio": ("bell", "transport", "conversation", "server", "carry_over", "departure", "daemon", "client", "demo"),
    "pydantic_core": ("ctl",),
    "pydantic": (
        "config",
        "interface",
        "manifest",
        "policy",
        "network.model",
        "network.reading",
        "client",
        "ctl",
        "demo",
    ),
    "pyroute2": ("network.applying", "network.changing", "network.reading"),
    "click": ("ctl",),
    "rich": ("ctl", "demo"),
    "backports": ("kernel.unpack",),
    "compression": ("kernel.unpack",),
    "lz4": ("kernel.unpack",),
    "ctypes": ("kernel.filesystems", "kernel.kexec", "ctl", "sim"),
}
"""Where each library may be imported."""

CALLED_ONLY_IN = {
    "ioctl": ("kernel.device", "kernel.filesystems", "network.changing.taps"),  # on LUO's; on file systems; on taps
    "sendmsg": ("sockets", "bag", "systemd", "transport", "sim"),
    "recvmsg": ("sockets", "bag", "supervisor", "transport", "sim"),
    "syscall": ("kernel.filesystems", "kernel.kexec", "ctl"),
    "reboot": ("kernel.kexec",),
}
"""Where each system call may be made."""


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name not in {"", "kernel", "network"}:
            yield name, ast.parse(path.read_text())


def imported(tree):
    """The names of what is imported anywhere in a module, except for type checkers only."""
    for_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name):
    """The entry of LAYERS that a module of luod belongs to."""
    rooms = [room for layer in LAYERS for room in layer if name == room or name.startswith(f"{room}.")]
    assert rooms, f"luod.{name} stands in no layer"
    return max(rooms, key=len)


LEVEL = {room: level for level, layer in enumerate(LAYERS) for room in layer}
MODULES = dict(modules())


def own_imports(tree):
    """The modules of luod that a module imports, or imports something from."""
    names = [name.removeprefix("luod.") for name in imported(tree) if name.startswith("luod.")]
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} & MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_layer_and_below(name):
    above = [other for other in own_imports(MODULES[name]) if LEVEL[room(other)] > LEVEL[room(name)]]
    assert above == []


def test_no_module_imports_itself_in_a_circle():
    TopologicalSorter({name: own_imports(tree) - {name} for name, tree in MODULES.items()}).prepare()


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library):
    users = {room(name) for name, tree in MODULES.items() if library in {path.split(".")[0] for path in imported(tree)}}
    assert users <= set(ONLY_IN[library])


@pytest.mark.parametrize("call", CALLED_ONLY_IN)
def test_a_system_call_is_made_only_where_it_belongs(call):
    users = {
        room(name)
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == call
    }
    assert users <= set(CALLED_ONLY_IN[call])


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("luod.client", ("trio", "click", "rich", "pyroute2")),
        ("luod.daemon", ("click", "rich", "pyroute2", "luod.network", "luod.sim", "luod.demo")),
        ("luod.departure", ("click", "rich", "pyroute2", "luod.network")),
        ("luod.sim.server", ("trio", "pydantic", "click", "rich")),
        ("luod.ctl", ("trio", "pydantic", "rich", "click")),
        ("luod.leave", ("trio", "pydantic", "ctypes", "logging", "subprocess", "luod.systemd", "luod.kernel.image")),
        ("luod.kernel.running", ("trio", "pydantic", "ctypes", "backports", "compression.zstd", "lz4", "bz2", "lzma")),
    ],
)
def test_a_module_starts_without_what_it_does_not_need(module, spared):
    code = f"import sys, {module}; print(*({set(spared)} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
