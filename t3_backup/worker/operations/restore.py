"""The operations of a restore, in the folder of the live database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from t3_backup.records import one_of
from t3_backup.store.census import Census
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import SIDECARS
from t3_backup.worker.operations import Operation
from t3_backup.worker.operations.backup import Copied
from t3_backup.worker.protocol import Event, Text

STATES = ("old", "new", "other")  # other: neither, and nothing is left of the swap

Sidecars = tuple[Annotated[str, one_of(SIDECARS)], ...]


@dataclass(frozen=True)
class Counted(Event):
    """What is in the live database now."""

    census: Census


@dataclass(frozen=True)
class Staged(Event):
    """A snapshot was written beside the live database, durably."""

    live: FileIdentity | None  # the live database, as it was then; None: there is none
    staged: FileIdentity | None  # what was written
    census: Census  # of what was written, rows not counted


@dataclass(frozen=True)
class Checkpointed(Event):
    """The old state, and whether all of it is in its one file."""

    old: FileIdentity | None  # None: there is no live database
    whole: bool
    reason: Text  # why not
    census: Census | None  # of what is in the one file
    beside: Sidecars  # endings of what is beside it still


@dataclass(frozen=True)
class Swapped(Event):
    """What is in the place of the live database, after a swap, or one that was interrupted."""

    state: Annotated[str, one_of(STATES)]
    held: bool  # whether what came out stays beside it, since another process has it open


@dataclass(frozen=True)
class CountRows(Operation[Counted]):
    """Count the rows of the live database."""


@dataclass(frozen=True)
class StageDatabase(Operation[Staged]):
    """Write the snapshot in the job's file beside the live database."""

    aside: str  # under this name


@dataclass(frozen=True)
class CheckpointDatabase(Operation[Checkpointed]):
    """Bring all of the live database into its one file."""


@dataclass(frozen=True)
class CloneDatabase(Operation[Copied]):
    """Copy the live database, checkpointed and unchanged since, into the job's empty file."""

    old: FileIdentity  # the live database as it was seen
    census: Census  # of it


@dataclass(frozen=True)
class SwapDatabases(Operation[Swapped]):
    """Let what was staged and the live database change places."""

    aside: str  # name of what was staged
    old: FileIdentity | None  # the live database as it was seen; None: there was none
    beside: tuple[str, ...]  # endings of what is beside it, and goes with it


@dataclass(frozen=True)
class RecoverSwap(Operation[Swapped]):
    """Complete or undo a swap, wherever it got to."""

    aside: str
    old: FileIdentity | None
    staged: FileIdentity | None  # what was staged
    beside: tuple[str, ...]
    begun: bool  # whether the swap may have begun
    keep: bool  # whether what came out of it stays
