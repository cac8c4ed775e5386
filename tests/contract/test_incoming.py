"""Incoming sessions: how they are had, how their files are, how they end (luo_session.c, luo_file.c)."""

import os
from errno import EBUSY, EINVAL, ENOENT

from luod.kernel.api import Call

from .across import AcrossKexec, AcrossTwoKexecs
from .steps import content, incoming, memfd, outgoing, preserve, refused, retrieve


class WithOneFile(AcrossKexec):
    """An outgoing session with one file, token 1, is held until the kexec."""

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        preserve(session, b"one", 1)


class TestASessionKeepsItsName(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert session.get_name() == self.name


class TestASessionWithoutFilesComesOver(AcrossKexec):
    def before(self, kernel, held):
        held.enter_context(outgoing(kernel, self.name))

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        session.finish()


class TestASessionThatWasGivenUpDoesNotComeOver(AcrossKexec):
    def before(self, kernel, held):
        with outgoing(kernel, self.name) as session:
            preserve(session, b"one", 1)

    def after(self, kernel, held):
        with refused(Call.RETRIEVE_SESSION, ENOENT), incoming(kernel, self.name):
            pass


class TestASessionComesOverWithoutItsDescriptorInTheHandsOfItsMaker(AcrossKexec):
    def before(self, kernel, held):
        with outgoing(kernel, self.name) as session:
            preserve(session, b"one", 1)
            held.enter_context(session.duplicate())

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert retrieve(session, 1) == b"one"


class TestASessionIsRetrievedOnce(WithOneFile):
    def after(self, kernel, held):
        held.enter_context(incoming(kernel, self.name))
        with refused(Call.RETRIEVE_SESSION, EINVAL), incoming(kernel, self.name):
            pass


class TestAFinishedSessionIsThereUntilItsLastClose(WithOneFile):
    def after(self, kernel, held):
        with incoming(kernel, self.name) as session:
            session.finish()
            with refused(Call.RETRIEVE_SESSION, EINVAL), incoming(kernel, self.name):
                pass
        with refused(Call.RETRIEVE_SESSION, ENOENT), incoming(kernel, self.name):
            pass


class TestTheLastCloseOfAnIncomingSessionFinishesIt(WithOneFile):
    def after(self, kernel, held):
        with incoming(kernel, self.name) as session:
            file = held.enter_context(session.retrieve_fd(1))
            with session.duplicate():
                session.give_up()
                with refused(Call.RETRIEVE_SESSION, EINVAL), incoming(kernel, self.name):
                    pass
        with refused(Call.RETRIEVE_SESSION, ENOENT), incoming(kernel, self.name):
            pass
        again = held.enter_context(outgoing(kernel, f"{self.name} again"))
        again.preserve_fd(file.fileno(), 1)


class TestAnIncomingAndAnOutgoingSessionShareAName(WithOneFile):
    def after(self, kernel, held):
        new = held.enter_context(outgoing(kernel, self.name))
        old = held.enter_context(incoming(kernel, self.name))
        preserve(new, b"new", 1)
        assert retrieve(old, 1) == b"one"


class TestAnIncomingSessionsDescriptorIsCloseOnExec(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert not os.get_inheritable(session.fileno())


class TestNothingIsPreservedInAnIncomingSession(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        file = held.enter_context(memfd())
        for token in (1, 2):
            with refused(Call.PRESERVE_FD, EINVAL):
                session.preserve_fd(file, token)
        session.finish()
        with refused(Call.PRESERVE_FD, EINVAL):
            session.preserve_fd(file, 2)


class TestFilesAreRetrievedInAnyOrder(AcrossKexec):
    tokens = (0, 1, 2**63, 2**64 - 1)

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        for token in self.tokens:
            preserve(session, b"%d" % token, token)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        for token in reversed(self.tokens):
            assert retrieve(session, token) == b"%d" % token


class TestAnUnknownTokenIsRefused(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        for token in (0, 2, 2**64 - 1):
            with refused(Call.RETRIEVE_FD, ENOENT):
                session.retrieve_fd(token)


class TestAFileIsRetrievedAgainAsTheSameOpenFile(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        first, second = (held.enter_context(session.retrieve_fd(1)).fileno() for _ in range(2))
        os.lseek(first, 12345, os.SEEK_SET)
        assert os.lseek(second, 0, os.SEEK_CUR) == 12345


class TestARetrievedDescriptorIsCloseOnExec(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        file = held.enter_context(session.retrieve_fd(1))
        assert not os.get_inheritable(file.fileno())


class TestARetrievedFileOutlivesItsSession(WithOneFile):
    def after(self, kernel, held):
        with incoming(kernel, self.name) as session:
            file = held.enter_context(session.retrieve_fd(1))
        assert content(file.fileno()) == b"one"


class TestAFileIsKeptThoughItsRetrieverClosedIt(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            os.pwrite(file.fileno(), b"two", 0)
        assert retrieve(session, 1) == b"two"


class TestARetrievedFileIsNotPreservedAgainBeforeFinish(WithOneFile):
    def after(self, kernel, held):
        new = held.enter_context(outgoing(kernel, self.name))
        old = held.enter_context(incoming(kernel, self.name))
        file = held.enter_context(old.retrieve_fd(1))
        for fd in (file, held.enter_context(file.duplicate())):
            with refused(Call.PRESERVE_FD, EBUSY):
                new.preserve_fd(fd.fileno(), 1)
        old.finish()
        new.preserve_fd(file.fileno(), 1)


class TestAFinishedSessionHasNoFiles(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert retrieve(session, 1) == b"one"
        session.finish()
        with refused(Call.RETRIEVE_FD, ENOENT):
            session.retrieve_fd(1)


class TestASessionIsFinishedAnyNumberOfTimes(WithOneFile):
    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        for _ in range(3):
            session.finish()
        assert session.get_name() == self.name


class TestFiveHundredFilesInOneSessionComeOver(AcrossKexec):
    count = 500

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        for token in range(self.count):
            preserve(session, b"%d" % token, token)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert [retrieve(session, token) for token in range(self.count)] == [b"%d" % n for n in range(self.count)]


class TestASessionNobodyRetrievedIsDroppedByTheNextKexec(WithOneFile, AcrossTwoKexecs):
    def between(self, kernel, held):
        kernel.open().close()

    def after(self, kernel, held):
        with refused(Call.RETRIEVE_SESSION, ENOENT), incoming(kernel, self.name):
            pass


class TestARetrievedSessionIsDroppedByTheNextKexec(WithOneFile, AcrossTwoKexecs):
    def between(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        held.enter_context(session.retrieve_fd(1))

    def after(self, kernel, held):
        with refused(Call.RETRIEVE_SESSION, ENOENT), incoming(kernel, self.name):
            pass


class TestAFileThatWasPreservedAgainComesOverTwice(WithOneFile, AcrossTwoKexecs):
    def between(self, kernel, held):
        with incoming(kernel, self.name) as old:
            file = held.enter_context(old.retrieve_fd(1))
        os.pwrite(file.fileno(), b"two", 0)
        new = held.enter_context(outgoing(kernel, self.name))
        new.preserve_fd(file.fileno(), 7)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert retrieve(session, 7) == b"two"
