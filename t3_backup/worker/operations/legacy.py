"""The operations on snapshots that an earlier script left in a folder of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.worker.operations import Operation
from t3_backup.worker.operations.backup import Copied
from t3_backup.worker.protocol import Event, Texts


@dataclass(frozen=True)
class Listed(Event):
    """Names of files, without folders: those that are there, or the one that was removed."""

    names: Texts


@dataclass(frozen=True)
class ListLegacy(Operation[Listed]):
    """List the snapshots, the newest first."""

    after: str = ""  # those alone that come after the one of this name


@dataclass(frozen=True)
class CopyLegacy(Operation[Copied]):
    """Copy one of them into the job's empty file."""

    name: str


@dataclass(frozen=True)
class RemoveLegacy(Operation[Listed]):
    """Remove one of them."""

    name: str
    since: float  # a time of time.time(): what was changed later is not removed
