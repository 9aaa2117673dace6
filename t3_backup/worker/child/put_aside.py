"""Put one database aside, with what is beside it, as its owner; nothing of it is lost."""

from __future__ import annotations

from t3_backup.errors import SourceAbsent
from t3_backup.store.replacement import Replacement
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.swap import swap_databases
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.restore import PutAside, Swapped


def serve_put_aside(task: Task, operation: PutAside) -> Swapped:
    """Give a database another name, which no T3 looks for."""
    return put_aside(LiveFiles.of(task.job), operation)


def put_aside(place: LiveFiles, operation: PutAside) -> Swapped:
    """Give a database in `place` another name, and what is beside it; durable when this returns.

    Raises SourceAbsent where there is none, InUse where somebody has it open, SourceRefused where
    it is no file of the user's own, OSError.
    """
    old = place.identity(operation.database)
    if old is None:
        raise SourceAbsent(f"no {operation.database}")
    beside = tuple(place.sidecars(operation.database))
    return swap_databases(
        place, operation.aside, [Replacement(operation.database, old, None, beside)]
    )
