"""What leads a guest into its next kernel by luod's own last steps, and what is left where they come to nothing."""

import fcntl
import json
import os
import signal
import subprocess
from errno import EBUSY, errorcode
from pathlib import Path

from contract.steps import outgoing, preserve
from luod import leave, pause
from luod.going import CameBack, depart
from luod.kernel import filesystems, kexec
from luod.kernel.api import KernelError
from luod.kernel.device import LuoKernel
from luod.kernel.running import RunningKernel
from luod.lifecycle import Via
from luod.systemd import systemctl
from vm.guest.kexec import CONTENT, SESSION, opened
from vm.guest.services import write

DIRECTORY = Path("/run/luod")
TOLD = DIRECTORY / "told"
UNIT = Path("/usr/local/lib/systemd/system/luod.service")
DISKS = ("/", "/opt/luod")
"""Where file systems on disks are; the second one is read-only, until it is remounted."""

FROZEN_DISKS = "frozen-disks"

DROP_IN = """[Service]
ExecStart=
ExecStart=/usr/bin/python3 -m vm.guest.call vm.guest.leaving die_half_way {}
Environment=PYTHONPATH=/opt/luod:/opt/luod/tests
WorkingDirectory=/opt/luod
"""


class Here:
    """This machine, as `depart` sees it."""

    is_simulated = False

    def kexec(self):
        raise AssertionError("that is the last of many steps")


def go(path, command_line, via="direct"):
    """Preserve a file, load the next kernel and go into it."""
    session = outgoing(LuoKernel(), SESSION)
    preserve(session, CONTENT, 1)
    return load_and_go(path, command_line, via)


def load_and_go(path, command_line, via="direct"):
    """Load the next kernel and go into it."""
    with opened(path) as fd:
        kexec.load(fd, command_line)
    return try_to_go(via)


def try_to_go(via="direct"):
    """Go into the next kernel; why it came to nothing, and what is left of it."""
    DIRECTORY.mkdir(exist_ok=True)
    try:
        depart(Via(via), Here(), DIRECTORY)
    except CameBack as error:
        return {"reason": str(error), "left": left()}
    signal.pause()


def left():
    """The files of last steps that are still there."""
    return [name for name in (leave.LEAVING, leave.HELD_STILL, leave.CAME_BACK) if (DIRECTORY / name).exists()]


def write_everywhere():
    """Write to each disk. It would wait for ever where one is still frozen."""
    for disk in DISKS:
        file = Path(disk, "written")
        file.write_text("written\n")
        file.unlink()


def is_frozen(disk):
    """Whether a file system is frozen: nobody can do it again."""
    with opened(disk) as fd:
        try:
            fcntl.ioctl(fd, filesystems._FREEZE, 0)
        except OSError as error:
            return error.errno == EBUSY
        fcntl.ioctl(fd, filesystems._THAW, 0)
    return False


def were_frozen():
    """Which disks were frozen when the last steps died."""
    return json.loads((DIRECTORY / FROZEN_DISKS).read_text())


def die_half_way():
    """Do the last steps, and be killed where all that is missing is the last of them."""

    def die():
        (DIRECTORY / FROZEN_DISKS).write_text(json.dumps([disk for disk in DISKS if is_frozen(disk)]))
        os.kill(os.getpid(), signal.SIGKILL)

    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / leave.LEAVING).touch()
    leave.reboot_into_the_next_kernel = die
    leave.main([])


def hold_still_what_can_not_be_frozen():
    """Whether it can be written to: while it is held still, and afterwards; and whether a mount's flags stay."""
    place = Path("/run/no disk")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid,noexec", "none", place], check=True)
    told = []
    for step in (filesystems.hold_still, lambda fd: filesystems.let_go_on(fd, writable=False)):
        with opened(place) as fd:
            step(fd)
        try:
            (place / "file").write_text("written\n")
        except OSError as error:
            told.append(error.strerror)
        else:
            told.append("written")
    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "no\\040disk" in line)
    return [*told, line.split()[5]]


# In luod's sandbox


def install(what, arguments):
    """Make `sandboxed.service`: this function in the sandbox that luod has. What it returns is in `TOLD`."""
    settings = UNIT.read_text().split("[Service]")[1].split("[Install]")[0].splitlines()
    left_out = ("Type=", "NotifyAccess=", "Exec", "Restart", "WatchdogSec=", "FileDescriptorStore")
    lines = [line for line in settings if not line.startswith(left_out)]
    call = json.dumps({"function": what, "arguments": arguments})
    command = f"/usr/bin/python3 -m vm.guest.call vm.guest.leaving tell '{call}'"
    extra = ["Type=oneshot", "Environment=PYTHONPATH=/opt/luod:/opt/luod/tests", "WorkingDirectory=/opt/luod"]
    text = "\n".join(["[Unit]", "DefaultDependencies=no", "[Service]", *lines, *extra, f"ExecStart={command}"])
    write("/run/systemd/system/sandboxed.service", text + "\n")


def tell(function, arguments):
    """Call a function, and leave what it returns where the host finds it."""
    TOLD.unlink(missing_ok=True)
    TOLD.write_text(json.dumps(globals()[function](**arguments)))


def told():
    """What the last one returned."""
    return json.loads(TOLD.read_text())


def read():
    """What luod reads of the machine: how much there is, or why it can't."""
    found = {}
    for path in ("/sys/class/rtc/rtc0/since_epoch", "/sys/kernel/notes", "/proc/cmdline", "/boot", "/usr/lib/modules"):
        try:
            found[path] = len(os.listdir(path) if os.path.isdir(path) else Path(path).read_bytes())
        except OSError as error:
            found[path] = error.strerror
    return found


def load_and_unload(path, command_line):
    """Whether the next kernel is loaded: after it was, and after it was unloaded. And what a reboot() says."""
    with opened(path) as fd:
        kexec.load(fd, command_line)
    loaded = [RunningKernel().an_image_is_loaded()]
    kexec.unload()
    try:
        kexec.reboot_into_the_next_kernel()
    except KernelError as error:
        return [*loaded, RunningKernel().an_image_is_loaded(), errorcode[error.errno]]


def freeze_and_thaw(units):
    """How units are, between: after `freeze`, and after `thaw`. What could not be frozen; what luod would forget."""
    states = {}
    failures = pause.freeze(units, DIRECTORY)
    states["paused"] = [_state(unit) for unit in units]
    recorded = (DIRECTORY / pause.FROZEN).read_text().split()
    assert pause.thaw(DIRECTORY) == {}
    states["again"] = [_state(unit) for unit in units]
    return {"failures": failures, "recorded": recorded, "left": (DIRECTORY / pause.FROZEN).exists(), **states}


def _state(unit):
    return systemctl("show", "--property=FreezerState", "--value", unit).out.strip()


def stores():
    """What other services have in stores that are to be kept."""
    return pause.other_stores()
