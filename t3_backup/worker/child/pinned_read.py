"""One moment of a live database, held while it is copied, and what holding it may cost.

In WAL mode a read transaction pins a moment for as long as it lasts: no commit makes the backup
start over, and no writer waits; but the -wal can't be reset, and grows. Elsewhere the same
transaction is a lock that fails a server's commits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import apsw

from t3_backup.errors import Failure, TryLater
from t3_backup.store.census import Census
from t3_backup.worker.child import census
from t3_backup.worker.child.census import require_tables
from t3_backup.worker.child.connection import execute
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.vfs import Destination

# 16 MiB a step: as fast as one step for all, and the budgets are looked at in between
STEP_PAGES = 4096
_BOUNDED_STEP_PAGES = 256  # where the time is counted in tenths of a second
_WAIT_SECONDS = 0.05


class Unfinished(Failure):
    """The online copy could not even begin in its share of the time; another method may."""


@dataclass
class Budget:
    """What a copy may cost. Instants are those of time.monotonic, in seconds."""

    source: LiveDatabase
    seconds: float
    wal_bytes: int
    clock: Callable[[], float] = time.monotonic
    waiting: Callable[[], None] = lambda: None  # called all the while that a copy waits for others
    began: float = field(init=False)
    wal_at_start: int = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()
        self.wal_at_start = self.source.wal_bytes()

    def elapsed(self) -> float:
        """Return the seconds so far."""
        return self.clock() - self.began

    def wal_growth(self) -> int:
        """Return the bytes by which the -wal has grown; 0 if it shrank."""
        return max(0, self.source.wal_bytes() - self.wal_at_start)

    def wait(self) -> None:
        """Let others go first, for a moment, and show that this is no stall."""
        self.waiting()
        time.sleep(_WAIT_SECONDS)

    def check(self, share: float = 1.0) -> None:
        """Raise TryLater past the WAL budget, Unfinished past `share` of the time."""
        if self.wal_growth() > self.wal_bytes:
            raise TryLater(
                f"the -wal grew by more than {self.wal_bytes} bytes while the copy held it; "
                "try again later"
            )
        if self.elapsed() > self.seconds * share:
            raise Unfinished(f"the copy was not done after {self.elapsed():.0f} s")


def open_destination(destination: Destination) -> apsw.Connection:
    """Open a connection that writes to `destination`. Raises apsw.Error."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(destination.uri(), flags=flags)
    # The file has no name and is thrown away on any failure: it needs neither a journal, nor a
    # lock, nor SQLite's syncs.
    execute(
        connection,
        "PRAGMA journal_mode=off",
        "PRAGMA synchronous=off",
        "PRAGMA locking_mode=exclusive",
    )
    execute(connection, "PRAGMA cache_size=-512")
    return connection


def format_moment() -> str:
    """Write the present time: RFC 3339, UTC, milliseconds."""
    # By hand: to import `datetime` is a part of what a worker's start costs.
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{milliseconds:03}Z", time.gmtime(seconds))


@contextmanager
def pin_read(live: apsw.Connection) -> Iterator[str]:
    """Hold one moment of the source, and yield when that was (`format_moment`), or just before.

    BEGIN alone pins nothing: the first read does, once it has waited for the writer.
    """
    execute(live, "BEGIN")
    try:
        moment = format_moment()
        execute(live, "PRAGMA main.user_version")
        yield moment
    finally:
        # Nothing was written; a COMMIT would fail where the census met damage, and the copy of it
        # would be lost.
        if not live.getautocommit():  # some errors have SQLite roll back by itself
            execute(live, "ROLLBACK")


def copy_pinned(
    live: apsw.Connection, copy: apsw.Connection, budget: Budget, *, until: float | None = None
) -> Census | None:
    """Copy the moment that is pinned; None if it was not done by `until`."""
    taken = census.take_census(live, count_rows=False)
    require_tables(taken)
    with copy.backup("main", live, "main") as backup:
        while not backup.done:
            backup.step(STEP_PAGES if until is None else _BOUNDED_STEP_PAGES)
            budget.check()
            if until is not None and time.monotonic() > until and not backup.done:
                return None
    return taken
