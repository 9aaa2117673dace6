"""Find the live database for a backup, and report it to the parent.

Reported are its sizes, its folder, the databases beside it, and what else is there that is unknown.
"""

from __future__ import annotations

import os
import socket

from t3_backup.errors import SourceError
from t3_backup.t3 import databases, unlisted
from t3_backup.t3.files import STATE_FOLDER
from t3_backup.worker.child import sandbox
from t3_backup.worker.child.source import LiveDatabase, find_folder, find_in_folder
from t3_backup.worker.child.task import Task
from t3_backup.worker.protocol import Source, copy_limit, encode_event


def find_and_report(task: Task) -> LiveDatabase:
    """Find the database of the task's user, and report it.

    Raises as `find_database` does, and OSError. It comes before the filter of system calls, which
    would let no descriptor pass.
    """
    home = task.job.home
    folder = find_folder(home)
    others, unknown = _beside(folder, home)
    try:
        found = find_in_folder(folder, home, task.job.uid)
    except SourceError:
        if others or unknown:
            task.report(Source(0, 0, others, unknown))
        raise
    source = Source(found.size, found.wal_bytes(), others, unknown)
    # The last thing that ever leaves this process by SCM_RIGHTS: an O_PATH descriptor, good for
    # stat alone.
    with socket.socket(fileno=os.dup(task.job.channel)) as channel:
        socket.send_fds(channel, [encode_event(source)], [found.folder])
    size = source.bytes + source.wal_bytes
    sandbox.limit_file_size(size)
    sandbox.limit_memory(copy_limit(size))
    return found


def serve_find_database(_task: Task, _operation: object) -> None:
    """Add nothing: the database was found, and reported, before."""


def _beside(folder: int, home: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List the databases that are not copied, and what is on no list."""
    try:
        return databases.uncovered(folder), unlisted.unlisted(folder)
    except OSError as error:
        where = os.path.join(home, STATE_FOLDER)
        raise SourceError(
            f"{where} can't be listed ({error.strerror}): "
            "what is not backed up there, can't be told"
        ) from None
