"""Say why a live database could not be read, and what to do about it.

Where SQLite itself tells no more than that it could not open a file, the home is looked at.
"""

from __future__ import annotations

import contextlib

import apsw

from t3_backup.errors import SourceError, TryLater
from t3_backup.worker.child.obstacles import find_obstacle
from t3_backup.worker.child.source import LiveDatabase

# What SQLite says where it can't open a database, or what it needs beside it.
UNOPENED = (apsw.CantOpenError, apsw.IOError, apsw.FullError, apsw.ReadOnlyError)
_READ_VERSION = 2  # the newest that there is (sqlite.org/fileformat.html)


def as_failure(error: apsw.Error, source: LiveDatabase) -> SourceError | TryLater:
    """Say what an error of SQLite means for the account.

    It is one line, with what to do.
    """
    path = source.path
    extended = getattr(error, "extendedresult", 0)
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return TryLater(f"{path} is locked by another process")
    if isinstance(error, UNOPENED) and (obstacle := find_obstacle(source)):
        return SourceError(f"{path} can't be opened: {obstacle}")
    if extended == apsw.SQLITE_READONLY_ROLLBACK:
        return SourceError(
            f"{path} has a hot journal: its last writer died in a transaction; "
            "start its T3 server once to heal it"
        )
    if isinstance(error, apsw.NotADBError):
        with contextlib.suppress(OSError):
            if (version := source.read_version()) > _READ_VERSION:
                return SourceError(
                    f"{path} is of a newer format (read version {version}) than SQLite "
                    f"{apsw.sqlitelibversion()} reads; install a newer SQLite"
                )
        return SourceError(f"{path} is not a SQLite database")
    if isinstance(error, apsw.CorruptError):
        return SourceError(f"{path} is damaged: {error}")
    with contextlib.suppress(OSError):
        if source.has_journal():
            return SourceError(
                f"{path} has a journal and can't be opened ({error}); "
                "start its T3 server once to heal it"
            )
    return SourceError(f"{path}: {error}")
