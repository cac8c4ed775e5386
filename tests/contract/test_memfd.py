"""What of a file comes over (mm/memfd_luo.c)."""

import fcntl
import mmap
import os
import time
from errno import EPERM

import pytest

from luod.fds import OwnedFd

from .across import AcrossKexec
from .steps import (
    F_SEAL_EXEC,
    F_SEAL_FUTURE_WRITE,
    MFD_EXEC,
    MFD_NOEXEC_SEAL,
    NO_WRITING,
    content,
    fails,
    has_memory,
    incoming,
    memfd,
    not_simulated,
    opened,
    outgoing,
    preserve,
    retrieve,
    seals,
)


class TestContentIsKept(AcrossKexec):
    contents = (b"", b"x", b"page" * 1024, os.fsencode("ü") * 1_000_001, b"\0" * 9000)

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        for token, data in enumerate(self.contents):
            preserve(session, data, token)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert [retrieve(session, token) for token in range(len(self.contents))] == list(self.contents)


class TestHolesComeOverAsZeros(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        with memfd() as fd:
            os.ftruncate(fd, 1_000_000)
            os.pwrite(fd, b"x", 500_000)
            session.preserve_fd(fd, 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            assert has_memory(file.fileno())
            assert content(file.fileno()) == b"\0" * 500_000 + b"x" + b"\0" * 499_999


class TestAnEmptyFileIsAsGoodAsAnyOther(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        preserve(session, b"", 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            os.write(file.fileno(), b"written")
            assert content(file.fileno()) == b"written"


class TestAMemoryFileThatWasNoMemfdComesOver(AcrossKexec):
    """It is taken unsealable, as every file on a tmpfs is, and comes back so."""

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        directory = next((path for path in ("/dev/shm", "/tmp") if os.path.ismount(path)), None)
        if directory is None:
            pytest.skip("there is no tmpfs here")
        with opened(directory, os.O_RDWR | os.O_TMPFILE) as fd:
            os.write(fd, b"no memfd")
            session.preserve_fd(fd, 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            assert content(file.fileno()) == b"no memfd"
            assert seals(file.fileno()) == fcntl.F_SEAL_SEAL


class TestWritesInPlaceAfterPreserveAreKept(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        fd = held.enter_context(memfd(b"....."))
        session.preserve_fd(fd, 1)
        os.pwrite(fd, b"by", 0)
        with mmap.mmap(fd, 5) as mapping:
            mapping[3:5] = b"me"

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert retrieve(session, 1) == b"by.me"


class TestWhatAMappingOfAClosedDescriptorWritesIsKept(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        with memfd(b"." * 8192) as fd:
            mapping = held.enter_context(mmap.mmap(fd, 8192))
            session.preserve_fd(fd, 1)
        mapping[4095:4097] = b"by"

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert retrieve(session, 1) == b"." * 4095 + b"by" + b"." * 4095


class TestThePositionIsTakenAtTheKexec(AcrossKexec):
    positions = (0, 2, 5, 2**40)

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        for token, position in enumerate(self.positions):
            fd = held.enter_context(memfd(b"12345"))
            session.preserve_fd(fd, token)
            os.lseek(fd, position, os.SEEK_SET)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        for token, position in enumerate(self.positions):
            with session.retrieve_fd(token) as file:
                assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == position


class TestThePositionIsThatOfTheDescriptorThatWasPreserved(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        fd = held.enter_context(memfd(b"12345"))
        with opened(f"/proc/self/fd/{fd}", os.O_RDONLY) as other:
            os.lseek(other, 2, os.SEEK_SET)
            session.preserve_fd(other, 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 2


class TestSealsAreKept(AcrossKexec):
    sealed = (
        0,
        fcntl.F_SEAL_SHRINK,
        fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK,
        fcntl.F_SEAL_WRITE,
        F_SEAL_FUTURE_WRITE,
        fcntl.F_SEAL_SEAL,
        NO_WRITING | fcntl.F_SEAL_SEAL,
    )

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        for token, added in enumerate(self.sealed):
            with memfd(b"sealed") as fd:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, added)
                session.preserve_fd(fd, token)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        for token, added in enumerate(self.sealed):
            with session.retrieve_fd(token) as file:
                assert seals(file.fileno()) == added
                assert content(file.fileno()) == b"sealed"


class TestAFileThatCannotBeSealedStaysSo(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        session.preserve_fd(held.enter_context(memfd(b"x", flags=0)), 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            assert seals(file.fileno()) == fcntl.F_SEAL_SEAL


class TestAFileThatCannotBeExecutedComesOverSealedAgainstWriting(AcrossKexec):
    """The new file is executable, and F_SEAL_EXEC on such a one brings the others (memfd_add_seals)."""

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        fd = held.enter_context(memfd(b"x", MFD_NOEXEC_SEAL))
        assert seals(fd) == F_SEAL_EXEC
        session.preserve_fd(fd, 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            assert seals(file.fileno()) == F_SEAL_EXEC | NO_WRITING
            assert os.fstat(file.fileno()).st_mode & 0o777 == 0o777
            with fails(EPERM):
                os.pwrite(file.fileno(), b"y", 0)
            with fails(EPERM):
                os.fchmod(file.fileno(), 0o666)
            assert content(file.fileno()) == b"x"


class TestAFileThatCannotBeExecutedNorWrittenKeepsItsSeals(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        for token, flags in enumerate((MFD_NOEXEC_SEAL, MFD_EXEC | os.MFD_ALLOW_SEALING)):
            with memfd(b"x", flags) as fd:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, F_SEAL_EXEC | NO_WRITING)
                session.preserve_fd(fd, token)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        for token in range(2):
            with session.retrieve_fd(token) as file:
                assert seals(file.fileno()) == F_SEAL_EXEC | NO_WRITING


class TestSealsAddedAfterPreserveAreLost(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        fd = held.enter_context(memfd(b"x"))
        session.preserve_fd(fd, 1)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            assert seals(file.fileno()) == 0


class TestAFileComesBackForReadingAndWriting(AcrossKexec):
    ways = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        for token, flags in enumerate(self.ways):
            with memfd(b"old") as fd, opened(f"/proc/self/fd/{fd}", flags) as way:
                session.preserve_fd(way, token)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        for token in range(len(self.ways)):
            with session.retrieve_fd(token) as file:
                os.pwrite(file.fileno(), b"new", 0)
                assert content(file.fileno()) == b"new"


class TestHowAFileWasOpenedIsLost(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        with memfd(b"x") as fd, opened(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_APPEND | os.O_NONBLOCK) as other:
            session.preserve_fd(other, 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            flags = fcntl.fcntl(file.fileno(), fcntl.F_GETFL)
            assert flags & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK) == os.O_RDWR


class TestAFileBelongsToItsRetrieverAndIsOfToday(AcrossKexec):
    """Mode, owner and times are a new file's."""

    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        with memfd(b"x") as fd:
            os.fchmod(fd, 0o600)
            if os.geteuid() == 0:
                os.fchown(fd, 1234, 1234)
            os.utime(fd, (1, 1))
            session.preserve_fd(fd, 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            status = os.fstat(file.fileno())
            assert (status.st_mode & 0o7777, status.st_nlink) == (0o777, 0)
            assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
            for moment in (status.st_atime, status.st_mtime, status.st_ctime):
                assert abs(time.time() - moment) < 3600


@not_simulated("a process can't make a memfd without the prefix memfd:")
class TestARetrievedFileHasNoName(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        preserve(session, b"x", 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            assert os.readlink(f"/proc/self/fd/{file.fileno()}") == "/ (deleted)"


class TestARetrievedFileCanGrowAgain(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        preserve(session, b"one", 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        with session.retrieve_fd(1) as file:
            os.ftruncate(file.fileno(), 100_000)
            assert os.pread(file.fileno(), 5, 0) == b"one\0\0"


class TestAFileIsKeptByItsSessionAlone(AcrossKexec):
    def before(self, kernel, held):
        session = held.enter_context(outgoing(kernel, self.name))
        with OwnedFd(os.memfd_create("short lived")) as fd:
            os.write(fd.fileno(), b"kept")
            session.preserve_fd(fd.fileno(), 1)

    def after(self, kernel, held):
        session = held.enter_context(incoming(kernel, self.name))
        assert retrieve(session, 1) == b"kept"
