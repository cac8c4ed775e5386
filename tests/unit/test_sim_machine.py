"""The simulated machine: it loads the next kernel, goes into it, and takes over what that one can read."""

import errno
import os
from contextlib import contextmanager

import pytest

import images
from luod.kernel.api import Call, KernelError
from luod.kernel.cmdline import CommandLineError
from luod.kernel.find import machine_at
from luod.kernel.image import Image
from luod.kernel.machine import RealMachine
from luod.sim.__main__ import main
from luod.sim.client import SimKernel, SimMachine
from luod.sim.image import HANDLERS, KHO, LUO, RELEASE, bzimage
from memory import content, memfd

LINE = "quiet liveupdate=on"


@pytest.fixture
def machine(sim, monkeypatch):
    monkeypatch.setattr("luod.sim.client.power_off", lambda: None)
    return machine_at(sim.path)


@pytest.fixture
def kernel(sim):
    return SimKernel(sim.path)


@contextmanager
def refused(call, number):
    with pytest.raises(KernelError) as caught:
        yield
    assert (caught.value.call, caught.value.errno) == (call, number)


def load(machine, line=LINE, initrd=None, **what):
    with images.file(bzimage(**what)) as kernel:
        machine.load(kernel.fileno(), line, initrd)


def preserve(kernel):
    """A session of one file, given to whoever has it open until the next kernel."""
    with kernel.open() as device, memfd(b"what comes over") as file:
        session = device.create_session("ram")
        session.preserve_fd(file.fileno(), 0)
    return session


def what_came_over(kernel):
    try:
        with kernel.open() as device, device.retrieve_session("ram") as session, session.retrieve_fd(0) as file:
            return content(file)
    except KernelError as error:
        return error.call, error.errno


def after_kexec(machine, kernel, line=LINE, **what):
    load(machine, line, **what)
    with preserve(kernel):
        machine.kexec()
        return what_came_over(kernel)


def test_a_socket_is_a_simulated_kernels_machine_and_all_else_the_real_one(sim, tmp_path):
    assert isinstance(machine_at(sim.path), SimMachine)
    assert isinstance(machine_at(str(tmp_path / "nothing")), RealMachine)
    assert (machine_at(sim.path).is_simulated, RealMachine().is_simulated) == (True, False)


def test_the_running_kernel_tells_of_itself(machine):
    running = machine.running
    assert (running.release(), running.architecture()) == (RELEASE, "x86_64")
    assert running.live_update_is_on()
    assert running.kho_is_on()
    assert not running.an_image_is_loaded()
    image = running.image()
    assert isinstance(image, Image)
    assert running.build_id() in image.build_ids
    assert (image.abi.kho, image.abi.luo, image.abi.handlers) == tuple(map(frozenset, (KHO, LUO, HANDLERS)))


def test_what_is_loaded_is_told_until_it_is_taken_back(machine):
    with memfd(b"initrd") as initrd:
        load(machine, "quiet", initrd.fileno(), release="7.4.0-next")
    assert machine.running.an_image_is_loaded()
    loaded = machine.running.next_kernel()
    assert (loaded.image.release, loaded.command_line, loaded.initrd_bytes) == ("7.4.0-next", "quiet", 6)
    load(machine, "debug")
    assert machine.running.next_kernel()[1:] == ("debug", None)
    machine.unload()
    machine.unload()
    assert not machine.running.an_image_is_loaded()


def test_what_is_no_kernel_for_it_is_refused_and_what_was_loaded_stays(machine):
    load(machine)
    cases = [
        (b"nonsense", None, errno.ENOEXEC),
        (images.elf(images.memory()), None, errno.ENOEXEC),
        (bzimage(), b"", errno.EINVAL),
    ]
    for kernel, initrd, number in cases:
        with images.file(kernel) as file, memfd(initrd or b"") as empty, refused(Call.KEXEC_LOAD, number):
            machine.load(file.fileno(), "debug", None if initrd is None else empty.fileno())
    with refused(Call.KEXEC_LOAD, errno.EBADF):
        machine.load(-1, "debug")
    with pytest.raises(CommandLineError):
        load(machine, "x" * 2048)
    with refused(Call.KEXEC_LOAD, errno.EINVAL):
        load(machine, "x" * 2040)  # longer than this image takes
    assert machine.running.next_kernel().command_line == LINE


def test_without_a_next_kernel_it_stays_in_this_one(machine, kernel):
    before = kernel.boot_id()
    with refused(Call.KEXEC, errno.EINVAL):
        machine.kexec()
    assert kernel.boot_id() == before


