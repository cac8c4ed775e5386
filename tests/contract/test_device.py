"""The device: who may open it (kernel/liveupdate/luo_core.c)."""

from errno import EBUSY

from luod.kernel.api import Call

from .across import AcrossKexec
from .steps import incoming, outgoing, preserve, process_that, refused, retrieve


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


class TestTheNextBootHasAnotherId(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        preserve(session, kernel.boot_id().encode(), 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert retrieve(session, 1) != kernel.boot_id().encode()
