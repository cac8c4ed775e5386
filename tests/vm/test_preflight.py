"""What preflight finds on a real machine, and that it comes so."""

import json

from vm.machine import KERNELS
from vm.steps import LUOD, luod

LUOCTL = ["python3", "-m", "luod.ctl"]
IMAGE = f"{KERNELS}/bzImage"
WITHOUT_MEMFD = f"{KERNELS}/bzImage-without-memfd"
PASSES = {
    **dict.fromkeys(("device", "image", "command-line", "abi", "handlers", "manifest", "unit"), "pass"),
    "fd-store": "warn",  # nobody keeps what luod holds
    "incoming": "pass",
    "owners": "warn",  # nobody is there who could be asked
    "stores": "pass",
    "network": "pass",
}


def load(vm, image, *how):
    vm.run(*LUOCTL, "load", image, *(how or ["--reuse-cmdline"]))


def found(vm):
    """What came of each check, by its name."""
    ran = vm.start(*LUOCTL, "--json", "preflight", "--via", "direct").ended()
    return {check["name"]: check for check in json.loads(ran.stdout)["checks"]}


def outcomes(vm):
    return {name: check["outcome"] for name, check in found(vm).items()}


def test_a_real_kernel_is_told_from_one_that_loses_something(vm):
    line = vm.boot.cmdline
    luod(vm)
    vm.run(*LUOCTL, "create", "ram")

    vm.run("kexec", "--kexec-syscall", "--load", IMAGE, f"--append={line}")
    image = found(vm)["image"]
    assert (image["outcome"], image["loses"]) == ("fail", ["ram of uid 0"])
    assert "others have loaded the next kernel" in image["detail"]

    load(vm, IMAGE)
    assert outcomes(vm) == PASSES
    load(vm, IMAGE, "--cmdline", line.replace("liveupdate=on", ""))
    assert outcomes(vm) == PASSES | {"command-line": "fail"}

    # Whether a kernel with another configuration has KHO on by itself, no image tells.
    load(vm, WITHOUT_MEMFD)
    assert outcomes(vm) == PASSES | {"command-line": "fail", "handlers": "fail"}
    load(vm, WITHOUT_MEMFD, "--cmdline", f"{line} kho=on")
    assert outcomes(vm) == PASSES | {"handlers": "fail"}


def test_the_next_luod_knows_the_kernel_that_runs_and_where_it_came_from(vm):
    luod(vm)
    load(vm, IMAGE)
    boot = vm.next_boot(vm.start("kexec", "--exec"))
    assert boot.cmdline.split()[-1].startswith("luod.from=")
    luod(vm)
    load(vm, WITHOUT_MEMFD, "--cmdline", f"{boot.cmdline} kho=on")
    handlers = found(vm)["handlers"]
    assert (handlers["outcome"], handlers["detail"].partition(",")[0]) == (
        "fail",
        "Linux " + boot.release + " lacks memfd-v2",
    )


def test_a_kernel_that_the_older_call_loaded_in_luods_name_misses_what_it_should_have(vm):
    """The line is the one that luod made; the call is the one that hands nothing over."""
    luod(vm)
    load(vm, IMAGE)
    made = vm.run(*LUOCTL, "--json", "status").stdout
    line = json.loads(made)["image"]["commandLine"]
    vm.run("kexec", "--kexec-syscall", "--load", IMAGE, f"--append={line}")
    vm.next_boot(vm.start("kexec", "--exec"))
    missing = vm.start(*LUOD)
    missing.until("luod: this boot can't give anything back: a live update from boot ", on="stderr")
    missing.until("luod: listening on ", on="stderr")
    vm.run(*LUOCTL, "start-afresh", "--yes")
    missing.ended()
    luod(vm)
