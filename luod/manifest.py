"""The manifest: what luod holds, as records of a journal that lead from nothing to now. No I/O here.

A journal is a header and records, each with its length and checksum. Whoever reads it applies every record in
order up to the first that isn't whole: only the last one can be torn, and what it says was never acknowledged.

    header: magic, version, length of the snapshot, epoch, checksum     (written last)
    record: length, checksum, JSON
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from luod.lifecycle import NEXT, Direction, Event, FileState, Mode, State
from luod.memory import Inode, Memory
from luod.names import NETWORK_SESSIONS, camel

VERSION: Final = 1
MAGIC: Final = b"LUODJRNL"
HEADER: Final = struct.Struct("=8sIIQII")
"""magic, version, bytes of the snapshot that follows, epoch, reserved, CRC-32 of all before."""

RECORD: Final = struct.Struct("=II")
"""Before each record: its length, and the CRC-32 of its JSON."""


class ManifestError(Exception):
    """This can't be read as a manifest. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NewerVersion(ManifestError):
    """A newer luod wrote it. Nothing may be touched."""

    def __init__(self, version: int) -> None:
        super().__init__(f"its version is {version}, this luod reads up to {VERSION}: a newer luod wrote it")


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="forbid")


class File(_Model):
    """A file in a session. `token` is its owner's.

    `inode` is what it is in this boot, unknown until it is retrieved where it came over; `seals` are those that the
    kernel took with it.
    """

    token: int
    name: str | None = None
    size: int | None = None
    state: FileState
    retrieved: bool = False
    inode: Inode | None = None
    seals: int | None = None

    def preserved_as(self, memory: Memory) -> None:
        """Be what the kernel has just preserved."""
        self.inode, self.size, self.seals = memory.inode, memory.size, memory.seals


class Session(_Model):
    """A session of an owner, and the kernel's session behind it.

    `files` are by kernel token: ours, counted up by `next_kernel_token`, never reused in a session.
    `renewing` is the kernel name of the session that is about to take its place: whatever is in that one when
    a live update comes in between is what came over. `finishing`: its owner has asked for its end, and has it.
    """

    id: int
    kernel_name: str
    uid: int
    gid: int
    name: str
    mode: Mode
    state: State
    unit: str | None = None
    labels: dict[str, str] = {}
    generation: int = 0
    created_usec: int
    next_kernel_token: int = 0
    renewing: str | None = None
    finishing: bool = False
    lost: str | None = None
    files: dict[int, File] = {}

    @property
    def direction(self) -> Direction:
        """As its owner sees it."""
        return Direction.OUTGOING if self.state is State.OUTGOING else Direction.INCOMING

    @property
    def called(self) -> str:
        """What it is to people: root's by its name alone."""
        return self.name if self.uid == 0 else f"{self.name} of uid {self.uid}"

    @property
    def is_of_network(self) -> bool:
        """Whether luod has it written itself, by luoctl: nobody is asked for it. Others may have such names, too."""
        return self.uid == os.geteuid() and self.name in NETWORK_SESSIONS

    @property
    def is_claimed(self) -> bool:
        """Whether its owner has come for it since the last live update."""
        return any(file.retrieved for file in self.files.values())

    def held(self) -> dict[int, File]:
        """The files that its owner can have, by kernel token."""
        return {token: file for token, file in self.files.items() if file.state is FileState.HELD}

    def advance(self, event: Event) -> None:
        """Go where `event` leads. Raises ManifestError where it leads nowhere."""
        try:
            self.state = NEXT[self.state, event]
        except KeyError:
            raise ManifestError(f"session {self.id} is {self.state} and can't be {event}") from None


class Abi(_Model):
    """The names of the forms in which a kernel hands over (see `kernel.compatible.Abi`)."""

    kho: list[str]
    luo: list[str]
    handlers: list[str]


class Kernel(_Model):
    """What is known of a kernel by its image (see `kernel.image.Image`)."""

    kind: str
    packing: str | None = None
    architecture: str
    release: str
    build_ids: list[str]
    abi: Abi
    command_line_max: int
    page_size: int | None = None

    def facts(self) -> dict[str, Any]:
        """As `kernel.image.Image` has them."""
        return self.model_dump(by_alias=True)


class Begin(_Model):
    """The first record: luod's own state."""

    kind: Literal["begin"] = "begin"
    boot_id: str
    generation: int
    serial: int


