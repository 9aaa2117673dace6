"""A database that is not in WAL mode, where every read transaction is a lock that fails a commit.

T3's databases are in WAL mode; this is for the one that is not. It is copied where nobody writes,
and where somebody does, only so far as that costs next to none of the commits. Never by VACUUM
INTO, which would hold the lock to its end.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import closing

import apsw

from t3_backup.errors import TryLater
from t3_backup.store.census import Census
from t3_backup.worker.child.pinned_read import (
    Budget,
    Unfinished,
    copy_pinned,
    open_destination,
    pin_read,
)
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.vfs import Destination

# A step holds a lock that makes a writer fail: five pages hold it for some 50 microseconds.
_STEP_PAGES = 5
# the longest that a writer with a busy timeout of a second is ever kept waiting
_PINNED_SECONDS = 0.5
# of the time spent so far: at a writer that never waits, about so many commits fail
_PINNED_SHARE = 0.005
# how fast a pinned copy may be hoped to go; wrong hopes end at the limit
_PINNED_BYTES_PER_SECOND = 400 << 20
_PINNED_OVERHEAD_SECONDS = 0.02
_QUIET_SECONDS = 1.0
NOT_WAL = (
    "not in WAL mode, and locked or written all the time: no copy without failing its commits; "
    "try again later"
)


def copy_unpinned(
    live: apsw.Connection, destination: Destination, budget: Budget
) -> tuple[Census | None, int]:
    """Copy it without costing its writers anything worth speaking of.

    Raises TryLater where that can't be done. Where nobody writes, short steps copy it, which end as
    soon as a writer's journal shows up. Else, when enough time has passed for it to be at most
    `_PINNED_SHARE` of the whole, one pinned attempt is made, for at most `_PINNED_SECONDS`: a
    writer that waits a second loses nothing, and one that never waits at most that share of its
    commits. Returns the census (None: take it from the copy) and the number of attempts that were
    given up.
    """
    source, restarts, held = budget.source, 0, 0.0
    needed = _PINNED_OVERHEAD_SECONDS + source.size / _PINNED_BYTES_PER_SECOND
    while True:
        allowed = min(_PINNED_SECONDS, budget.elapsed() * _PINNED_SHARE - held)
        quiet = source.is_quiet(_QUIET_SECONDS)
        if quiet or needed <= allowed:
            # An attempt that is given up leaves a torn file: each begins with an empty one.
            destination.reset()
            with (
                contextlib.suppress(apsw.BusyError, apsw.LockedError),
                closing(open_destination(destination)) as copy,
            ):
                if quiet:
                    if _in_short_steps(live, copy, source):
                        return None, restarts
                else:
                    with pin_read(live):
                        began = time.monotonic()
                        taken = copy_pinned(live, copy, budget, until=began + allowed)
                        held += time.monotonic() - began
                        if taken is not None:
                            return taken, restarts
            restarts += 1
        try:
            budget.check(0.5)
        except Unfinished:
            raise TryLater(NOT_WAL) from None
        budget.wait()


def _in_short_steps(live: apsw.Connection, copy: apsw.Connection, source: LiveDatabase) -> bool:
    """Copy without a pin; False as soon as somebody is about to write, or has written."""
    journal = source.journal_state()
    backup = copy.backup("main", live, "main")
    try:
        while not backup.done:
            remaining = backup.remaining
            backup.step(_STEP_PAGES)
            written = source.journal_state() != journal
            if not backup.done and (written or 0 < remaining <= backup.remaining):
                return False
    finally:
        backup.close(True)  # forced: it would else raise once more what its last step met
    return True
