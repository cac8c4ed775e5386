"""A machine with luod's heart on it: a Custodian and its journal on a simulated kernel, without the daemon around."""

import logging
import os
import resource
import warnings
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings

import images
from leftovers import open_descriptors
from luod.custody import Custodian
from luod.errors import WireError
from luod.fds import OwnedFd
from luod.holdings import Holdings
from luod.kernel.shared import SharedKernel
from luod.lifecycle import Mode, State
from luod.memory import Given
from luod.next_kernel import NextKernel
from luod.origin import origin_in
from luod.policy import Limits, Owner, Policy
from luod.recovery import RestoreImpossible, recover
from luod.renewal import go_on
from luod.sim import image
from luod.sim.client import SimKernel, SimMachine
from luod.store import SLOTS
from luod.systemd import FdStore
from manager import service_manager
from memory import content, memfd

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ALICE = Owner(uid=os.geteuid(), gid=os.getegid(), trusted_uid=os.geteuid())
BOB = Owner(uid=os.geteuid() + 1000, gid=os.getegid() + 1000, trusted_uid=os.geteuid())


class Unplugged(BaseException):
    """The machine has gone through a kexec under whoever was at work, or luod was killed."""


class Plug:
    """Ends things at a step that a test chooses, by a kexec or by killing luod alone. The thread that was at work never
    gets beyond it.
    """

    def __init__(self, control):
        self._control = control
        self.kills = False
        self.pull_after(-1)

    def pull_after(self, steps):
        """Pull it once so many steps are done; never, where they are fewer than none."""
        self.pulled = False
        self._left = steps

    def step(self):
        if not self._left:
            if not self.kills:
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
        self._made.append(self._kernel.adopt(fd))
        return PluggedSession(self._made[-1], self.plug)

    def boot_id(self):
        return self._kernel.boot_id()

    def close(self):
        """Close what those that were unplugged couldn't."""
        while self._made:
            self._made.pop().give_up()


class PluggedFdStore:
    """An fd store whose every message is a step of `plug`."""

    def __init__(self, store, plug):
        self._store = store
        self._plug = plug
        self.most = store.most

    def __len__(self):
        return len(self._store)

    def room_for(self, count):
        self._store.room_for(count)

    def put(self, *fds):
        with self._plug.around():
            self._store.put(*fds)

    @contextmanager
    def place(self):
        with self._store.place() as keep:

            def plugged(*fds):
                with self._plug.around():
                    keep(*fds)

            yield plugged

    def remove(self, *fds):
        with self._plug.around():
            self._store.remove(*fds)

    def closing(self, fd):
        self._store.closing(fd)

    def barrier(self):
        with self._plug.around():
            self._store.barrier()

    def close(self):
        self._store.close()


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

    def room(self):
        return self._journal.room()

    def give_up(self):
        self._journal.give_up()


class Machine:
    """A machine that luod runs on, and what a test asks of both."""

    def __init__(self, control):
        self.control = control
        self.hardware = SimMachine(control.path)
        self.afresh = False
        self.limits = {}
        self.descriptors = 10_000
        self.changes = 0
        self.custodian = None
        self.manager = None

    def boot(self, steps=-1):
        """Start luod, up to so many steps."""
        self.kernel = PluggedKernel(self.control)
        self.kernel.plug.kills = self.manager is not None
        self.kernel.plug.pull_after(steps)
        shared = SharedKernel(self.kernel, patience=0.0)
        store, handed = self.manager.store() if self.manager else (FdStore(), [])
        self.fd_store = PluggedFdStore(store, self.kernel.plug)
        expected = None if self.afresh else origin_in(self.hardware.running.command_line())
        self.recovered = recover(shared, self.fd_store, handed, lambda: expected)
        self.journal = SteppedJournal(self.recovered.journal, self.control, self.kernel)
        holdings = Holdings(
            shared,
            self.recovered.manifest,
            self.journal,
            self.fd_store,
            Policy(os.geteuid(), Limits(**self.limits), self.descriptors),
            self._changed,
            there=self.recovered.there,
        )
        self.custodian = Custodian(holdings)
        self.loader = NextKernel(self.hardware, self.fd_store, holdings, self.recovered.next_kernel)
        go_on(holdings, self.recovered.successors)
        self.kernel.plug.pull_after(-1)
        return self.custodian

    def _changed(self):
        self.changes += 1

    def stop(self):
        if self.custodian is not None:
            custodian, self.custodian = self.custodian, None
            self.kernel.plug.pull_after(-1)
            custodian.give_up_all()
            self.loader.close()
            self.recovered.unclear.kept().close()
            self.fd_store.close()
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

    def is_killed_at_start_after(self, steps):
        """luod starts in a process of its own, which dies after so many steps; false where it had started before."""
        self.stop()
        self.manager.settle()  # the child finds what is there now
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # no thread of this process has a lock
            child = os.fork()
        if not child:
            status = 1  # whatever else there is, is a failure
            try:
                self.boot(steps)
                status = 0
            except (Unplugged, RestoreImpossible):
                status = 9
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 9)
        if code:
            return True
        self.boot()
        return False

    def next_kernel(self, **how):
        """A kexec, after which the service manager has nothing, either."""
        self.control.kexec(**how)
        self.stop()
        self.manager.forget(*self.manager.names)

    def impossible(self):
        """Start luod, and say why it can't give anything back; None where it can."""
        try:
            self.boot()
        except RestoreImpossible as impossible:
            impossible.give_up_all()
            self.fd_store.close()
            self.kernel.close()
            return impossible.reason
        return None

    def goes_into(self, line, **what):
        """A kexec into a kernel with these strings in it, that others have loaded; luod is not started."""
        with images.file(image.bzimage(**what)) as kernel:
            self.hardware.load(kernel.fileno(), line)
        self.goes_into_what_is_loaded()

    def goes_into_what_is_loaded(self):
        """The same into what is loaded."""
        self.hardware.kexec()
        self.stop()
        if self.manager is not None:
            self.manager.forget(*self.manager.names)

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

    def open_descriptors(self):
        """How many this process has open, without what the service manager keeps in its fd store."""
        kept = len(self.manager.names)  # first: what is still on its way to the store is open in nobody's table
        return len(open_descriptors()) - kept

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

    def is_of_one_mind(self, *, tombstones=True):
        """What luod says that it holds is what the kernel holds, tombstones too, and one journal."""
        sessions = [
            session for session in self.custodian.sessions() if session.state in (State.OUTGOING, State.CARRIED)
        ]
        said = {
            session.kernel_name: {token: file.size for token, file in session.files.items()} for session in sessions
        }
        if tombstones:
            assert said == self.in_kernel()
        else:  # the kernel may lack one
            held = {session.kernel_name: session.held().keys() for session in sessions}
            found = {name: files.keys() for name, files in self.in_kernel().items()}
            assert held.keys() == found.keys()
            assert all(held[name] <= found[name] <= said[name].keys() for name in held)
        assert len(self.journals()) == 1
        return True


@pytest.fixture
def machine(sim, monkeypatch):
    """A machine on which luod was started. Who goes into the next kernel lives on."""
    monkeypatch.setattr("luod.sim.client.power_off", lambda: None)
    machine = Machine(sim)
    machine.boot()
    yield machine
    machine.stop()


@pytest.fixture
def kept_machine(machine):
    """A machine whose service manager keeps what luod puts into its fd store."""
    machine.stop()
    with service_manager() as manager:
        machine.manager = manager
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