class KernelIs(_Model):
    """luod is about to load this kernel, or the one that runs is this: by its build id it is known from then on."""

    kind: Literal["kernel"] = "kernel"
    kernel: Kernel


class SessionIs(_Model):
    """A session, whole: a new one, or one of a snapshot."""

    kind: Literal["session"] = "session"
    session: Session


class _OfSession(_Model):
    session_id: int


class FilesIntended(_OfSession):
    """The kernel is about to be asked to preserve these. If nothing follows they are tombstones."""

    kind: Literal["intended"] = "intended"
    files: dict[int, File]


class FilesHeld(_OfSession):
    """The kernel has preserved these and luod holds them: they can be acknowledged."""

    kind: Literal["held"] = "held"
    kernel_tokens: list[int]


class FilesDropped(_OfSession):
    """Their owner no longer has these. The kernel may hold `kernel_tokens`; it never had `never_preserved`."""

    kind: Literal["dropped"] = "dropped"
    kernel_tokens: list[int]
    never_preserved: list[int] = []


class FilesRetrieved(_OfSession):
    """These were handed back. `inodes` are those that were not known."""

    kind: Literal["retrieved"] = "retrieved"
    kernel_tokens: list[int]
    inodes: dict[int, Inode] = {}


class Renewing(_OfSession):
    """The held files are about to move to the kernel's session `kernel_name`; null: they are not, after all."""

    kind: Literal["renewing"] = "renewing"
    kernel_name: str | None = None


class Renewed(_OfSession):
    """They have moved, for `event`, and are this now. Tombstones stayed behind."""

    kind: Literal["renewed"] = "renewed"
    event: Event
    files: dict[int, Memory]


class Rearmed(_OfSession):
    """Its owner has it back, and wants what was carried over preserved as it is."""

    kind: Literal["rearmed"] = "rearmed"


class Finishing(_OfSession):
    """The kernel is about to finish it; or not, after all. If nothing follows it is to be finished."""

    kind: Literal["finishing"] = "finishing"
    begun: bool


class SessionMissing(_OfSession):
    """The kernel has nothing of it any more."""

    kind: Literal["missing"] = "missing"
    reason: str


class SessionGone(_OfSession):
    """Finished or discarded."""

    kind: Literal["gone"] = "gone"


Record = (
    Begin
    | KernelIs
    | SessionIs
    | FilesIntended
    | FilesHeld
    | FilesDropped
    | FilesRetrieved
    | Renewing
    | Renewed
    | Rearmed
    | Finishing
    | SessionMissing
    | SessionGone
)
_RECORDS: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])

KERNELS_MAX: Final = 4
"""How many kernels are known; the last ones."""

DROPPED_BY_KERNEL: Final = "it was neither finished nor preserved again before the next live update, which dropped it"


