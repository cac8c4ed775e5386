"""The image of a kernel, and the calls that load it and go into it, of a real kernel and on one."""

from vm.guest import contract, kexec
from vm.machine import KERNELS

IMAGE = f"{KERNELS}/bzImage"
WITHOUT_MEMFD = f"{KERNELS}/bzImage-without-memfd"


def test_the_image_that_is_booted_tells_what_its_kernel_tells_of_itself(vm):
    image = vm.call(kexec.read, path=IMAGE)
    assert (image["kind"], image["architecture"], image["packing"]) == ("bzImage", "x86_64", "xz")
    assert image["release"] == vm.boot.release
    assert image["abi"]["kho"] + image["abi"]["luo"] == vm.call(kexec.names_in_debugfs)
    (handler,) = image["abi"]["handlers"]
    assert handler.startswith("memfd-v")
    vm.kexec()
    assert image["abi"]["kho"] + image["abi"]["luo"] == vm.call(kexec.names_in_debugfs)

    without = vm.call(kexec.read, path=WITHOUT_MEMFD)
    assert without["abi"] == image["abi"] | {"handlers": []}
    assert without["release"] == image["release"]


def test_a_kernel_finds_its_own_image_among_others(vm):
    told = vm.call(kexec.look, elsewhere=[WITHOUT_MEMFD, IMAGE])
    assert told == {
        "release": vm.boot.release,
        "command line": vm.boot.cmdline,
        "live update": True,
        "kho": True,
        "loaded": False,
        "image": vm.call(kexec.read, path=IMAGE),
    }
    assert vm.call(kexec.look, elsewhere=[WITHOUT_MEMFD])["image"].endswith(f"{WITHOUT_MEMFD}: it is another kernel's)")
    vm.kexec("bzImage-without-memfd")
    told = vm.call(kexec.look, elsewhere=[IMAGE, WITHOUT_MEMFD])
    assert told["image"] == vm.call(kexec.read, path=WITHOUT_MEMFD)


def test_a_kernel_tells_what_its_command_line_turned_on(vm):
    line = vm.boot.cmdline.replace("liveupdate=on", "").strip()
    for turned_on, live_update, kho in (
        ("", False, True),
        ("liveupdate=on kho=off", False, False),
        ('liveupdate=no liveupdate=1 liveupdate liveupdate=maybe kho=no "kho=yes" -- liveupdate=off', True, True),
    ):
        vm.kexec(cmdline=f"{line} {turned_on}")
        told = vm.call(kexec.look)
        assert (told["live update"], told["kho"]) == (live_update, kho), turned_on


def test_an_image_is_loaded_and_unloaded_any_number_of_times(vm):
    loaded = vm.call(kexec.load_and_unload, path=IMAGE, command_line=vm.boot.cmdline)
    assert loaded == [False, True, True, False, False]


def test_what_can_not_be_loaded_is_refused_and_what_was_loaded_still_is(vm):
    assert vm.call(kexec.fail, path=IMAGE) == {
        "no image is loaded": "EINVAL",
        "a line as long as it may be": "done",
        "a line that is longer": "EINVAL",
        "not a kernel": "ENOEXEC",
        "a directory": "EINVAL",
        "a device": "EINVAL",
        "no descriptor": "EBADF",
        "open for writing": "ETXTBSY",
        "open for writing by somebody": "ETXTBSY",
        "a memfd that is open for writing": "done",
        "the initrd is open for writing": "ETXTBSY",
        "the initrd is no descriptor": "EBADF",
        "the initrd is too large": "EADDRNOTAVAIL",
        "loaded": True,
    }


def test_what_is_preserved_is_in_the_kernel_that_was_loaded_by_these_calls(vm):
    boot = vm.next_boot(vm.begin(kexec.go, path=IMAGE, command_line=f"{vm.boot.cmdline} luod.test"))
    assert (boot.number, boot.cmdline.split()[-1]) == (1, "luod.test")
    assert vm.call(kexec.arrive) == kexec.CONTENT.decode()


def test_no_kernel_tells_that_the_older_call_loaded_the_next_one_which_loses_everything(vm):
    vm.load()
    shown = vm.call(kexec.shown)
    vm.run("kexec", "--kexec-syscall", "--load", IMAGE, f"--append={vm.boot.cmdline}")
    assert vm.call(kexec.shown) == shown
    assert shown["/sys/kernel/kexec/loaded"] == b"1\n".hex()

    vm.begin(contract.hold_a_file, name="lost").until(contract.HELD)
    assert vm.next_boot(vm.start("kexec", "--exec")).number == 0
    assert vm.call(contract.retrieve_session, name="lost") == "ENOENT"
