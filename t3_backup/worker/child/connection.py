"""Connections of SQLite to a live database, opened so that not one byte of it changes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import apsw

from t3_backup.errors import SourceError, TryLater
from t3_backup.system.sqlite import NOFOLLOW

if TYPE_CHECKING:  # who checks a copy has no use for it
    from t3_backup.worker.child.source import LiveDatabase

_MMAP_BYTES = 1 << 40  # SQLite takes as much of it as it was built for
_CACHE_KIB = 2048
_BUSY_MS = 250


def connect(source: LiveDatabase, *, mmap: bool, query_only: bool = True) -> apsw.Connection:
    """Open the database read-only, so that no use of it checkpoints.

    It does not while it is open, nor as the last one to close. `query_only=False` is for VACUUM
    INTO, which SQLite takes for a write. Raises apsw.Error.
    """
    connection = apsw.Connection(
        source.path, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | NOFOLLOW
    )
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.setbusytimeout(_BUSY_MS)
    execute(
        connection,
        "PRAGMA trusted_schema=0",
        "PRAGMA temp_store=memory",
        f"PRAGMA cache_size=-{_CACHE_KIB}",
    )
    execute(connection, f"PRAGMA mmap_size={_MMAP_BYTES if mmap else 0}")
    if query_only:
        execute(connection, "PRAGMA query_only=1")
    return connection


def execute(connection: apsw.Connection, *statements: str) -> None:
    """Run statements whose rows are of no interest, leaving no cursor open."""
    for statement in statements:
        connection.cursor().execute(statement).fetchall()


def is_wal(connection: apsw.Connection) -> bool:
    """Tell whether the database is in WAL mode. Raises apsw.Error."""
    [(mode,)] = connection.cursor().execute("PRAGMA journal_mode").fetchall()
    return bool(mode == "wal")


def as_failure(error: apsw.Error, source: LiveDatabase) -> SourceError | TryLater:
    """Say what an error of SQLite means for the account.

    It is one line, with what to do.
    """
    path = source.path
    extended = getattr(error, "extendedresult", 0)
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return TryLater(f"{path} is locked by another process")
    if extended == apsw.SQLITE_READONLY_ROLLBACK:
        return SourceError(
            f"{path} has a hot journal: its last writer died in a transaction; "
            "start its T3 server once to heal it"
        )
    if isinstance(error, apsw.NotADBError):
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