class Manifest:
    """What luod holds. It changes only by `apply` and, when another luod goes on with it, by `enter_new_process` or
    `enter_new_kernel`. `inodes` says in which session, and under which kernel token, the kernel has a file.
    """

    def __init__(self, boot_id: str = "") -> None:
        self.boot_id = boot_id
        self.generation = 0
        self.serial = 0
        self.kernels: list[Kernel] = []
        self.sessions: dict[int, Session] = {}
        self.inodes: dict[Inode, tuple[int, int]] = {}
        self._names: dict[tuple[int, str], int] = {}

    def find(self, uid: int, name: str) -> Session | None:
        """The session that `uid` calls `name`."""
        number = self._names.get((uid, name))
        return None if number is None else self.sessions[number]

    def apply(self, record: Record) -> None:
        """Take a record in. Raises ManifestError where it doesn't fit what came before."""
        match record:
            case Begin():
                self.boot_id, self.generation, self.serial = record.boot_id, record.generation, record.serial
            case KernelIs():
                others = [kernel for kernel in self.kernels if kernel.build_ids != record.kernel.build_ids]
                self.kernels = [*others, record.kernel][-KERNELS_MAX:]
            case SessionIs():
                self._add(record.session)
            case FilesIntended():
                self._intend(self._session(record), record.files)
            case FilesHeld():
                for file in self._files(record, record.kernel_tokens):
                    file.state = FileState.HELD
            case FilesDropped():
                for file in self._files(record, record.kernel_tokens):
                    file.state = FileState.TOMBSTONE
                self._remove(self._session(record), record.never_preserved)
            case FilesRetrieved():
                for file in self._files(record, record.kernel_tokens):
                    file.retrieved = True
                for kernel_token, inode in record.inodes.items():
                    self._files(record, [kernel_token])[0].inode = inode
                    self.inodes[inode] = record.session_id, kernel_token
            case Renewing():
                self._session(record).renewing = record.kernel_name
            case Renewed():
                self._renew(self._session(record), record)
            case Rearmed():
                self._session(record).advance(Event.REARMED)
            case Finishing():
                self._session(record).finishing = record.begun
            case SessionMissing():
                session = self._session(record)
                session.advance(Event.MISSING)
                session.lost = record.reason
            case SessionGone():
                self._end(self._session(record))

    def _session(self, record: _OfSession) -> Session:
        try:
            return self.sessions[record.session_id]
        except KeyError:
            raise ManifestError(f"a record is about session {record.session_id}, which is not there") from None

    def _files(self, record: _OfSession, kernel_tokens: list[int]) -> list[File]:
        files = self._session(record).files
        try:
            return [files[token] for token in kernel_tokens]
        except KeyError as error:
            raise ManifestError(f"session {record.session_id} has no file {error}") from None

    def _add(self, session: Session) -> None:
        key = session.uid, session.name
        if session.id in self.sessions or key in self._names:
            raise ManifestError(f"session {session.id} ({session.name!r} of uid {session.uid}) is there twice")
        self.sessions[session.id] = session
        self._names[key] = session.id
        self.serial = max(self.serial, session.id + 1)
        self._know(session, session.files)

    def _end(self, session: Session) -> None:
        self._remove(session, list(session.files))
        del self.sessions[session.id]
        del self._names[session.uid, session.name]

    def _intend(self, session: Session, files: dict[int, File]) -> None:
        session.files.update(files)
        session.next_kernel_token = max([session.next_kernel_token, *(token + 1 for token in files)])
        self._know(session, files)

    def _know(self, session: Session, files: dict[int, File]) -> None:
        known = {file.inode: (session.id, token) for token, file in files.items() if file.inode is not None}
        self.inodes.update(known)

    def _remove(self, session: Session, kernel_tokens: list[int]) -> None:
        for kernel_token in kernel_tokens:
            file = session.files.pop(kernel_token, None)
            if file is not None and file.inode is not None:
                self.inodes.pop(file.inode, None)

    def _renew(self, session: Session, record: Renewed) -> None:
        if session.renewing is None:
            raise ManifestError(f"session {session.id} is renewed, but by no session")
        if record.files.keys() != session.held().keys():
            raise ManifestError(f"session {session.id} is renewed with other files than it holds")
        session.advance(record.event)
        session.kernel_name, session.renewing = session.renewing, None
        self._remove(session, [token for token in session.files if token not in record.files])
        for kernel_token, memory in record.files.items():
            session.files[kernel_token].preserved_as(memory)
        self._know(session, session.files)

    def enter_new_process(self) -> None:
        """Another luod goes on in the same kernel. What was intended was never acknowledged."""
        for session in self.sessions.values():
            for file in session.files.values():
                if file.state is FileState.INTENDED:
                    file.state = FileState.TOMBSTONE

    def enter_new_kernel(self, boot_id: str) -> None:
        """What was outgoing is incoming now; what was incoming then is gone."""
        self.enter_new_process()
        self.boot_id = boot_id
        self.generation += 1
        self.inodes.clear()
        for session in [session for session in self.sessions.values() if session.finishing]:
            self._end(session)
        for session in self.sessions.values():
            if session.renewing is not None:
                session.kernel_name, session.renewing, session.state = session.renewing, None, State.OUTGOING
            session.advance(Event.LIVE_UPDATE)
            if session.state is State.LOST:
                session.lost = session.lost or DROPPED_BY_KERNEL
            session.generation += 1
            for file in session.files.values():
                file.retrieved, file.inode = False, None

    def snapshot(self) -> Iterator[Record]:
        """Records that lead from nothing to this manifest."""
        yield Begin(boot_id=self.boot_id, generation=self.generation, serial=self.serial)
        for kernel in self.kernels:
            yield KernelIs(kernel=kernel)
        for session in self.sessions.values():
            yield SessionIs(session=session)


def encode(record: Record) -> bytes:
    """A record as it stands in a journal."""
    payload = record.model_dump_json(by_alias=True, exclude_none=True).encode()
    return RECORD.pack(len(payload), zlib.crc32(payload)) + payload


