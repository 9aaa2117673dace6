"""Read from the databases of an account T3's migrations and the turns of agents.

What is told of turns is of the live one: that which the server has open, or else the one that
changed last. The others are told, too, whatever is in them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import apsw

from t3_backup.errors import SourceAbsent, SourceError
from t3_backup.t3.databases import KNOWN, Candidate, DatabaseState, choose_live, find_names
from t3_backup.t3.files import NO_DATABASE
from t3_backup.t3.ledger import LEVEL_QUERY
from t3_backup.t3.open_databases import find_held_names
from t3_backup.t3.tables import TURNS_IN_FLIGHT_QUERIES
from t3_backup.worker.child.census import read_ledger
from t3_backup.worker.child.leased_read import open_live
from t3_backup.worker.child.open_databases import look_at_open_databases
from t3_backup.worker.child.own_processes import identify
from t3_backup.worker.child.source import LiveDatabase, find_folder, find_in_folder
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.unreadable import as_failure
from t3_backup.worker.operations.activity import Activity, ReadActivity

_BUSY_MS = 2000
_LOOK_S = 10.0  # for the look at the account's processes, at most


def serve_read_activity(task: Task, _operation: ReadActivity) -> Activity:
    """Read it from the databases of the task's user."""
    job = task.job
    folder = find_folder(job.home, job.state_folder)
    sources, refused = _find_all(folder, os.path.join(job.home, job.state_folder), job.uid)
    if not any(one.name in KNOWN for one in sources):
        # what lies beside one of T3's own that can't be read is not taken for it
        refused = {name: refused[name] for name in KNOWN if name in refused} or refused
        if refused or not sources:
            raise next(iter(refused.values()), SourceAbsent(NO_DATABASE))
    base_dir = os.path.dirname(os.readlink(f"/proc/self/fd/{folder}"))
    server = [job.server_pid] if job.server_pid else []
    opened = look_at_open_databases(job.uid, job.home, base_dir, _LOOK_S, server)
    inodes = {one.name: one.inode for one in sources}
    held = find_held_names(opened.held, base_dir, inodes, identify(folder)[1])
    return read_activity(sources, held, folder)


def read_activity(sources: Sequence[LiveDatabase], held: frozenset[str], folder: int) -> Activity:
    """Read it from databases in `folder`, of which T3's server has those open that are `held`.

    No lock is taken that a commit waits for. Raises SourceError, TryLater.
    """
    changed = {one.name: one.changed_ns() for one in sources}  # before a reader makes a -wal
    states, junk = [], set()
    for source in sources:
        level, ledger = None, None
        try:
            with open_live(source, mmap=False) as connection:
                ledger = read_ledger(connection)
                level = _query_number(connection, LEVEL_QUERY)
        except apsw.Error:
            junk.add(source.name)
        size = source.size + source.wal_bytes()
        states.append(DatabaseState(source.name, size, source.name in held, level, ledger))
    may_be_live = [one.file for one in states if one.held or one.file not in junk]
    live = choose_live(
        Candidate(name, name in held, changed[name]) for name in may_be_live or changed
    )
    [source] = [one for one in sources if one.name == live]
    level, turns = _read_live(source)
    status = os.fstatvfs(folder)
    return Activity(level, turns, live, tuple(states), status.f_bavail * status.f_frsize)


def _find_all(
    folder: int, where: str, uid: int
) -> tuple[list[LiveDatabase], dict[str, SourceError]]:
    """Find the databases in the open `folder`, and why some can't be read."""
    try:
        names, _ = find_names(folder)
    except OSError as error:
        raise SourceError(f"{where} can't be listed: {error.strerror}") from None
    found, refused = list[LiveDatabase](), dict[str, SourceError]()
    for name in names:
        try:
            one = find_in_folder(folder, where, uid, name)
        except SourceAbsent:  # it has gone in between
            continue
        except SourceError as error:
            refused[name] = error
            continue
        if not one.holds_nothing():
            found.append(one)
    return found, refused


def _read_live(source: LiveDatabase) -> tuple[int | None, int]:
    """Read the level, and the turns by the first query whose tables are there."""
    try:
        with open_live(source, mmap=False) as live:
            live.setbusytimeout(_BUSY_MS)
            found = (_query_number(live, query) for query in TURNS_IN_FLIGHT_QUERIES)
            turns = next((count for count in found if count is not None), 0)
            return _query_number(live, LEVEL_QUERY), max(0, turns)
    except apsw.Error as error:
        raise as_failure(error, source) from error


def _query_number(connection: apsw.Connection, query: str) -> int | None:
    """Ask for one number of a table that may not be there, or be another's."""
    try:
        ((value,),) = connection.cursor().execute(query)
    except apsw.SQLError:
        return None
    return value if isinstance(value, int) else None