def test_the_next_kernel_is_what_was_loaded_and_has_what_was_preserved(machine, kernel):
    before = kernel.boot_id()
    assert after_kexec(machine, kernel, "liveupdate=on next", release="7.4.0-next") == b"what comes over"
    assert kernel.boot_id() != before
    running = machine.running
    assert (running.release(), running.command_line()) == ("7.4.0-next", "liveupdate=on next")
    assert not running.an_image_is_loaded()


def test_another_image_is_another_kernel_by_its_build_id(machine):
    ids = {machine.running.build_id()}
    for release in ("7.4.0-a", "7.4.0-b"):
        load(machine, release=release)
        machine.kexec()
        ids.add(machine.running.build_id())
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("line", "what", "found"),
    [
        ("quiet", {}, (Call.OPEN, errno.ENOENT)),
        ("liveupdate=on kho=off", {}, (Call.OPEN, errno.ENOENT)),
        (LINE, {"luo": ()}, (Call.OPEN, errno.ENOENT)),
        (LINE, {"luo": ("luo-v6",)}, (Call.RETRIEVE_SESSION, errno.ENOENT)),
        (LINE, {"kho": ("kho-v5",)}, (Call.RETRIEVE_SESSION, errno.ENOENT)),
        (LINE, {"handlers": ("memfd-v3",)}, (Call.OPEN, errno.EIO)),
        (LINE, {"handlers": ("memfd-v2", "memfd-v3")}, b"what comes over"),
    ],
    ids=["no liveupdate=on", "kho=off", "no LUO", "another LUO", "another KHO", "another handler", "one more handler"],
)
def test_what_the_next_kernel_cannot_read_does_not_come_over(machine, kernel, line, what, found):
    assert after_kexec(machine, kernel, line, **what) == found


def test_a_handler_that_is_missing_matters_only_to_what_it_preserves(machine, kernel):
    load(machine, handlers=())
    machine.kexec()
    kernel.open().close()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM])
def test_each_call_fails_as_it_is_told_to_and_changes_nothing(machine, sim, kernel, number):
    before = kernel.boot_id()
    sim.fault(Call.KEXEC_LOAD, number)
    with refused(Call.KEXEC_LOAD, number):
        load(machine)
    assert not machine.running.an_image_is_loaded()
    load(machine)
    sim.fault(Call.KEXEC_UNLOAD, number)
    with refused(Call.KEXEC_UNLOAD, number):
        machine.unload()
    assert machine.running.an_image_is_loaded()
    sim.fault(Call.KEXEC, number)
    with preserve(kernel) as session:
        with refused(Call.KEXEC, number):
            machine.kexec()
        assert kernel.boot_id() == before
        assert session.get_name() == "ram"


def test_a_file_that_can_not_be_frozen_brings_the_reboot_back(machine, sim, kernel):
    load(machine)
    sim.fault("FREEZE", errno.EBUSY)
    with preserve(kernel), refused(Call.KEXEC, errno.EBUSY):
        machine.kexec()
    assert machine.running.an_image_is_loaded()


def test_a_kexec_that_is_not_its_own_has_the_same_kernel_again(machine, sim):
    line = machine.running.command_line()
    load(machine, "quiet")
    sim.kexec()
    assert machine.running.command_line() == line
    assert not machine.running.an_image_is_loaded()


def test_without_a_simulator_every_call_says_so(tmp_path):
    machine = SimMachine(str(tmp_path / "nothing"))
    for call in (lambda: load(machine), machine.unload, machine.kexec):
        with pytest.raises(KernelError) as caught:
            call()
        assert caught.value.errno == errno.ENODEV
    with pytest.raises(FileNotFoundError):
        machine.running.command_line()


def test_the_process_that_goes_into_the_next_kernel_ends(sim):
    child = os.fork()
    if not child:
        try:
            machine = SimMachine(sim.path)
            load(machine)
            machine.kexec()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert machine_at(sim.path).running.command_line() == LINE


def test_an_image_is_written_by_command(machine, kernel, tmp_path):
    file = tmp_path / "bzImage"
    assert main(["image", str(file), "--release", "7.5.0-written", "--luo"]) == 0
    with open(file, "rb") as image:
        machine.load(image.fileno(), LINE)
    loaded = machine.running.next_kernel().image
    assert (loaded.release, loaded.abi.luo, loaded.abi.handlers) == ("7.5.0-written", frozenset(), {"memfd-v2"})


def test_an_image_that_can_not_be_written_is_said(tmp_path, capsys):
    assert main(["image", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
