"""The contract's facts across kexec, in a machine whose kernels go for real.

Boot number n runs the stage number n of every fact, and holds what they want held until its kexec.
"""

import errno
import importlib
import os
import pkgutil
import signal
from contextlib import ExitStack
from traceback import TracebackException

import contract
from contract.across import AcrossKexec
from contract.steps import incoming, preserve
from luod.kernel.api import KernelError
from luod.kernel.device import LuoKernel

HELD = "held"
PASSED = "passed"


def facts():
    """The classes of all facts across kexec, by name."""
    found = {}
    for module in pkgutil.iter_modules(contract.__path__, "contract."):
        if module.name.startswith("contract.test_"):
            for name, fact in vars(importlib.import_module(module.name)).items():
                if name.startswith("Test") and issubclass(fact, AcrossKexec):
                    assert found.setdefault(name, fact) is fact, f"{name} is there twice: they share sessions' names"
    return found


def run_stage(number):
    """Run this stage, from 0 on, of every fact that has it; say of each how it went, then HELD, and stay."""
    with ExitStack() as stacks:
        for name, fact in facts().items():
            if number < len(fact.stages):
                last = number == len(fact.stages) - 1
                print(name, fact.stages[number], _outcome(fact(), fact.stages[number], last, stacks), flush=True)
        print(HELD, flush=True)
        signal.pause()


def _outcome(fact, stage, last, stacks):
    """PASSED, or the traceback with the values of variables, as one line. What the last stage opened is closed."""
    before = _open_descriptors()
    try:
        with ExitStack() as held:
            getattr(fact, stage)(LuoKernel(), held)
            if not last:
                stacks.enter_context(held.pop_all())
    except BaseException as error:
        return repr("".join(TracebackException.from_exception(error, capture_locals=True).format()))
    if last and (left := _open_descriptors() - before):
        return repr(f"left open: {sorted(left)}")
    return PASSED


def _open_descriptors():
    return {number for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")}


def hold_a_file(name):
    """Hold a session of this name with one file, token 1, until the kexec."""
    with LuoKernel().open() as device:
        session = device.create_session(name)
    preserve(session, b"held", 1)
    print(HELD, flush=True)
    signal.pause()


def open_the_device(times=3):
    """What so many opens answered, one after the other: an errno's name, or "open"."""
    return [_answer(lambda: LuoKernel().open().close()) for _ in range(times)]


def retrieve_session(name):
    """What RETRIEVE_SESSION answered: an errno's name, or "open"."""
    return _answer(lambda: incoming(LuoKernel(), name).give_up())


def _answer(call):
    try:
        call()
    except KernelError as error:
        return errno.errorcode[error.errno]
    return "open"
