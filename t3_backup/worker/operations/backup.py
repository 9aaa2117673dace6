"""The operations on a live database and the files beside it: find it, copy it, archive them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from t3_backup.records import one_of
from t3_backup.store.census import Census
from t3_backup.store.methods import METHODS
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import (
    Count,
    Event,
    Seconds,
    Text,
    Texts,
)
from t3_backup.worker.sources import DatabaseName, Source


@dataclass(frozen=True)
class Packed(Event):
    """An archive of the files beside a database, or the word that it would be the known one."""

    entries: Count  # files and folders
    content_bytes: Count  # of the files
    fingerprint: Text  # empty: it can't be told whether it is the same next time
    unchanged: bool  # nothing was written
    passed: Texts  # what was not packed, and why
    sealed: Texts  # NAME=MARK of each name beneath which all was packed


@dataclass(frozen=True)
class Copied(Event):
    """A finished copy, not yet proven, and what it must agree with."""

    method: Annotated[str, one_of(METHODS)]
    source_bytes: Count  # of the main file, when it was found
    wal_growth_bytes: Count
    restarts: Count
    seconds: Seconds
    pinned: Census | None  # of the source, taken inside the pin; None where there was no pin
    before: Census | None  # of the source around a VACUUM, which has a moment of its own
    after: Census | None
    moment: Text = ""  # RFC 3339, UTC: what was committed by then is in it; empty: not known


@dataclass(frozen=True)
class CopiedDatabase:
    """What became of one database of an account."""

    file: DatabaseName
    copied: Copied | None  # None: it was not copied
    reason: Text = ""  # why not


@dataclass(frozen=True)
class CopiedAll(Event):
    """The databases of an account: finished copies, not yet proven."""

    databases: tuple[CopiedDatabase, ...]
    live: DatabaseName  # the one of these that the server works with; it was copied
    pin_seconds: Seconds  # between the moments of the first and the last
    # of the files beside them, where no archive need be written: there are none, or none has
    # changed
    beside: Packed | None = None


@dataclass(frozen=True)
class FindDatabase(Operation[Source]):
    """Find the databases of an account, and their sizes."""


@dataclass(frozen=True)
class WriteArchive(Operation[Packed]):
    """Write an archive of what is beside the database into the job's empty file."""

    limit: int  # bytes of content
    known: str  # a fingerprint whose content need not be written again


@dataclass(frozen=True)
class CopyDatabase(Operation[Copied]):
    """Copy one database into the job's empty file."""

    method: str = "online"  # which to begin with: online, or vacuum alone
    mmap: bool = True
    database: str = DATABASE_NAME


@dataclass(frozen=True)
class CopyDatabases(Operation[CopiedAll]):
    """Copy all databases of an account, each into an empty file that it is given for it."""

    mmap: bool = True
    # the archive that will be asked for afterwards, unless the answer says that it need not be
    archive: WriteArchive | None = None
