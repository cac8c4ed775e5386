"""A machine with luod's heart on it: a Custodian and its journal on a simulated kernel, without the daemon around."""

import logging
import os
import resource
from contextlib import contextmanager

import pytest

from luod.custody import Custodian
from luod.errors import WireError
from luod.fds import OwnedFd
from luod.holdings import Holdings
from luod.kernel.shared import SharedKernel
from luod.lifecycle import Mode, State
from luod.memory import Given
from luod.policy import Limits, Owner
from luod.recovery import RestoreImpossible, recover
from luod.sim.client import SimKernel
from luod.store import SLOTS
from luod.systemd import FdStore
from memory import content, memfd

ALICE = Owner(uid=os.geteuid(), gid=os.getegid(), trusted_uid=os.geteuid())
BOB = Owner(uid=os.geteuid() + 1000, gid=os.getegid() + 1000, trusted_uid=os.geteuid())


class Unplugged(BaseException):
    """The machine has gone through a kexec under whoever was at work."""


class Plug:
    """Starts the next kernel at a step that a test chooses. The thread that was at work never gets beyond it."""

    def __init__(self, control):
        self._control = control
        self.pull_after(-1)

    def pull_after(self, steps):
        """Pull it once so many steps are done; never, where they are fewer than none."""
        self.pulled = False
        self._left = steps

    def step(self):
        if not self._left:
            self._control.kexec()
            self.pulled = True
        self._left -= 1
        if self.pulled:
            raise Unplugged

    @contextmanager
    def around(self):
        """Two steps: before and after what is done inside."""
        self.step()
        yield
        self.step()


class PluggedSession:
    def __init__(self, session, plug):
        self._session = session
        self._plug = plug

    def fileno(self):
        return self._session.fileno()

    def duplicate(self):
        return self._session.duplicate()

    def preserve_fd(self, fd, token):
        with self._plug.around():
            self._session.preserve_fd(fd, token)

    def retrieve_fd(self, token):
        self._plug.step()
        return self._session.retrieve_fd(token)

    def finish(self):
        with self._plug.around():
            self._session.finish()

    def get_name(self):
        return self._session.get_name()

    def give_up(self):
        self._plug.step()
        self._session.give_up()
        self._plug.step()


class PluggedDevice:
    def __init__(self, device, plug, made):
        self._device = device
        self._plug = plug
        self._made = made

    def create_session(self, name):
        self._plug.step()
        return self._of(self._device.create_session(name))

    def retrieve_session(self, name):
        self._plug.step()
        return self._of(self._device.retrieve_session(name))

    def _of(self, session):
        self._made.append(session)
        self._plug.step()
        return PluggedSession(session, self._plug)

    def close(self):
        self._device.close()


class PluggedKernel:
    """A kernel whose next kexec comes at a step of `plug`; while there is none, it is the simulated one."""

    def __init__(self, control):
        self.plug = Plug(control)
        self._kernel = SimKernel(control.path)
        self._made = []

    def open(self):
        return PluggedDevice(self._kernel.open(), self.plug, self._made)

    def recognise(self, fd):
        return self._kernel.recognise(fd)

    def adopt(self, fd):
        return self._kernel.adopt(fd)

    def boot_id(self):
        return self._kernel.boot_id()

    def close(self):
        """Close what those that were unplugged couldn't."""
        while self._made:
            self._made.pop().give_up()


class SteppedJournal:
    """A journal each of whose records is a step of `plug`; record number `fails_at` from now can't be written."""

    def __init__(self, journal, control, kernel):
        self._journal = journal
        self._control = control
        self._kernel = kernel
        self.fails_at = 0

    @property
    def epoch(self):
        return self._journal.epoch

    def append(self, record):
        self.fails_at -= 1
        if self.fails_at == 0:
            self._journal.fall_behind()
            self._control.fault("CREATE_SESSION", 12)
        with self._kernel.plug.around():
            self._journal.append(record)

    def fall_behind(self):
        self._journal.fall_behind()

    def give_up(self):
        self._journal.give_up()