def header(epoch: int, snapshot: int = 0) -> bytes:
    """The header of the journal that is number `epoch` of its line: the reader takes the highest.

    `snapshot` is how many bytes of records the journal starts with, which can't be torn.
    """
    start = HEADER.pack(MAGIC, VERSION, snapshot, epoch, 0, 0)[:-4]
    return start + struct.pack("=I", zlib.crc32(start))


def read_epoch(journal: bytes) -> int:
    """The epoch of a journal. Raises NewerVersion, or ManifestError where the header isn't whole."""
    if len(journal) < HEADER.size:
        raise ManifestError("it is too short to be a journal")
    magic, version, _, epoch, _, checksum = HEADER.unpack_from(journal)
    if magic != MAGIC:
        raise ManifestError("it doesn't start as a journal does")
    if checksum != zlib.crc32(journal[: HEADER.size - 4]):
        raise ManifestError("its header is damaged")
    if version > VERSION:
        raise NewerVersion(version)
    return int(epoch)


def replay(journal: bytes) -> tuple[Manifest, int]:
    """The manifest that a journal leads to, and where its last whole record ends.

    Raises ManifestError where it has no whole header or snapshot, or where a whole record makes no sense.
    """
    read_epoch(journal)
    snapshot: int = HEADER.unpack_from(journal)[2]
    manifest = Manifest()
    end = HEADER.size
    while end + RECORD.size <= len(journal):
        length, checksum = RECORD.unpack_from(journal, end)
        payload = journal[end + RECORD.size : end + RECORD.size + length]
        if length == 0 or len(payload) < length or zlib.crc32(payload) != checksum:
            break
        try:
            manifest.apply(_RECORDS.validate_json(payload))
        except ValidationError as error:
            reason = f"the record at byte {end} is not one of this version: {_first(error)}"
            raise ManifestError(reason) from None
        end += RECORD.size + length
    if end == HEADER.size:
        raise ManifestError("it has no whole record")
    if end < HEADER.size + snapshot:
        raise ManifestError(f"its snapshot is damaged at byte {end}")
    if (later := _whole_record_after(journal, end)) is not None:
        raise ManifestError(f"it is damaged at byte {end}: a whole record follows at byte {later}")
    return manifest, end


def _whole_record_after(journal: bytes, end: int) -> int | None:
    """Where there is one beyond what can be torn. No text of an owner's looks like one: a length has a zero byte."""
    last = len(journal.rstrip(b"\0"))
    for start in range(end + 1, last - RECORD.size):
        length, checksum = RECORD.unpack_from(journal, start)
        if 0 < length <= last - start - RECORD.size:
            payload = journal[start + RECORD.size : start + RECORD.size + length]
            if zlib.crc32(payload) == checksum:
                return start
    return None


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in a line."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"


class Document(_Model):
    """The manifest for people and programs: /run/luod/manifest.json, and the answer of io.luod.Update.Manifest.

    `checksum` is the CRC-32 of the document without it, as compact JSON.
    """

    version: int = VERSION
    boot_id: str
    generation: int
    epoch: int
    sessions: list[Session]
    checksum: str = ""

    @classmethod
    def of(cls, manifest: Manifest, epoch: int) -> Self:
        """The document that shows `manifest` as it is now, on its own."""
        return cls.draft(manifest, epoch).sealed()

    @classmethod
    def draft(cls, manifest: Manifest, epoch: int) -> Self:
        """The same without its checksum, which takes as long again."""
        sessions = [session.model_copy(deep=True) for session in manifest.sessions.values()]
        return cls(boot_id=manifest.boot_id, generation=manifest.generation, epoch=epoch, sessions=sessions)

    def sealed(self) -> Self:
        """This document, with its checksum."""
        self.checksum = self.expected_checksum()
        return self

    def expected_checksum(self) -> str:
        body = self.model_copy(update={"checksum": ""}).model_dump_json(by_alias=True)
        return f"{zlib.crc32(body.encode()):08x}"

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Read a saved document, or a saved journal. Raises ManifestError where it can't be trusted."""
        if data.startswith(MAGIC):
            return cls.of(replay(data)[0], read_epoch(data))
        try:
            document = cls.model_validate_json(data)
        except ValidationError as error:
            raise ManifestError(_first(error)) from None
        if document.checksum != document.expected_checksum():
            raise ManifestError("its checksum is wrong: it was changed or cut off")
        return document

    @model_validator(mode="before")
    @classmethod
    def _of_this_version(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(version := data.get("version"), int) and version > VERSION:
            raise ValueError(str(NewerVersion(version)))
        return data
