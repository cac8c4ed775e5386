"""Facts about a live update, cut at the kexec, so that a process that dies with the old kernel can show them too."""

from contextlib import ExitStack
from typing import ClassVar


class AcrossKexec:
    """One fact. Each of its stages runs in a kernel of its own, and all of them run in the same kernels.

    A stage is called with the kernel and a stack that is closed when this kernel is gone: what must be held until the
    kexec goes there. A stage knows nothing of the one before it but what the class says, and uses no other names
    for sessions than such as begin with `self.name`.

    On a simulated kernel the fact's test runs all stages. In a virtual machine the first boot runs the first stage
    of every fact and holds all stacks until its kexec, the second boot runs the second stage, and so on.
    """

    stages: ClassVar = ("before", "after")

    @property
    def name(self):
        return type(self).__name__.removeprefix("Test")

    def test_across_kexec(self, kernel, kexec):
        *early, last = (getattr(self, stage) for stage in self.stages)
        for stage in early:
            with ExitStack() as held:
                stage(kernel, held)
                kexec()
        with ExitStack() as held:
            last(kernel, held)


class AcrossTwoKexecs(AcrossKexec):
    """A fact that takes a second live update."""

    stages: ClassVar = ("before", "between", "after")
