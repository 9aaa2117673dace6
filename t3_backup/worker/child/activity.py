"""Read from a live database T3's level and the turns of agents."""

from __future__ import annotations

from contextlib import closing

import apsw

from t3_backup.t3.ledger import LEVEL_QUERY
from t3_backup.t3.tables import TURNS_IN_FLIGHT_QUERIES
from t3_backup.worker.child.connection import as_failure, connect
from t3_backup.worker.child.source import LiveDatabase, find_database
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.activity import Activity, ReadActivity

_BUSY_MS = 2000


def serve_read_activity(task: Task, _operation: ReadActivity) -> Activity:
    """Read it from the live database."""
    return read_activity(find_database(task.job.home, task.job.uid))


def read_activity(source: LiveDatabase) -> Activity:
    """Read it from a live database; no lock is taken that a commit waits for.

    Raises SourceError, TryLater.
    """
    try:
        with closing(connect(source, mmap=False)) as live:
            live.setbusytimeout(_BUSY_MS)
            # of the first query whose tables are there
            found = (_query_number(live, query) for query in TURNS_IN_FLIGHT_QUERIES)
            turns = next((count for count in found if count is not None), 0)
            return Activity(_query_number(live, LEVEL_QUERY), max(0, turns))
    except apsw.Error as error:
        raise as_failure(error, source) from error


def _query_number(connection: apsw.Connection, query: str) -> int | None:
    """Ask for one number of a table that may not be there, or be another's."""
    try:
        ((value,),) = connection.cursor().execute(query)
    except apsw.SQLError:
        return None
    return value if isinstance(value, int) else None
