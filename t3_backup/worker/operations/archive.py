"""The operations on an archive of the files beside a database: read it, bring its content back."""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import Count, Event, Texts


@dataclass(frozen=True)
class Inspected(Event):
    """What was found in an archive that was read to its end."""

    entries: Count
    content_bytes: Count


@dataclass(frozen=True)
class Installed(Event):
    """What could not be put in place of an archive's content, and why."""

    missing: Texts


@dataclass(frozen=True)
class Remains(Event):
    """What stays of what was replaced.

    Names of files are beneath the database's folder.
    """

    left: Texts  # what lies there out of place
    reasons: Texts  # why


@dataclass(frozen=True)
class InspectArchive(Operation[Inspected]):
    """Read the archive in the job's file to its end."""

    limit: int  # bytes of content


@dataclass(frozen=True)
class StageArchive(Operation[Inspected]):
    """Unpack the archive in the job's file beside the live database, under a name of its own."""

    aside: str  # what that name begins with
    limit: int  # bytes of content


@dataclass(frozen=True)
class InstallArchive(Operation[Installed]):
    """Put what was unpacked in its place."""

    aside: str


@dataclass(frozen=True)
class RemoveReplaced(Operation[Remains]):
    """Remove what was replaced, as far as an archive gives it back, and what is of no use."""

    aside: str
    installed: bool  # whether what was unpacked was to be in place
    # by name, the mark of what is in an archive of the store, and need not stay
    sealed: dict[str, str]
