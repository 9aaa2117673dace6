"""Count what is in a live database now."""

from __future__ import annotations

import apsw

from t3_backup.errors import SourceAbsent
from t3_backup.store.census import Census
from t3_backup.t3.files import NO_DATABASE
from t3_backup.worker.child import census
from t3_backup.worker.child.leased_read import open_live
from t3_backup.worker.child.pinned_read import pin_read
from t3_backup.worker.child.source import LiveDatabase, find_database
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.unreadable import as_failure
from t3_backup.worker.operations.restore import Counted, CountRows


def serve_count_rows(task: Task, operation: CountRows) -> Counted:
    """Count the rows of one of the live databases."""
    try:
        source = find_database(
            task.job.home,
            task.job.uid,
            operation.database,
            state_folder=task.job.state_folder,
        )
    except SourceAbsent as error:
        raise SourceAbsent(
            f"no {operation.database}" if str(error) == NO_DATABASE else str(error)
        ) from None
    return Counted(count_rows(source))


def count_rows(source: LiveDatabase) -> Census:
    """Take the census of a live database, rows counted.

    Raises SourceError, TryLater.
    """
    try:
        with open_live(source, mmap=True) as live, pin_read(live):
            return census.take_census(live, count_rows=True)
    except apsw.Error as error:
        raise as_failure(error, source) from error