class Machine:
    """A machine that luod runs on, and what a test asks of both."""

    def __init__(self, control):
        self.control = control
        self.limits = {}
        self.descriptors = 10_000
        self.changes = 0
        self.custodian = None

    def boot(self):
        self.kernel = PluggedKernel(self.control)
        shared = SharedKernel(self.kernel, patience=0.0)
        self.recovered = recover(shared, FdStore())
        self.journal = SteppedJournal(self.recovered.journal, self.control, self.kernel)
        self.custodian = Custodian(
            Holdings(
                shared,
                self.recovered.manifest,
                self.journal,
                FdStore(),
                Limits(**self.limits),
                self.descriptors,
                self._changed,
            )
        )
        return self.custodian

    def _changed(self):
        self.changes += 1

    def stop(self):
        if self.custodian is not None:
            custodian, self.custodian = self.custodian, None
            self.kernel.plug.pull_after(-1)
            custodian.give_up_all()
            self.kernel.close()

    def kexec(self, **how):
        """A live update that nobody announced."""
        self.control.kexec(**how)
        return self.start_anew()

    def start_anew(self):
        """luod starts in the kernel that there is now."""
        self.stop()
        return self.boot()

    def is_unplugged_after(self, steps, act):
        """Do something that the next kernel interrupts after so many steps; false where it was done before."""
        self.kernel.plug.pull_after(steps)
        try:
            act()
        except Unplugged:
            return True
        finally:
            self.kernel.plug.pull_after(-1)
        return False

    def is_unplugged_at_start_after(self, steps):
        """luod starts, and the next kernel interrupts it after so many steps; false where it was done before."""
        self.stop()
        kernel = PluggedKernel(self.control)
        kernel.plug.pull_after(steps)
        try:
            journal = recover(SharedKernel(kernel, patience=0.0), FdStore()).journal
        except (Unplugged, RestoreImpossible):
            return True
        else:
            kernel.plug.pull_after(-1)
            journal.give_up()
            return False
        finally:
            kernel.close()

    # What a test does

    def create(self, name, *contents, owner=ALICE):
        """A session with a file for each content, tokens from 0 on; nobody but luod holds them."""
        self.custodian.create(owner, name, Mode.CUSTODIAL, {}, None)
        if contents:
            self.preserve(name, dict(enumerate(contents)), owner)

    def preserve(self, name, contents, owner=ALICE):
        """Preserve new files, whose contents are given by their tokens."""
        made = {token: memfd(content) for token, content in contents.items()}
        try:
            return self.give(name, made, owner)
        finally:
            for fd in made.values():
                fd.close()

    def give(self, name, fds, owner=ALICE):
        """Preserve these, by their tokens."""
        given = [Given(index, fd, token) for index, (token, fd) in enumerate(fds.items())]
        return self.custodian.preserve(owner, name, given)

    def contents(self, name, owner=ALICE, tokens=None):
        """What Retrieve gives back, by token."""
        found, left = {}, tokens
        while left is None or left:
            lent, left = self.custodian.retrieve(owner, name, left)
            for file in lent:
                with file.fd:
                    found[file.token] = content(file.fd)
        return found

    def everything(self, owner=ALICE):
        """What Retrieve gives back of each session, or the error that it gives."""
        found = {}
        for session in self.custodian.sessions(owner.uid):
            try:
                found[session.name] = self.contents(session.name, owner)
            except WireError as error:
                found[session.name] = type(error).__name__
        return found

    # What there is

    def in_kernel(self, direction="outgoing"):
        """What the kernel holds for owners: sizes by token, by session."""
        return {
            session.name: {file.token: file.size for file in session.files}
            for session in self.control.state().sessions
            if session.direction == direction and session.name not in SLOTS
        }

    def journals(self, direction="outgoing"):
        """The names of the journals in the kernel that hold a file."""
        return [
            session.name
            for session in self.control.state().sessions
            if session.direction == direction and session.name in SLOTS and session.files
        ]

    def is_of_one_mind(self):
        """What luod says that it holds is what the kernel holds, tombstones too, and one journal."""
        said = {
            session.kernel_name: {token: file.size for token, file in session.files.items()}
            for session in self.custodian.sessions()
            if session.state is State.OUTGOING
        }
        assert said == self.in_kernel()
        assert len(self.journals()) == 1
        return True


@pytest.fixture
def machine(sim):
    """A machine on which luod was started."""
    machine = Machine(sim)
    machine.boot()
    yield machine
    machine.stop()


@pytest.fixture
def may_warn(caplog):
    """This test doesn't say whether luod warns."""
    caplog.set_level(logging.ERROR, logger="luod")


@pytest.fixture
def alice():
    return ALICE


@pytest.fixture
def bob():
    return BOB


@pytest.fixture
def few_descriptors():
    """A context in which this process can open only so many descriptors more."""

    @contextmanager
    def few(count):
        used = {int(number) for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")}
        fillers = [OwnedFd.duplicate_of(0) for number in range(max(used)) if number not in used]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 1 + count, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fillers:
                fd.close()

    return few
