"""The operation that checks a file which nobody writes any more."""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.store.census import Census
from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import Event, Seconds, Text, Texts


@dataclass(frozen=True)
class Proven(Event):
    """What SQLite's checks and the census found in a file."""

    problems: Texts  # of integrity_check; none: nothing speaks against it
    census: Census
    seconds: Seconds
    sqlite_version: Text
    unjudged: Text = ""  # why this SQLite could not judge all of it; empty: it could
    orphans: Text = ""  # which tables have rows without a parent; empty: none


@dataclass(frozen=True)
class ProofOf:
    """What became of the proof of one file."""

    proven: Proven | None  # None: it is no database that could be read
    reason: Text = ""  # why not


@dataclass(frozen=True)
class ProvenAll(Event):
    """The proofs of several files, in their order; those that were in time."""

    proofs: tuple[ProofOf, ...]


@dataclass(frozen=True)
class CheckDatabases(Operation[ProvenAll]):
    """Check the job's files, or one share of each. Nobody writes them any more."""

    share: int = 0
    shares: int = 1


@dataclass(frozen=True)
class CheckIntegrity(Operation[Proven]):
    """Check the job's file, or one share of it. Nobody writes it any more."""

    share: int = 0
    shares: int = 1
