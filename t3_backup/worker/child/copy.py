"""Make a consistent copy of a live database: pinned online backup, or else VACUUM INTO.

What is copied is read by SQLite alone and written by the VFS `t3copy`. Runs as the owner; never
checkpoints, never writes to the source, and keeps no writer waiting (see `pinned_read`; and
`rollback_journal` for a database that is not in WAL mode).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import apsw

from t3_backup.errors import TryLater
from t3_backup.store.census import Census
from t3_backup.worker.child import census
from t3_backup.worker.child.connection import connect, execute, is_wal
from t3_backup.worker.child.header import clear_wal_flag
from t3_backup.worker.child.leased_read import open_leased
from t3_backup.worker.child.pinned_read import (
    Budget,
    Unfinished,
    copy_pinned,
    format_moment,
    open_destination,
    pin_read,
)
from t3_backup.worker.child.rollback_journal import NOT_WAL, copy_unpinned
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.unreadable import UNOPENED, as_failure
from t3_backup.worker.child.vfs import Destination
from t3_backup.worker.operations.backup import Copied, CopyDatabase
from t3_backup.worker.protocol import CHANNEL, Phase, Progress

_HOT_TRIES = 6


def serve_copy_database(task: Task, operation: CopyDatabase) -> Copied:
    """Copy one of the databases that were found into the job's file."""
    source = task.database(operation.database)
    with Destination(task.job.file, CHANNEL) as destination:
        budget = budget_of(task, source)
        task.report(Phase("copy", source.size))
        return copy_database(
            source, destination, budget, method=operation.method, mmap=operation.mmap
        )


def budget_of(task: Task, source: LiveDatabase, share: float = 1.0) -> Budget:
    """Return what the copy of one database may cost, of what is left to the task."""
    alive = Progress(0, 0)
    left = max(0.0, task.seconds_left()) * share
    return Budget(source, left, task.job.wal_budget, waiting=lambda: task.report(alive))


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
    with sqlite_errors(source, destination):
        try:
            return _online_beside(source, destination, budget, mmap=mmap)
        except UNOPENED:
            if not destination.counters.error:
                destination.reset()
                if (copied := _online_alone(source, destination, budget)) is not None:
                    return copied
            raise


def _online_beside(
    source: LiveDatabase, destination: Destination, budget: Budget, *, mmap: bool
) -> Copied:
    """Copy a database that others may have open."""
    hot = 0
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


def _online_alone(source: LiveDatabase, destination: Destination, budget: Budget) -> Copied | None:
    """Copy a database as it is, while nobody has it open; None where somebody may have."""
    with open_leased(source) as live:
        if live is None:
            return None
        with pin_read(live) as moment:
            return copy_pin(live, moment, destination, budget)


def _online_once(
    source: LiveDatabase, destination: Destination, budget: Budget, *, mmap: bool
) -> Copied:
    began = time.monotonic()
    with closing(connect(source, mmap=mmap)) as live:
        if is_wal(live):
            with pin_read(live) as moment:
                return copy_pin(live, moment, destination, budget)
        moment = format_moment()
        taken, restarts = copy_unpinned(live, destination, budget)
    return _finish(destination, budget, taken, restarts, time.monotonic() - began, moment)


def copy_pin(
    live: apsw.Connection, moment: str, destination: Destination, budget: Budget
) -> Copied:
    """Copy the moment that a connection has pinned into `destination`. Raises apsw.Error."""
    began = time.monotonic()
    with closing(open_destination(destination)) as copy:
        taken = copy_pinned(live, copy, budget)
    return _finish(destination, budget, taken, 0, time.monotonic() - began, moment)


def _finish(
    destination: Destination,
    budget: Budget,
    taken: Census | None,
    restarts: int,
    seconds: float,
    moment: str,
) -> Copied:
    destination.finish()
    clear_wal_flag(destination.fd)
    destination.finish()
    return Copied(
        method="online",
        source_bytes=budget.source.size,
        wal_growth_bytes=budget.wal_growth(),
        restarts=restarts,
        seconds=seconds,
        pinned=taken,
        before=None,
        after=None,
        moment=moment,
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
