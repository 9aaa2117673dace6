"""Find the databases of an account for a backup, and report them to the parent.

Reported are their sizes, their folder, what of them can't be copied, what else is there that is
unknown, and what the account's T3 servers have open: none of that may be missed in silence.
"""

from __future__ import annotations

import os
from dataclasses import replace

from t3_backup.errors import SourceAbsent, SourceError
from t3_backup.t3 import databases, unlisted
from t3_backup.t3.files import NO_DATABASE
from t3_backup.t3.open_databases import find_held_names
from t3_backup.worker.child import sandbox
from t3_backup.worker.child.obstacles import find_obstacle
from t3_backup.worker.child.open_databases import look_at_open_databases
from t3_backup.worker.child.own_processes import identify
from t3_backup.worker.child.source import LiveDatabase, find_folder, find_in_folder
from t3_backup.worker.child.task import Task
from t3_backup.worker.protocol import copy_limit
from t3_backup.worker.sources import Source, SourceDatabase

_LOOK_S = 10.0  # for the look at the account's processes, at most


def find_and_report(task: Task) -> tuple[LiveDatabase, ...]:
    """Find the databases of the task's user, and report them.

    Raises SourceAbsent where there are none, SourceError where none of them can be copied, OSError.
    """
    job = task.job
    where = os.path.join(job.home, job.state_folder)
    try:
        folder = find_folder(job.home, job.state_folder)
    except SourceError:
        task.report(_look(task, Source(0, 0, base_dir=os.path.dirname(where))))
        raise
    names, others, unknown = _list(folder, where)
    usable, found, errors = [], [], list[SourceError]()
    for name in names:
        try:
            one = find_in_folder(folder, where, job.uid, name)
        except SourceAbsent:
            continue  # it has gone in between
        except SourceError as error:
            errors.append(error)
            found.append(SourceDatabase(name, 0, 0, str(error)))
            continue
        if one.holds_nothing():
            continue
        usable.append(one)
        obstacle, size = find_obstacle(one), one.wal_bytes()
        found.append(SourceDatabase(name, one.size, size, inode=one.inode, obstacle=obstacle))
    base_dir = os.path.dirname(os.readlink(f"/proc/self/fd/{folder}"))
    _, device = identify(folder)
    source = Source(0, 0, tuple(found), others, unknown, base_dir, device)
    source = _refuse_too_large(task, _look(task, source))
    there = {one.file for one in source.usable}
    usable = [one for one in usable if one.name in there]
    if not usable:
        task.report(source)
        raise errors[0] if errors else SourceAbsent(NO_DATABASE)
    task.report(source)
    if task.watch is not None:
        task.watch.begin(folder, usable)
    largest = max(one.bytes + one.wal_bytes for one in source.usable)
    sandbox.limit_file_size(largest)
    sandbox.limit_memory(copy_limit(source.bytes + source.wal_bytes))
    return tuple(usable)


def serve_find_database(_task: Task, _operation: object) -> None:
    """Add nothing: the databases were found, and reported, before."""


def _look(task: Task, source: Source) -> Source:
    """Add what T3's servers have open; the task learns which of its databases are among it."""
    job = task.job
    opened = look_at_open_databases(
        job.uid, job.home, source.base_dir, _LOOK_S, [job.server_pid] if job.server_pid else []
    )
    inodes = {one.file: one.inode for one in source.databases}
    task.held = find_held_names(opened.held, source.base_dir, inodes, source.device)
    return replace(source, opened=opened)


def _refuse_too_large(task: Task, source: Source) -> Source:
    """Refuse what the store has no room for, and add up the rest.

    Not what T3 has open, nor what is T3's, nor all there is: for those room is to be made. Any
    other one must not cost them their backup.
    """
    room, found = task.job.room, list[SourceDatabase]()
    for one in source.databases:
        size = one.bytes + one.wal_bytes
        if size > room and one.file not in databases.KNOWN and one.file not in task.held:
            why = f"no room: it needs {size} bytes, and the store has room for {room}"
            found.append(replace(one, bytes=0, wal_bytes=0, problem=why))
        else:
            found.append(one)
    if all(one.problem for one in found):
        found = list(source.databases)
    return replace(
        source,
        bytes=sum(one.bytes for one in found),
        wal_bytes=sum(one.wal_bytes for one in found),
        databases=tuple(found),
    )


def _list(folder: int, where: str) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """List the databases, those that are too many, and what is on no list."""
    try:
        names, others = databases.find_names(folder)
        return names, tuple(others), unlisted.unlisted(folder)
    except OSError as error:
        raise SourceError(
            f"{where} can't be listed ({error.strerror}): "
            "what is not backed up there, can't be told"
        ) from None
