"""The operations of a restore, in the folder of the live databases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from t3_backup.records import one_of
from t3_backup.store.census import Census
from t3_backup.store.replacement import Replacement, Sidecars
from t3_backup.system.file_identity import FileIdentity, ProcFile
from t3_backup.t3.databases import MOST
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.worker.operations import Operation
from t3_backup.worker.operations.backup import Copied
from t3_backup.worker.protocol import Count, Event, Text, Texts
from t3_backup.worker.sources import DatabaseName

STATES = ("old", "new", "other")  # other: neither, and nothing is left of the swap


def _check_few(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > 3 * MOST:  # of a snapshot, and of a folder with those that are too many
        raise ValueError("they are too many")
    return names


Names = Annotated[tuple[DatabaseName, ...], _check_few]


@dataclass(frozen=True)
class Counted(Event):
    """What is in a live database now."""

    census: Census


@dataclass(frozen=True)
class Staged(Event):
    """An image was written beside the live database, durably."""

    live: FileIdentity | None  # the live database, as it was then; None: there is none
    staged: FileIdentity | None  # what was written
    census: Census  # of what was written, rows not counted
    opened: ProcFile | None = None  # the live database, for whoever looks who has it open


@dataclass(frozen=True)
class Checkpointed:
    """One database of the old state, and whether all of it is in its one file."""

    file: DatabaseName
    old: FileIdentity | None  # None: there is none, or nothing that can be moved
    whole: bool
    reason: Text  # why not
    census: Census | None  # of what is in the one file
    beside: Sidecars  # endings of what is beside it still
    changed_ns: Count = 0  # when it, or its -wal, changed last before that
    held: bool = False  # whether another process has it open
    opened: ProcFile | None = None  # it, for whoever looks who has it open


def _check_each(found: tuple[Checkpointed, ...]) -> tuple[Checkpointed, ...]:
    _check_few(tuple(one.file for one in found))
    if len({one.file for one in found}) < len(found):
        raise ValueError("two have one name")
    return found


@dataclass(frozen=True)
class CheckpointedAll(Event):
    """The old state: each of its databases."""

    databases: Annotated[tuple[Checkpointed, ...], _check_each]
    others: Names  # that are too many, and stay as they are


@dataclass(frozen=True)
class Swapped(Event):
    """What is in the place of the live databases, after a swap, or one that was interrupted."""

    state: Annotated[str, one_of(STATES)]
    # of which the one that came out stays beside it
    held: Names = ()  # since another process has it open
    changed: Names = ()  # since it is not what it was, or can't be removed
    stuck: Texts = ()  # why the latter


@dataclass(frozen=True)
class CountRows(Operation[Counted]):
    """Count the rows of one of the live databases."""

    database: DatabaseName = DATABASE_NAME


@dataclass(frozen=True)
class StageDatabase(Operation[Staged]):
    """Write the image in the job's file beside the live database."""

    database: DatabaseName
    aside: str  # ending of its name there


@dataclass(frozen=True)
class CheckpointDatabases(Operation[CheckpointedAll]):
    """Bring all of each live database into its one file.

    These, whether they are there or not, and the others that a backup would copy.
    """

    databases: tuple[DatabaseName, ...]


@dataclass(frozen=True)
class CloneDatabase(Operation[Copied]):
    """Copy a live database, checkpointed and unchanged since, into the job's empty file."""

    database: DatabaseName
    old: FileIdentity  # the live database as it was seen
    census: Census  # of it


@dataclass(frozen=True)
class SwapDatabases(Operation[Swapped]):
    """Let what was staged and the live databases change places, one after the other."""

    aside: str  # ending of the names of what was staged
    databases: tuple[Replacement, ...]


@dataclass(frozen=True)
class PutAside(Operation[Swapped]):
    """Give one of the live databases, which nobody has open, another name."""

    database: DatabaseName
    aside: str  # ending of that name


@dataclass(frozen=True)
class RecoverSwap(Operation[Swapped]):
    """Complete or undo a swap, wherever it got to."""

    aside: str
    databases: tuple[Replacement, ...]
    begun: bool  # whether the swap may have begun
