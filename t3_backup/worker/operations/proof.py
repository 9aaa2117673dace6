"""The operation that checks a file which nobody writes any more."""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.store.census import Census
from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import Event, Seconds, Text, Texts


@dataclass(frozen=True)
class Proven(Event):
    """What SQLite's checks and the census found in a file."""

    problems: Texts  # of integrity_check and foreign_key_check; none: it is sound
    census: Census
    seconds: Seconds
    sqlite_version: Text


@dataclass(frozen=True)
class CheckIntegrity(Operation[Proven]):
    """Check the job's file, or one share of it. Nobody writes it any more."""

    share: int = 0
    shares: int = 1
