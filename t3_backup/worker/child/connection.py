"""Connections of SQLite to a live database, opened so that not one byte of it changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

from t3_backup.system.sqlite import NOFOLLOW
from t3_backup.worker.child import unjudged

if TYPE_CHECKING:  # who checks a copy has no use for it
    from t3_backup.worker.child.source import LiveDatabase

_MMAP_BYTES = 1 << 40  # SQLite takes as much of it as it was built for
_CACHE_KIB = 2048
_BUSY_MS = 250
_READ_SCHEMA = "SELECT 1 FROM main.sqlite_schema LIMIT 1"  # which has SQLite parse all of it
_READ_ONLY = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | NOFOLLOW
_UNSAFE = "unsafe use of"


def connect(source: LiveDatabase, *, mmap: bool, query_only: bool = True) -> apsw.Connection:
    """Open the database read-only, so that no use of it checkpoints.

    It does not while it is open, nor as the last one to close. `query_only=False` is for VACUUM
    INTO, which SQLite takes for a write. Raises apsw.Error.
    """
    connection = apsw.Connection(source.path, flags=_READ_ONLY)
    return _set_up(connection, mmap=mmap, query_only=query_only)


def connect_alone(source: LiveDatabase) -> apsw.Connection:
    """Open a database that nobody else has open, as it is: no lock, no -shm, nothing made.

    What is in its -wal is read, too. Who calls it holds a lease on the database. Raises apsw.Error.
    """
    path = "".join(f"%{byte:02x}" for byte in os.fsencode(source.path))
    # Without a -wal to be read SQLite would make one. With one it keeps the index of it, which
    # else is the -shm, in memory, where it need not share it.
    shared = "vfs=unix-none" if source.wal_bytes() else "immutable=1"
    connection = apsw.Connection(f"file:{path}?mode=ro&{shared}", flags=_READ_ONLY)
    return _set_up(connection, "PRAGMA locking_mode=exclusive", mmap=False, query_only=True)


def _set_up(
    connection: apsw.Connection, *first: str, mmap: bool, query_only: bool
) -> apsw.Connection:
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.setbusytimeout(_BUSY_MS)
        execute(connection, *first)
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
