"""What of an account is to be copied, as a worker found it, and what is believed of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from t3_backup.t3 import databases, unlisted
from t3_backup.t3.open_databases import OpenDatabases
from t3_backup.text import printable
from t3_backup.worker.protocol import Count, Event, Text


def _check_uncovered(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > databases.MOST:
        raise ValueError("they are too many")
    return tuple(printable(databases.require_name(name)) for name in names)


def _check_unlisted(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > databases.MOST or not all(map(unlisted.is_unlisted, names)):
        raise ValueError(f"it is {printable(repr(names))}")
    return tuple(map(printable, names))


def _check_sources(found: tuple[SourceDatabase, ...]) -> tuple[SourceDatabase, ...]:
    if len(found) > databases.MOST or len({one.file for one in found}) < len(found):
        raise ValueError("they are too many, or two have one name")
    return found


DatabaseName = Annotated[str, databases.require_name]  # the name of a file: not for a terminal


@dataclass(frozen=True)
class SourceDatabase:
    """One database of an account, as found: sizes in bytes."""

    file: DatabaseName
    bytes: Count
    wal_bytes: Count
    problem: Text = ""  # why it can't be copied
    inode: Count = 0  # as fdinfo has it (proc(5)); 0: it isn't known
    obstacle: Text = ""  # what keeps its owner from writing to it; a copy may be made all the same


@dataclass(frozen=True)
class Source(Event):
    """What is to be copied, as found: sizes in bytes, of all of it."""

    bytes: Count
    wal_bytes: Count
    databases: Annotated[tuple[SourceDatabase, ...], _check_sources] = ()
    # names of databases that are too many to be copied
    others: Annotated[tuple[str, ...], _check_uncovered] = ()
    # names of what is beside it, not saved, and not known to come again
    unlisted: Annotated[tuple[str, ...], _check_unlisted] = ()
    base_dir: Text = ""  # that these are of, without a symlink
    device: Text = ""  # MAJOR:MINOR of their folder; empty: it isn't known
    opened: OpenDatabases | None = None  # what the account's processes have open; None: not looked

    @property
    def usable(self) -> tuple[SourceDatabase, ...]:
        """Those that can be copied, as far as is known."""
        return tuple(one for one in self.databases if not one.problem)
