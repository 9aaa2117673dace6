"""The operations on the files beside a database: archive them, read such an archive, bring its content back."""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.worker.operations import Operation
from t3_backup.worker.protocol import Count, Event, Text, Texts


@dataclass(frozen=True)
class Packed(Event):
    """An archive of what is beside a database, or the word that it would be the one that is known."""

    entries: Count  # files and folders
    content_bytes: Count  # of the files
    fingerprint: Text  # empty: it can't be told whether it is the same next time
    unchanged: bool  # nothing was written
    passed: Texts  # what was not packed, and why
    sealed: Texts  # NAME=MARK of each name beneath which all was packed


@dataclass(frozen=True)
class Inspected(Event):
    """What was found in an archive that was read to its end."""

    entries: Count
    content_bytes: Count


@dataclass(frozen=True)
class Installed(Event):
    """What is left once an archive's content is in place.

    Names of files are beneath the database's folder.
    """

    left: Texts  # what lies there out of place
    reasons: Texts  # why
    missing: Texts  # what could not be put in place, and why


@dataclass(frozen=True)
class WriteArchive(Operation[Packed]):
    """Write an archive of what is beside the database into the job's empty file."""

    limit: int  # bytes of content
    known: str  # a fingerprint whose content need not be written again


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
    """Put what was unpacked in its place, or remove it."""

    aside: str
    install: bool  # whether it is to be in place
    # by name, the mark of what is in an archive of the store, and need not stay
    sealed: dict[str, str]
