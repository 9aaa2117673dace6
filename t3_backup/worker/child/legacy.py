"""Find, copy and remove snapshots that an earlier script left in a folder of the user's own.

The folder is reached by a descriptor alone, since the store around it is closed to the user. A
snapshot is read by SQLite through the VFS `t3copy`, immutable: what lay there was no live database.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import apsw

from t3_backup.errors import SourceError, SourceRefused
from t3_backup.store.names import is_sealed_name, legacy_name
from t3_backup.system import native
from t3_backup.worker.child import sandbox
from t3_backup.worker.child.connection import execute, prepare
from t3_backup.worker.child.copy import sqlite_errors
from t3_backup.worker.child.header import clear_wal_flag
from t3_backup.worker.child.pinned_read import Budget, copy_pinned, open_destination
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.vfs import Destination
from t3_backup.worker.operations.backup import Copied
from t3_backup.worker.operations.legacy import CopyLegacy, Listed, ListLegacy, RemoveLegacy
from t3_backup.worker.protocol import CHANNEL, MOST_NAMES, Phase, copy_limit
from t3_backup.worker.sources import Source

_SIDECARS = ("-wal", "-journal")


@dataclass(frozen=True)
class LegacySnapshot:
    """One of them, open for reading."""

    source: LiveDatabase
    file: int

    @property
    def size(self) -> int:
        """Return its bytes."""
        return self.source.size


def serve_list_legacy(task: Task, operation: ListLegacy) -> Listed:
    """List the snapshots in the job's folder."""
    return Listed(list_snapshots(task.job.folder, task.job.uid, operation.after))


def serve_copy_legacy(task: Task, operation: CopyLegacy) -> Copied:
    """Copy one snapshot into the job's file."""
    job = task.job
    with Destination(job.file, CHANNEL) as destination:
        found = open_snapshot(job.folder, operation.name, job.uid)
        try:
            task.report(Source(found.size, 0))
            sandbox.limit_file_size(found.size)
            sandbox.limit_memory(copy_limit(found.size))
            task.report(Phase("copy", found.size))
            return copy_snapshot(
                found, destination, Budget(found.source, job.seconds, job.wal_budget)
            )
        finally:
            os.close(found.file)


def serve_remove_legacy(task: Task, operation: RemoveLegacy) -> Listed:
    """Remove one snapshot."""
    remove_snapshot(task.job.folder, operation.name, task.job.uid, operation.since)
    return Listed((operation.name,))


def list_snapshots(folder: int, uid: int, after: str) -> tuple[str, ...]:
    """List the snapshots in `folder` (an O_PATH descriptor), the newest first.

    They are `MOST_NAMES` at most. Those alone that come after the one called `after`; an empty text
    begins with the newest.

    Raises SourceRefused where others are there that don't belong to `uid`: those are root's,
    sealed. Raises OSError.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        names = os.listdir(fd)
        for name in names:
            if (
                is_sealed_name(name)
                and os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid != uid
            ):
                raise SourceRefused(f"{name} is another's")
    finally:
        os.close(fd)
    now = datetime.now(UTC)
    found = [(parsed.when, name) for name in names if (parsed := legacy_name(name, now))]
    if cursor := legacy_name(after, now):
        found = [one for one in found if one < (cursor.when, after)]
    return tuple(name for _, name in sorted(found, reverse=True)[:MOST_NAMES])


def open_snapshot(folder: int, name: str, uid: int) -> LegacySnapshot:
    """Open the snapshot `name` in `folder`.

    Raises SourceError where it isn't a regular file of `uid`, or of root's (made there by hand),
    that may be read, or where its
    -wal or -journal holds what is not in it.
    """
    try:
        file = native.open_beneath(folder, name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror}") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (uid, 0):
            raise SourceError(f"{name} is no regular file of its user's, nor of root's")
        for sidecar in _SIDECARS:
            if _size(folder, name + sidecar):
                raise SourceError(f"{name} has a {sidecar}, which may hold a part of it")
    except BaseException:
        os.close(file)
        raise
    return LegacySnapshot(LiveDatabase(folder, name, status.st_size), file)


def copy_snapshot(found: LegacySnapshot, destination: Destination, budget: Budget) -> Copied:
    """Copy it into `destination`, which is finished when this returns.

    Raises SourceError, and OSError of the destination.
    """
    began = time.monotonic()
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with (
        sqlite_errors(found.source, destination),
        Destination(found.file) as original,
        closing(apsw.Connection(original.sealed_uri, flags=flags)) as old,
        closing(open_destination(destination)) as copy,
    ):
        # No map of it: the user may cut it short at any time.
        prepare(old, "PRAGMA mmap_size=0", "PRAGMA query_only=1")
        execute(old, "BEGIN")
        taken = copy_pinned(old, copy, budget)
    destination.finish()
    clear_wal_flag(destination.fd)
    destination.finish()
    # The script made them by VACUUM INTO, and what a method leaves out is left out of them.
    return Copied("vacuum", found.size, 0, 0, time.monotonic() - began, taken, None, None)


def remove_snapshot(folder: int, name: str, uid: int, since: float) -> None:
    """Remove the snapshot and what lies beside it.

    Raises SourceError where it was changed at `since` or later, and OSError.
    """
    found = open_snapshot(folder, name, uid)
    try:
        status = os.fstat(found.file)
    finally:
        os.close(found.file)
    if max(status.st_mtime, status.st_ctime) >= since:
        raise SourceError(f"{name} was changed while it was taken over")
    os.unlink(name, dir_fd=folder)
    for sidecar in (*_SIDECARS, "-shm"):  # empty ones, or `open_snapshot` would have refused
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name + sidecar, dir_fd=folder)


def _size(folder: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
