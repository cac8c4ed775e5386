"""What is known of the kernel that runs, by what it says of itself and by its image."""

import os
import shutil

import pytest

import images
from images import bzimage, elf, memory
from luod.kernel.image import Image
from luod.kernel.running import IMAGES, NotKnown, RunningKernel

RELEASE = images.RELEASE
ANOTHER = bytes(reversed(images.BUILD_ID))


class Files:
    """What a kernel shows of itself, and its images."""

    def __init__(self, root):
        self.root = root
        self.kernel = RunningKernel(root)
        self.write("proc/sys/kernel/osrelease", f"{RELEASE}\n")
        self.write("proc/cmdline", "quiet\n")
        self.write("sys/kernel/notes", images.build_id_note())

    def write(self, path, content):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def image(self, path, **what):
        return self.write(path, bzimage(elf(memory(**what))))


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_what_it_was_started_with(files):
    assert (files.kernel.release(), files.kernel.command_line()) == (RELEASE, "quiet")


def test_the_machine_under_the_tests_can_be_asked():
    kernel = RunningKernel()
    assert kernel.release() == os.uname().release
    for answer in (kernel.live_update_is_on(), kernel.an_image_is_loaded()):
        assert isinstance(answer, bool)
    assert isinstance(kernel.kho_is_on(), bool | NotKnown)
    assert isinstance(kernel.build_id(), str | NotKnown)


# Live update, KHO, the next kernel


def test_live_update_is_on_where_there_is_the_device(files):
    assert not files.kernel.live_update_is_on()
    files.write("sys/class/misc/liveupdate/dev", "10:258\n")
    assert files.kernel.live_update_is_on()
    assert files.kernel.kho_is_on() is True


def test_kho_may_be_on_without_live_update(files):
    files.write("sys/kernel/debug/kho/out/scratch_len", "")
    assert files.kernel.kho_is_on() is True


def test_kho_is_off_where_the_command_line_says_so(files):
    files.write("proc/cmdline", "kho=on kho=off")
    assert files.kernel.kho_is_on() is False


@pytest.mark.parametrize("line", ["", "kho=on", "liveupdate=on"])
def test_whether_kho_is_on_is_not_known_where_nothing_tells(files, line):
    files.write("proc/cmdline", line)
    assert str(files.kernel.kho_is_on()).startswith("not known, because live update is off, and only debugfs")


@pytest.mark.parametrize("path", ["sys/kernel/kexec/loaded", "sys/kernel/kexec_loaded"])
def test_a_next_kernel_is_loaded_where_the_kernel_says_so(files, path):
    assert not files.kernel.an_image_is_loaded()
    files.write(path, "0\n")
    assert not files.kernel.an_image_is_loaded()
    files.write(path, "1\n")
    assert files.kernel.an_image_is_loaded()


# The image


@pytest.mark.parametrize("pattern", IMAGES)
def test_the_image_is_found_where_distributions_keep_it(files, pattern):
    files.image(pattern.format(release=RELEASE))
    image = files.kernel.image()
    assert isinstance(image, Image)
    assert image.release == RELEASE
    assert image.abi.handlers == {"memfd-v2", "vfio-pci-v1"}


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("/boot/bzImage", "boot/bzImage"),
        ("/bzImage", "boot/bzImage"),
        ("bzImage", "boot/bzImage"),
        ("(hd0,gpt2)/boot/vmlinuz-old", "boot/vmlinuz-old"),
    ],
)
def test_the_image_is_found_where_the_boot_loader_says(files, named, path):
    files.image(path)
    files.write("proc/cmdline", f"BOOT_IMAGE={named} quiet\n")
    assert isinstance(files.kernel.image(), Image)


def test_the_image_may_be_elsewhere(files):
    path = files.image("srv/kernels/next")
    assert isinstance(files.kernel.image(), NotKnown)
    assert isinstance(files.kernel.image([path]), Image)


def test_an_image_with_another_build_id_is_passed_over(files):
    """It may have been replaced since the boot, by one of the same name and release."""
    files.image(f"boot/vmlinuz-{RELEASE}", build_id=ANOTHER, handlers=())
    files.image(f"boot/vmlinux-{RELEASE}")
    image = files.kernel.image()
    assert isinstance(image, Image)
    assert image.abi.handlers


def test_where_the_image_is_not_found_each_place_is_named_with_the_reason(files):
    files.image(f"boot/vmlinuz-{RELEASE}", build_id=ANOTHER)
    files.write(f"boot/Image-{RELEASE}", "nonsense")
    os.mkfifo(files.root / "pipe")
    reason = str(files.kernel.image([files.root / "pipe"]))
    assert reason.replace(str(files.root), "") == (
        f"not known, because its image was not found (/lib/modules/{RELEASE}/vmlinuz: No such file or directory; "
        f"/boot/vmlinuz-{RELEASE}: it is another kernel's; "
        f"/boot/vmlinux-{RELEASE}: No such file or directory; "
        f"/boot/Image-{RELEASE}: it is nothing that luod knows as a kernel's image for x86-64 or arm64; "
        "/pipe: it is a pipe, not a file)"
    )


def test_without_a_build_id_no_image_is_taken_for_the_kernels(files):
    files.image(f"boot/vmlinuz-{RELEASE}")
    files.write("sys/kernel/notes", images.build_id_note()[:-1])
    assert str(files.kernel.image()) == "not known, because /sys/kernel/notes has no build id in it"
    shutil.rmtree(files.root / "sys")
    assert str(files.kernel.image()) == "not known, because /sys/kernel/notes can't be read: No such file or directory"
