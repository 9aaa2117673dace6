"""SQLite's checks and the census of a copy, on a private descriptor that nothing else writes.

The file is opened immutable through the VFS `t3copy`: no lock, no journal, no sidecar, and not by
its path. What is proven is named in `Proven`; the bytes themselves (size, SHA-256) are root's part
and are not looked at here. Runs as the owner, since SQLite parses the user's bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing

import apsw

from t3_backup.errors import SourceError
from t3_backup.store.census import Census
from t3_backup.worker.child import census, sandbox
from t3_backup.worker.child.census import quote_name, require_tables
from t3_backup.worker.child.connection import execute
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.vfs import Destination
from t3_backup.worker.operations.proof import CheckIntegrity, Proven
from t3_backup.worker.protocol import Phase

_MOST_PROBLEMS = 20
_WHOLE = f"PRAGMA integrity_check({_MOST_PROBLEMS})"
_PARENTS = "PRAGMA foreign_key_check"
_MMAP_BYTES = 1 << 40
_CACHE_KIB = 2048


def serve_check_integrity(task: Task, operation: CheckIntegrity) -> Proven:
    """Check the job's file."""
    with Destination(task.job.file, task.job.channel) as destination:
        size = os.fstat(task.job.file).st_size
        sandbox.limit_memory(size)
        task.report(Phase("prove", size))
        return check_integrity(destination, share=operation.share, shares=operation.shares)


def check_integrity(
    destination: Destination, *, share: int = 0, shares: int = 1, mmap: bool = True
) -> Proven:
    """Check the database in `destination`: the whole of it, or one share.

    All shares together are the whole. Raises SourceError where it is no database at all.
    """
    began = time.monotonic()
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        with closing(apsw.Connection(destination.sealed_uri, flags=flags)) as connection:
            execute(
                connection,
                "PRAGMA trusted_schema=0",
                "PRAGMA temp_store=memory",
                f"PRAGMA cache_size=-{_CACHE_KIB}",
            )
            execute(
                connection, f"PRAGMA mmap_size={_MMAP_BYTES if mmap else 0}", "PRAGMA query_only=1"
            )
            taken = census.take_census(connection, count_rows=True)
            checks = _share(connection, taken, share, shares) if shares > 1 else (_WHOLE, _PARENTS)
            problems = _problems(connection, checks)
    except apsw.Error as error:
        raise SourceError(f"the copy can't be read as a database: {error}") from error
    require_tables(taken)
    return Proven(problems, taken, time.monotonic() - began, apsw.sqlitelibversion())


def _share(connection: apsw.Connection, taken: Census, share: int, shares: int) -> list[str]:
    """Run the checks of one share.

    All shares together find what `integrity_check` finds (sqlite.org/pragma.html). `quick_check`
    sees to the structure of the whole file, its free and forgotten pages among it; what it leaves
    out, each entry of each index, is checked a table at a time, and the tables are dealt out by the
    entries that they have.
    """
    query = "SELECT tbl_name, count(*) FROM sqlite_schema WHERE type = 'index' GROUP BY tbl_name"
    indexes = {str(name): int(str(count)) for name, count in connection.cursor().execute(query)}
    entries = {
        table: max(rows, 0) * (1 + indexes.get(table, 0))
        for table, rows in (taken.rows or {}).items()
    }
    load = [0] * shares
    load[0] = max(taken.total_rows, 0) // 2  # about what quick_check costs
    checks: list[list[str]] = [
        [f"PRAGMA quick_check({_MOST_PROBLEMS})", _PARENTS],
        *([] for _ in range(shares - 1)),
    ]
    for table in sorted(entries, key=lambda table: (-entries[table], table)):
        least = load.index(min(load))
        load[least] += entries[table]
        checks[least].append(f"PRAGMA integrity_check({quote_name(table)})")
    return checks[share]


def _problems(connection: apsw.Connection, checks: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    try:
        for check in checks:
            for row in connection.cursor().execute(check):
                if check == _PARENTS:
                    found.append(f"foreign_key_check: rows without a parent in {row[0]}")
                else:
                    found += [line for line in str(row[0]).splitlines() if line != "ok"]
    except apsw.CorruptError as error:
        found.append(str(error))
    return tuple(dict.fromkeys(found))[:_MOST_PROBLEMS]
