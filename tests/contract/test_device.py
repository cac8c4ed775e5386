"""The device: who may open it (kernel/liveupdate/luo_core.c)."""

from errno import EBUSY

from luod.kernel.api import Call

from .steps import process_that, refused


def test_a_second_opener_is_told_busy(kernel):
    with kernel.open(), refused(Call.OPEN, EBUSY):
        kernel.open()


def test_the_device_opens_again_right_after_it_was_closed(kernel):
    for _ in range(100):
        kernel.open().close()


def test_a_refused_opener_changes_nothing(kernel):
    with kernel.open() as device:
        for _ in range(3):
            with refused(Call.OPEN, EBUSY):
                kernel.open()
        device.create_session("still works").give_up()


def test_another_process_holds_the_device_until_it_is_killed(kernel, kernel_path):
    opens = "from luod.kernel.find import kernel_at\ndevice = kernel_at(sys.argv[1]).open()"
    with process_that(opens, kernel_path) as process:
        with refused(Call.OPEN, EBUSY):
            kernel.open()
        process.kill()
        process.wait()
        kernel.open().close()


def test_a_boot_has_one_id(kernel):
    assert kernel.boot_id() == kernel.boot_id()


def test_the_next_boot_has_another_id(kernel, kexec):
    old = kernel.boot_id()
    kexec()
    assert kernel.boot_id() != old
