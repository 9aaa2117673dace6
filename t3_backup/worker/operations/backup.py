"""The operations on a live database and the files beside it: find it, copy it, archive them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from t3_backup.records import one_of
from t3_backup.store.census import Census
from t3_backup.store.methods import METHODS
from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import Count, Event, Seconds, Source, Text, Texts


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
    # of the files beside it, where no archive need be written: there are none, or none has changed
    beside: Packed | None = None


@dataclass(frozen=True)
class FindDatabase(Operation[Source]):
    """Find the live database and its sizes."""


@dataclass(frozen=True)
class WriteArchive(Operation[Packed]):
    """Write an archive of what is beside the database into the job's empty file."""

    limit: int  # bytes of content
    known: str  # a fingerprint whose content need not be written again


@dataclass(frozen=True)
class CopyDatabase(Operation[Copied]):
    """Copy the live database into the job's empty file."""

    method: str = "online"  # which to begin with: online, or vacuum alone
    mmap: bool = True
    # the archive that will be asked for afterwards, unless the answer says that it need not be
    archive: WriteArchive | None = None
