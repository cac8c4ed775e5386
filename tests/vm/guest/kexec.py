"""What the guest's kernel tells of itself, and what it does with the image of a next one."""

import os
import re
from contextlib import contextmanager
from dataclasses import asdict
from errno import errorcode
from pathlib import Path

from contract.steps import incoming, memfd, outgoing, preserve, retrieve
from luod.fds import OwnedFd
from luod.kernel import kexec
from luod.kernel.api import KernelError
from luod.kernel.device import LuoKernel
from luod.kernel.image import Image, read_image
from luod.kernel.running import NotKnown, RunningKernel

DEBUGFS = Path("/sys/kernel/debug/kho")
SESSION = "session"
CONTENT = b"what was preserved"


@contextmanager
def opened(path, flags=os.O_RDONLY):
    with OwnedFd(os.open(path, flags | os.O_CLOEXEC)) as fd:
        yield fd.fileno()


def look(elsewhere=()):
    """What is known of the kernel that runs."""
    kernel = RunningKernel()
    return {
        "release": kernel.release(),
        "command line": kernel.command_line(),
        "live update": kernel.live_update_is_on(),
        "kho": _told(kernel.kho_is_on()),
        "loaded": kernel.an_image_is_loaded(),
        "image": _told(kernel.image(map(Path, elsewhere))),
    }


def read(path):
    """What there is to tell of an image."""
    with opened(path) as fd:
        return _told(read_image(fd))


def names_in_debugfs():
    """The names of the forms that the kernel itself shows: KHO's, in what it got or else what it gives, and LUO's."""
    (tree,) = (file for file in (DEBUGFS / "in" / "fdt", DEBUGFS / "out" / "fdt") if file.exists())
    kho = re.findall(rb"kho-v\d+", tree.read_bytes())
    luo = (DEBUGFS / "out" / "sub_fdts" / "LUO").read_bytes().partition(b"\0")[0]
    return [name.decode() for name in (*kho, luo)]


def shown():
    """All that the kernel shows of a next one, by file."""
    files = [file for tree in (DEBUGFS, Path("/sys/kernel/kexec")) for file in tree.rglob("*") if file.is_file()]
    return {str(file): file.read_bytes().hex() for file in (*files, Path("/proc/iomem"))}


def load_and_unload(path, command_line):
    """Whether an image is loaded: before, after one was, after it was again, after it was unloaded, and again."""
    kernel = RunningKernel()
    loaded = [kernel.an_image_is_loaded()]
    with opened(path) as fd:
        for step in (lambda: kexec.load(fd, command_line),) * 2 + (kexec.unload,) * 2:
            step()
            loaded.append(kernel.an_image_is_loaded())
    return loaded


def fail(path):
    """What the calls answer, by what is wrong; and whether what was loaded before still is."""
    large, copy = Path("/tmp/large"), Path("/tmp/copy")
    large.touch()
    os.truncate(large, 400 << 20)
    content = Path(path).read_bytes()
    copy.write_bytes(content)
    limit = read(path)["command_line_max"]
    answers = {"no image is loaded": _answer(kexec.reboot_into_the_next_kernel)}
    with (
        opened(path) as image,
        opened(__file__) as text,
        opened("/") as directory,
        opened("/dev/null") as device,
        opened(large) as no_room,
        opened(copy, os.O_RDWR) as writing,
        opened(copy) as written,
        memfd(content) as memory,
    ):
        for what, *arguments in (
            ("a line as long as it may be", image, "x" * limit),
            ("a line that is longer", image, "x" * (limit + 1)),
            ("not a kernel", text, ""),
            ("a directory", directory, ""),
            ("a device", device, ""),
            ("no descriptor", -1, ""),
            ("open for writing", writing, ""),
            ("open for writing by somebody", written, ""),
            ("a memfd that is open for writing", memory, ""),
            ("the initrd is open for writing", image, "", writing),
            ("the initrd is no descriptor", image, "", 1000),
            ("the initrd is too large", image, "", no_room),
        ):
            answers[what] = _answer(lambda arguments=arguments: kexec.load(*arguments))
    answers["loaded"] = RunningKernel().an_image_is_loaded()
    kexec.unload()
    return answers


def go(path, command_line):
    """Preserve a file, load the next kernel, and go into it."""
    session = outgoing(LuoKernel(), SESSION)
    preserve(session, CONTENT, 1)
    with opened(path) as fd:
        kexec.load(fd, command_line)
    kexec.reboot_into_the_next_kernel()


def arrive():
    """What came over."""
    with incoming(LuoKernel(), SESSION) as session:
        return retrieve(session, 1).decode()


def _answer(call):
    try:
        call()
    except KernelError as error:
        return errorcode[error.errno]
    return "done"


def _told(answer):
    match answer:
        case NotKnown():
            return str(answer)
        case Image():
            return asdict(answer) | {"build_ids": sorted(answer.build_ids), "abi": _sorted(answer.abi)}
    return answer


def _sorted(abi):
    return {whose: sorted(names) for whose, names in vars(abi).items()}
