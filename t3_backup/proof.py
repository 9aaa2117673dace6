"""Does a copy hold what it should? SQLite's checks and the census, on a private descriptor that nothing else writes.

The file is opened immutable through the VFS `t3copy`: no lock, no journal, no sidecar, and not by its path. What is
proven is named in `Proven`; the bytes themselves (size, SHA-256) are root's part and are not looked at here. Runs as
the owner, since SQLite parses the user's bytes.
"""

from __future__ import annotations

import time
from contextlib import closing

import apsw

from t3_backup import census
from t3_backup.copier import Destination
from t3_backup.errors import SourceError
from t3_backup.protocol import Proven
from t3_backup.snapshot import must_hold_something
from t3_backup.source import execute

_MOST_PROBLEMS = 20
_MMAP_BYTES = 1 << 40
_CACHE_KIB = 2048


def prove(destination: Destination, *, mmap: bool = True) -> Proven:
    """Check the whole database in `destination`. Raises SourceError where it is no database at all."""
    began = time.monotonic()
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        with closing(apsw.Connection(destination.sealed_uri, flags=flags)) as connection:
            execute(connection, "PRAGMA trusted_schema=0", "PRAGMA temp_store=memory", f"PRAGMA cache_size=-{_CACHE_KIB}")
            execute(connection, f"PRAGMA mmap_size={_MMAP_BYTES if mmap else 0}", "PRAGMA query_only=1")
            problems = _problems(connection)
            taken = census.take(connection, count_rows=True)
    except apsw.Error as error:
        raise SourceError(f"the copy can't be read as a database: {error}") from error
    must_hold_something(taken)
    return Proven(problems, taken, time.monotonic() - began, apsw.sqlitelibversion())


def _problems(connection: apsw.Connection) -> tuple[str, ...]:
    found: list[str] = []
    try:
        for (text,) in connection.cursor().execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})"):
            found += [line for line in str(text).splitlines() if line != "ok"]
        orphans = {str(row[0]) for row in connection.cursor().execute("PRAGMA foreign_key_check")}
        found += [f"foreign_key_check: rows without a parent in {table}" for table in sorted(orphans)]
    except apsw.CorruptError as error:
        found.append(str(error))
    return tuple(found[:_MOST_PROBLEMS])
