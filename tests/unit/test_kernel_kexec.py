"""The system calls of kexec where they must not work: nothing here could load a kernel, and nothing goes into one."""

import json
import subprocess
import sys
from errno import EBADF, ENOSYS, EPERM
from pathlib import Path

import pytest

from luod.kernel import kexec
from luod.kernel.api import Call, KernelError
from luod.kernel.cmdline import CommandLineError

ROOT = Path(__file__).parents[2]

UNPRIVILEGED = """
import ctypes, json, os, re
from pathlib import Path
from luod.kernel import kexec
from luod.kernel.api import KernelError

CAP_SYS_BOOT = 22
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
(capabilities,) = re.findall(r"^CapEff:\\t(\\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
assert not int(capabilities, 16) >> CAP_SYS_BOOT & 1, "this process could reboot the machine"

answers = []
for call in (lambda: kexec.load(-1, ""), kexec.unload, kexec.reboot_into_the_next_kernel):
    try:
        call()
    except KernelError as error:
        answers.append([error.call, error.errno, error.meaning])
print(json.dumps(answers))
"""


def test_somebody_without_the_right_to_is_refused_and_told_so():
    ran = subprocess.run([sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, cwd=ROOT, check=True)
    answers = json.loads(ran.stdout)
    assert [call for call, _, _ in answers] == [Call.KEXEC_LOAD, Call.KEXEC_UNLOAD, Call.KEXEC]
    for _, number, meaning in answers:
        assert number in (EPERM, ENOSYS)
        assert "CAP_SYS_BOOT" in meaning if number == EPERM else "CONFIG_KEXEC_FILE" in meaning


@pytest.mark.parametrize("what", ["quiet\0", "x" * 2048])
def test_a_line_that_no_kernel_takes_never_comes_to_the_call(what):
    with pytest.raises(CommandLineError):
        kexec.load(-1, what)


def test_a_descriptor_that_is_none_is_refused():
    with pytest.raises(KernelError) as caught:
        kexec.load(-1, "quiet")
    assert caught.value.call is Call.KEXEC_LOAD
    assert caught.value.errno in (EBADF, EPERM, ENOSYS)
