"""A consistent copy of a live database into a private descriptor: pinned online backup, or else VACUUM INTO.

In WAL mode one read transaction, opened by a SELECT, pins one moment for the whole copy: no commit makes the backup
start over, and no writer waits. Elsewhere a pin is a lock that fails a server's commits, so it is taken for at most a
moment, and rarely. What is copied is read by SQLite alone and written by the VFS `t3copy`. Runs as the owner; never
checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import apsw

from t3_backup import census
from t3_backup.census import Census
from t3_backup.copier import Destination
from t3_backup.errors import Failure, SourceError, TryLater
from t3_backup.protocol import Copied
from t3_backup.source import Source, as_failure, connect, execute, is_wal

_STEP_PAGES = 4096  # 16 MiB a step: as fast as one step for all, and the budgets are looked at in between
# Without WAL a step holds a lock that makes a writer fail: five pages hold it for some 50 microseconds.
_SMALL_STEP_PAGES = 5
_PINNED_SECONDS = 0.5  # the longest that a writer with a busy timeout of a second is ever kept waiting without WAL
_PINNED_SHARE = 0.005  # of the time spent so far: at a writer that never waits, at most so many commits fail
_PINNED_BYTES_PER_SECOND = 400 << 20  # how fast a pinned copy may be hoped to go; wrong hopes end at the limit
_RETRY_SECONDS = 0.05
_QUIET_SECONDS = 1.0
_HOT_TRIES = 6
_PINNED_OVERHEAD_SECONDS = 0.02
_NOT_WAL = "not in WAL mode, and locked or written all the time: no copy without failing its commits; try again later"


class Unfinished(Failure):
    """The online copy could not even begin in its share of the time; another method may."""


@dataclass
class Budget:
    """What a copy may cost. Instants are those of time.monotonic, in seconds."""

    source: Source
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
        """Seconds so far."""
        return self.clock() - self.began

    def wal_growth(self) -> int:
        """Bytes by which the -wal has grown; 0 if it shrank."""
        return max(0, self.source.wal_bytes() - self.wal_at_start)

    def wait(self) -> None:
        """Let others go first, for a moment, and show that this is no stall."""
        self.waiting()
        time.sleep(_RETRY_SECONDS)

    def check(self, share: float = 1.0) -> None:
        """Raises TryLater past the WAL budget, Unfinished past `share` of the time."""
        if self.wal_growth() > self.wal_bytes:
            raise TryLater(f"the -wal grew by more than {self.wal_bytes} bytes while the copy held it; try again later")
        if self.elapsed() > self.seconds * share:
            raise Unfinished(f"the copy was not done after {self.elapsed():.0f} s")


def take(source: Source, destination: Destination, budget: Budget, *, method: str = "online", mmap: bool = True) -> Copied:
    """Copy `source` into `destination`, which is finished (written, its write-back waited for) when this returns.

    The online copy has half of the budget's time; VACUUM INTO has the rest. Raises TryLater (locked, over a budget, being
    written all the time without WAL) and SourceError (hot journal, not a database, damaged beyond a copy).
    """
    if method == "online":
        try:
            return _online(source, destination, budget, mmap=mmap)
        except Unfinished:
            destination.reset()
    return _vacuum(source, destination, budget, mmap=mmap)


@contextmanager
def _sqlite_errors(source: Source, destination: Destination) -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        # What the destination met first is the cause; SQLite's code for it is only its echo.
        if destination.counters.error:
            number = -destination.counters.error
            raise OSError(number, os.strerror(number), "the new snapshot") from error
        raise as_failure(error, source) from error


def _online(source: Source, destination: Destination, budget: Budget, *, mmap: bool) -> Copied:
    hot = 0
    with _sqlite_errors(source, destination):
        while True:
            try:
                return _online_once(source, destination, budget, mmap=mmap)
            except (apsw.BusyError, apsw.LockedError):
                budget.check(0.5)
            except apsw.ReadOnlyError:
                # The journal of a writer that lives can look hot for an instant; that of a dead one stays so.
                hot += 1
                if hot == _HOT_TRIES:
                    raise
            destination.reset()
            budget.wait()


def _online_once(source: Source, destination: Destination, budget: Budget, *, mmap: bool) -> Copied:
    began = time.monotonic()
    with closing(connect(source, mmap=mmap)) as live:
        if is_wal(live):
            with closing(_open_destination(destination)) as copy, _pin(live):
                taken, restarts = _pinned(live, copy, budget), 0
        else:
            taken, restarts = _unpinned(live, destination, budget)
    _clear_wal_flag(destination)
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


def _open_destination(destination: Destination) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(destination.uri(), flags=flags)
    # The file has no name and is thrown away on any failure: it needs neither a journal, nor a lock, nor SQLite's syncs.
    execute(connection, "PRAGMA journal_mode=off", "PRAGMA synchronous=off", "PRAGMA locking_mode=exclusive")
    execute(connection, "PRAGMA cache_size=-512")
    return connection


@contextmanager
def _pin(live: apsw.Connection) -> Iterator[None]:
    """Hold one moment of the source. BEGIN alone pins nothing: the first read does, once it has waited for the writer."""
    execute(live, "BEGIN")
    try:
        execute(live, "PRAGMA main.user_version")
        yield
    finally:
        # Nothing was written; a COMMIT would fail where the census met damage, and the copy of it would be lost.
        if not live.getautocommit():  # some errors have SQLite roll back by itself
            execute(live, "ROLLBACK")


def _pinned(live: apsw.Connection, copy: apsw.Connection, budget: Budget, *, until: float | None = None) -> Census | None:
    """Copy the moment that is pinned; None if it was not done by `until`."""
    taken = census.take(live, count_rows=False)
    must_hold_something(taken)
    with copy.backup("main", live, "main") as backup:
        while not backup.done:
            backup.step(_STEP_PAGES if until is None else _STEP_PAGES // 16)
            budget.check()
            if until is not None and time.monotonic() > until and not backup.done:
                return None
    return taken


def _unpinned(live: apsw.Connection, destination: Destination, budget: Budget) -> tuple[Census | None, int]:
    """Copy a database that is not in WAL mode, where every read transaction is a lock that fails a commit.

    Where nobody writes, short steps copy it, which end as soon as a writer's journal shows up. Else, when enough time has
    passed for it to be at most `_PINNED_SHARE` of the whole, one pinned attempt is made, for at most `_PINNED_SECONDS`:
    a writer that waits a second loses nothing, and one that never waits at most that share of its commits. Returns the
    census (None: take it from the copy) and the number of attempts that were given up.
    """
    source, restarts, held = budget.source, 0, 0.0
    needed = _PINNED_OVERHEAD_SECONDS + source.size / _PINNED_BYTES_PER_SECOND
    while True:
        allowed = min(_PINNED_SECONDS, budget.elapsed() * _PINNED_SHARE - held)
        quiet = source.is_quiet(_QUIET_SECONDS)
        if quiet or needed <= allowed:
            # An attempt that is given up leaves a torn file: each begins with an empty one.
            destination.reset()
            with contextlib.suppress(apsw.BusyError, apsw.LockedError), closing(_open_destination(destination)) as copy:
                if quiet:
                    if _in_short_steps(live, copy, source):
                        return None, restarts
                else:
                    with _pin(live):
                        began = time.monotonic()
                        taken = _pinned(live, copy, budget, until=began + allowed)
                        held += time.monotonic() - began
                        if taken is not None:
                            return taken, restarts
            restarts += 1
        try:
            budget.check(0.5)
        except Unfinished:
            raise TryLater(_NOT_WAL) from None
        budget.wait()


def _in_short_steps(live: apsw.Connection, copy: apsw.Connection, source: Source) -> bool:
    """Copy without a pin; False as soon as somebody is about to write, or has written."""
    backup = copy.backup("main", live, "main")
    try:
        while not backup.done:
            remaining = backup.remaining
            backup.step(_SMALL_STEP_PAGES)
            if not backup.done and (source.has_journal() or 0 < remaining <= backup.remaining):
                return False
    finally:
        backup.close(True)  # forced: it would else raise once more what its last step met
    return True


def _vacuum(source: Source, destination: Destination, budget: Budget, *, mmap: bool) -> Copied:
    """VACUUM INTO, tried until the time is over."""
    with _sqlite_errors(source, destination):
        while True:
            try:
                return _vacuum_once(source, destination, budget, mmap=mmap)
            except (apsw.BusyError, apsw.LockedError):
                if budget.elapsed() > budget.seconds:
                    raise
            destination.reset()
            budget.wait()


def _vacuum_once(source: Source, destination: Destination, budget: Budget, *, mmap: bool) -> Copied:
    """VACUUM INTO reads one moment of its own; a census before and one after bound it."""
    began = time.monotonic()
    with closing(connect(source, mmap=mmap, query_only=False)) as live:
        if not is_wal(live):
            raise TryLater(_NOT_WAL)
        before = census.take(live, count_rows=False)
        must_hold_something(before)
        execute(live, "PRAGMA synchronous=off", f"VACUUM INTO '{destination.uri()}'")
        after = census.take(live, count_rows=False)
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


def must_hold_something(taken: Census) -> None:
    """Raises SourceError for a database without any table."""
    if not taken.ends:
        raise SourceError("the database is empty: it has no table at all; an earlier snapshot can be put in its place")


def _clear_wal_flag(destination: Destination) -> None:
    """Say in the header (bytes 18 and 19, sqlite.org/fileformat.html) that the copy is not in WAL mode.

    It has no -wal and never gets one: opened plainly, it must not make sidecars. Nothing else in it changes.
    """
    destination.finish()
    if os.pread(destination.fd, 2, 18) != b"\x02\x02":
        return
    try:
        os.pwrite(destination.fd, b"\x01\x01", 18)  # two bytes of a page that is there: never a short write
    except OSError as error:
        raise OSError(error.errno, error.strerror, "the new snapshot") from error
