"""Copy one of the live databases, which is whole in its one file.

The copy shares its extents where the file system can do so.
"""

from __future__ import annotations

import time

from t3_backup.system import native
from t3_backup.worker.child import sandbox
from t3_backup.worker.child.header import clear_wal_flag
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.backup import Copied
from t3_backup.worker.operations.restore import CloneDatabase
from t3_backup.worker.sources import Source


def serve_clone_database(task: Task, operation: CloneDatabase) -> Copied:
    """Copy the live database into the job's file."""
    place = LiveFiles.of(task.job)
    task.report(Source(operation.old.bytes, 0))
    sandbox.limit_file_size(operation.old.bytes)
    return clone_database(place, operation, task.job.file)


def clone_database(place: LiveFiles, operation: CloneDatabase, file: int) -> Copied:
    """Copy the state that the operation names into the empty `file`.

    It shares its extents where the file system can. Raises InUse, OSError.
    """
    began, old = time.monotonic(), operation.old
    with place.hold_lease(operation.database) as lease:
        lease.require_same(old)
        native.copy(lease.fd, file, old.bytes)
        lease.require_held()
    clear_wal_flag(file)
    return Copied("clone", old.bytes, 0, 0, time.monotonic() - began, operation.census, None, None)
