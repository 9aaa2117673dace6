"""Connections of SQLite to a live database, opened so that not one byte of it changes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import apsw

from t3_backup.errors import SourceError, TryLater
from t3_backup.system.sqlite import NOFOLLOW
from t3_backup.worker.child import unjudged

if TYPE_CHECKING:  # who checks a copy has no use for it
    from t3_backup.worker.child.source import LiveDatabase

_MMAP_BYTES = 1 << 40  # SQLite takes as much of it as it was built for
_CACHE_KIB = 2048
_BUSY_MS = 250
_READ_VERSION = 2  # the newest that there is (sqlite.org/fileformat.html)
_READ_SCHEMA = "SELECT 1 FROM main.sqlite_schema LIMIT 1"  # which has SQLite parse all of it
_UNSAFE = "unsafe use of"


def connect(source: LiveDatabase, *, mmap: bool, query_only: bool = True) -> apsw.Connection:
    """Open the database read-only, so that no use of it checkpoints.

    It does not while it is open, nor as the last one to close. `query_only=False` is for VACUUM
    INTO, which SQLite takes for a write. Raises apsw.Error.
    """
    connection = apsw.Connection(
        source.path, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | NOFOLLOW
    )
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.setbusytimeout(_BUSY_MS)
        prepare(
            connection,
            f"PRAGMA cache_size=-{_CACHE_KIB}",
            f"PRAGMA mmap_size={_MMAP_BYTES if mmap else 0}",
            *(["PRAGMA query_only=1"] if query_only else []),
        )
    except BaseException:
        connection.close(True)
        raise
    return connection


def prepare(connection: apsw.Connection, *pragmas: str) -> str:
    """Set up a connection to a database that nobody vouches for, and read its schema.

    Its functions are not trusted, and nothing temporary is written to a disk. Returns what
    `read_schema` does. Raises apsw.Error.
    """
    execute(connection, "PRAGMA trusted_schema=0", "PRAGMA temp_store=memory")
    unparsed = read_schema(connection)  # first: some pragmas need it
    execute(connection, *pragmas)
    return unparsed


def read_schema(connection: apsw.Connection) -> str:
    """Read the schema; say what in it this SQLite can't parse, though it is not damaged.

    Empty: it has all of it. Some versions (3.40 is one) refuse an index or a generated column that
    calls a function which they don't know to be harmless, `json_extract` among them. For such a
    schema alone these functions are let in: it is read by a process that is confined. Without what
    can't be parsed SQLite goes on. Again, within a transaction, it costs next to nothing, and the
    schema may be another by then. Raises apsw.Error where the schema is damaged.
    """
    try:
        execute(connection, _READ_SCHEMA)
    except (apsw.CorruptError, apsw.SQLError) as error:
        if _UNSAFE not in str(error):
            return _read_rest(connection, error)
    else:
        return ""
    execute(connection, "PRAGMA trusted_schema=1")
    try:
        execute(connection, _READ_SCHEMA)
    except (apsw.CorruptError, apsw.SQLError) as error:
        return _read_rest(connection, error)
    return ""


def _read_rest(connection: apsw.Connection, error: apsw.Error) -> str:
    if reason := unjudged.unparsed_object(connection, error):
        execute(connection, _READ_SCHEMA)
        return unjudged.explain(reason)
    raise error


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
