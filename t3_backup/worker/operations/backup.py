"""The operations of a backup: find the live database, copy it, check the copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from t3_backup.records import one_of
from t3_backup.store.census import Census
from t3_backup.store.methods import METHODS
from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import Count, Event, Seconds, Source, Text, Texts


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


@dataclass(frozen=True)
class Proven(Event):
    """What SQLite's checks and the census found in a file."""

    problems: Texts  # of integrity_check and foreign_key_check; none: it is sound
    census: Census
    seconds: Seconds
    sqlite_version: Text


@dataclass(frozen=True)
class FindDatabase(Operation[Source]):
    """Find the live database and its sizes."""


@dataclass(frozen=True)
class CopyDatabase(Operation[Copied]):
    """Copy the live database into the job's empty file."""

    method: str = "online"  # which to begin with: online, or vacuum alone
    mmap: bool = True


@dataclass(frozen=True)
class CheckIntegrity(Operation[Proven]):
    """Check the job's file, which nobody writes any more: the whole of it, or one share of several."""

    share: int = 0
    shares: int = 1
