"""Make a consistent copy of a live database: pinned online backup, or else VACUUM INTO.

What is copied is read by SQLite alone and written by the VFS `t3copy`. Runs as the owner; never
checkpoints, never writes to the source, and keeps no writer waiting (see `pinned_read`; and
`rollback_journal` for a database that is not in WAL mode).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import apsw

from t3_backup.errors import TryLater
from t3_backup.worker.child import census
from t3_backup.worker.child.archive_walk import find_unchanged
from t3_backup.worker.child.connection import as_failure, connect, execute, is_wal
from t3_backup.worker.child.header import clear_wal_flag
from t3_backup.worker.child.pinned_read import (
    Budget,
    Unfinished,
    copy_pinned,
    open_destination,
    pin_read,
)
from t3_backup.worker.child.rollback_journal import NOT_WAL, copy_unpinned
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.vfs import Destination
from t3_backup.worker.operations.backup import Copied, CopyDatabase
from t3_backup.worker.protocol import Phase, Progress

_HOT_TRIES = 6


def serve_copy_database(task: Task, operation: CopyDatabase) -> Copied:
    """Copy the database that was found into the job's file.

    Then look whether the files beside it have changed.
    """
    with Destination(task.job.file, task.job.channel) as destination:
        alive = Progress(0, 0)
        budget = Budget(
            task.database, task.job.seconds, task.job.wal_budget, waiting=lambda: task.report(alive)
        )
        task.report(Phase("copy", task.database.size))
        copied = copy_database(
            task.database, destination, budget, method=operation.method, mmap=operation.mmap
        )
    if operation.archive is None:
        return copied
    task.report(copied)  # it stands, even if the user's own file system doesn't answer what follows
    with suppress(OSError):
        found = find_unchanged(task.database.folder, task.job.uid, operation.archive)
        return replace(copied, beside=found)
    return copied


def copy_database(
    source: LiveDatabase,
    destination: Destination,
    budget: Budget,
    *,
    method: str = "online",
    mmap: bool = True,
) -> Copied:
    """Copy `source` into `destination`, which is finished when this returns.

    That is: written, and its write-back waited for. The online copy may wait for others in half of
    the budget's time; then VACUUM INTO has the rest. Raises TryLater (locked, over a budget, being
    written all the time without WAL) and SourceError (hot journal, not a database, damaged beyond a
    copy).
    """
    if method == "online":
        try:
            return _online(source, destination, budget, mmap=mmap)
        except Unfinished:
            destination.reset()
    return _vacuum(source, destination, budget, mmap=mmap)


@contextmanager
def sqlite_errors(source: LiveDatabase, destination: Destination) -> Iterator[None]:
    """Turn SQLite's errors in reading `source` and writing `destination` into ours.

    Raises SourceError, TryLater, OSError.
    """
    try:
        yield
    except apsw.Error as error:
        # What the destination met first is the cause; SQLite's code for it is only its echo.
        if destination.counters.error:
            number = destination.counters.error
            raise OSError(number, os.strerror(number), "the new snapshot") from error
        raise as_failure(error, source) from error


def _online(
    source: LiveDatabase, destination: Destination, budget: Budget, *, mmap: bool
) -> Copied:
    hot = 0
    with sqlite_errors(source, destination):
        while True:
            try:
                return _online_once(source, destination, budget, mmap=mmap)
            except (apsw.BusyError, apsw.LockedError):
                budget.check(0.5)
            except apsw.ReadOnlyError:
                # The journal of a writer that lives can look hot for an instant; that of a dead one
                # stays so.
                hot += 1
                if hot == _HOT_TRIES:
                    raise
            destination.reset()
            budget.wait()


def _online_once(
    source: LiveDatabase, destination: Destination, budget: Budget, *, mmap: bool
) -> Copied:
    began = time.monotonic()
    with closing(connect(source, mmap=mmap)) as live:
        if is_wal(live):
            with closing(open_destination(destination)) as copy, pin_read(live):
                taken, restarts = copy_pinned(live, copy, budget), 0
        else:
            taken, restarts = copy_unpinned(live, destination, budget)
    destination.finish()
    clear_wal_flag(destination.fd)
    destination.finish()
    seconds = time.monotonic() - began
    return Copied(
        method="online",
        source_bytes=source.size,
        wal_growth_bytes=budget.wal_growth(),
        restarts=restarts,
        seconds=seconds,
        pinned=taken,
        before=None,
        after=None,
    )


def _vacuum(
    source: LiveDatabase, destination: Destination, budget: Budget, *, mmap: bool
) -> Copied:
    """VACUUM INTO, tried until the time is over."""
    with sqlite_errors(source, destination):
        while True:
            try:
                return _vacuum_once(source, destination, budget, mmap=mmap)
            except (apsw.BusyError, apsw.LockedError):
                if budget.elapsed() > budget.seconds:
                    raise
            destination.reset()
            budget.wait()


def _vacuum_once(
    source: LiveDatabase, destination: Destination, budget: Budget, *, mmap: bool
) -> Copied:
    """VACUUM INTO reads one moment of its own; a census before and one after bound it."""
    began = time.monotonic()
    with closing(connect(source, mmap=mmap, query_only=False)) as live:
        if not is_wal(live):
            raise TryLater(NOT_WAL)
        before = census.take_census(live, count_rows=False)
        census.require_tables(before)
        execute(live, "PRAGMA synchronous=off", f"VACUUM INTO '{destination.uri()}'")
        after = census.take_census(live, count_rows=False)
    destination.finish()
    return Copied(
        method="vacuum",
        source_bytes=source.size,
        wal_growth_bytes=budget.wal_growth(),
        restarts=0,
        seconds=time.monotonic() - began,
        pinned=None,
        before=before,
        after=after,
    )
