"""SQLite's checks and the census of a copy, on a private descriptor that nothing else writes.

The file is opened immutable through the VFS `t3copy`: no lock, no journal, no sidecar, and not by
its path. What is proven is named in `Proven`; the bytes themselves (size, SHA-256) are root's part
and are not looked at here. Runs as the owner, since SQLite parses the user's bytes.
"""

from __future__ import annotations

import contextlib
import os
import time
from contextlib import closing

import apsw

from t3_backup.errors import SourceError
from t3_backup.store.census import Census
from t3_backup.worker.child import census, sandbox
from t3_backup.worker.child.census import require_tables
from t3_backup.worker.child.checks import Checks
from t3_backup.worker.child.connection import prepare
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.vfs import Destination
from t3_backup.worker.operations.proof import (
    CheckDatabases,
    CheckIntegrity,
    ProofOf,
    Proven,
    ProvenAll,
)
from t3_backup.worker.protocol import CHANNEL, Phase

_MMAP_BYTES = 1 << 40
_CACHE_KIB = 2048


def serve_check_integrity(task: Task, operation: CheckIntegrity) -> Proven:
    """Check the job's file."""
    with Destination(task.job.file, CHANNEL) as destination:
        size = os.fstat(task.job.file).st_size
        sandbox.limit_memory(size)
        task.report(Phase("prove", size))
        return check_integrity(destination, share=operation.share, shares=operation.shares)


def serve_check_databases(task: Task, operation: CheckDatabases) -> ProvenAll:
    """Check each of the job's files, in their order.

    What has been proven is reported before the next one is read: neither a file that can't be read
    nor one whose proof takes too long costs those before it theirs.
    """
    sizes = [os.fstat(fd).st_size for fd in task.job.files]
    sandbox.limit_memory(sum(sizes))
    proofs: list[ProofOf] = []
    for fd, size in zip(task.job.files, sizes, strict=True):
        if proofs:
            task.report(ProvenAll(tuple(proofs)))
        task.report(Phase("prove", size))
        with Destination(fd, CHANNEL) as destination:
            proofs.append(_prove(destination, operation))
    return ProvenAll(tuple(proofs))


def _prove(destination: Destination, operation: CheckDatabases) -> ProofOf:
    """Check one file, and say what became of it."""
    try:
        return ProofOf(check_integrity(destination, share=operation.share, shares=operation.shares))
    except SourceError as error:
        return ProofOf(None, str(error))


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
            unparsed = prepare(
                connection,
                f"PRAGMA cache_size=-{_CACHE_KIB}",
                f"PRAGMA mmap_size={_MMAP_BYTES if mmap else 0}",
                "PRAGMA query_only=1",
            )
            taken = census.take_census(connection, count_rows=True)
            checks = Checks(connection, taken, unparsed)
            if shares == 1:
                checks.check_all()
            elif share == 0:
                checks.check_structure()
            checks.check_tables(_share(connection, taken, share, shares) if shares > 1 else ())
            checks.settle()
    except apsw.Error as error:
        raise SourceError(f"the copy can't be read as a database: {error}") from error
    require_tables(taken)
    return Proven(
        tuple(checks.problems),
        taken,
        time.monotonic() - began,
        apsw.sqlitelibversion(),
        checks.unjudged,
        checks.orphans,
    )


def _share(connection: apsw.Connection, taken: Census, share: int, shares: int) -> list[str]:
    """Choose the tables of one share.

    All shares together find what `integrity_check` finds (sqlite.org/pragma.html). `quick_check`,
    which is the first one's, sees to the structure of the whole file, its free and forgotten pages
    among it; what it leaves out, each entry of each index, is checked a table at a time, and the
    tables are dealt out by the entries that they have.
    """
    query = "SELECT tbl_name, count(*) FROM sqlite_schema WHERE type = 'index' GROUP BY tbl_name"
    indexes: dict[str, int] = {}
    with contextlib.suppress(UnicodeDecodeError):
        indexes = {str(name): int(str(count)) for name, count in connection.cursor().execute(query)}
    entries = {
        table: max(rows, 0) * (1 + indexes.get(table, 0))
        for table, rows in (taken.rows or {}).items()
    }
    load = [0] * shares
    load[0] = max(taken.total_rows, 0) // 2  # about what quick_check costs
    dealt: list[list[str]] = [[] for _ in range(shares)]
    for table in sorted(entries, key=lambda table: (-entries[table], table)):
        least = load.index(min(load))
        load[least] += entries[table]
        dealt[least].append(table)
    return dealt[share]
