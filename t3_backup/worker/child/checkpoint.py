"""Checkpoint databases into their one files, so that nothing lies elsewhere when they are swapped.

Opened read-write as its owner, once nobody else has it open; the -wal goes back into the main file
and is gone. What can't be read to the end is left as it is: a -wal without a sound header, a hot
journal, a file that is no database.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import apsw

from t3_backup.errors import InUse, SourceRefused, explain
from t3_backup.store.census import Census
from t3_backup.system.sqlite import NOFOLLOW
from t3_backup.t3.databases import KNOWN, find_names, name_problem
from t3_backup.worker.child import census
from t3_backup.worker.child.connection import execute, prepare
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.restore import (
    CheckpointDatabases,
    Checkpointed,
    CheckpointedAll,
)

_FRAME_HEADER = 24  # bytes
_WAL_HEADER = 32  # bytes (sqlite.org/fileformat.html#walformat)
_WAL_MAGIC = (0x377F0682, 0x377F0683)  # checksums little-endian, big-endian
_WAL_VERSION = 3007000


def serve_checkpoint_databases(task: Task, operation: CheckpointDatabases) -> CheckpointedAll:
    """Bring all of each live database into its one file."""
    place = LiveFiles.of(task.job)
    return checkpoint_databases(place, operation.databases)


def checkpoint_databases(place: LiveFiles, wanted: Sequence[str]) -> CheckpointedAll:
    """Checkpoint the databases in `place`, those that are `wanted` whether they are there or not.

    Raises InUse where somebody has one that is `wanted` open, SourceRefused where it is no file of
    the user's own, OSError.
    """
    names, others = find_names(place.folder)
    left = [name for name in names if name not in wanted and not name_problem(name)]
    # What changed last, of which a checkpoint would leave nothing to be seen.
    changed = {name: _changed_ns(place, name) for name in (*wanted, *left)}
    found = [checkpoint(place, name) for name in wanted]
    for name in left:
        if name not in KNOWN and not place.has_content(name):
            continue  # an empty file, which is no database
        try:
            found.append(checkpoint(place, name))
        except InUse as error:
            old = place.identity(name)
            found.append(Checkpointed(name, old, False, str(error), None, (), held=True))
        except (SourceRefused, OSError) as error:
            found.append(Checkpointed(name, None, False, explain(error), None, ()))
    for name in names:  # what no ending can be appended to stays where it is
        if name not in wanted and (problem := name_problem(name)):
            why = f"{place.path_of(name)}: {problem}"
            found.append(Checkpointed(name, None, False, why, None, ()))
    return CheckpointedAll(
        tuple(
            replace(
                one,
                changed_ns=changed.get(one.file, 0),
                opened=None if one.old is None else place.proc_file(one.file),
            )
            for one in found
        ),
        tuple(name for name in others if name not in wanted),
    )


def _changed_ns(place: LiveFiles, name: str) -> int:
    return max(place.modified_ns(name), place.modified_ns(f"{name}-wal"))


def checkpoint(place: LiveFiles, name: str) -> Checkpointed:
    """Checkpoint the database `name` in `place`, or say why that can't be.

    Raises InUse where somebody has it open, SourceRefused, OSError.
    """
    path = place.path_of(name)
    if place.identity(name) is None:
        left = place.sidecars(name)
        why = f"there is no {name}, but {', '.join(left)} of one" if left else ""
        return Checkpointed(name, None, not left, why, None, tuple(left))
    with place.hold_lease(name) as lease:
        _drop_unusable(place, name)
        reason = _unreadable(place, name)
        committed = 0 if reason else _committed_frames(place, name)
        sealed = not place.has_content(f"{name}-wal") and not place.is_writable(name)
        lease.require_held()
    taken: Census | None = None
    if not reason:
        try:
            if sealed:
                taken = _read_alone(path)
            else:
                taken, reason = _checkpoint(path, committed)
        except (apsw.BusyError, apsw.LockedError):
            raise InUse(f"{path} is locked by another process") from None
        except apsw.Error as error:
            reason = f"{path} can't be opened: {error}"
    with place.hold_lease(name):
        place.drop_empty(name)
        if not reason and (left := place.sidecars(name)):
            reason = f"{', '.join(left)} remained next to {path}"
        place.sync()
        left = place.sidecars(name)
    whole = not reason
    return Checkpointed(
        name, place.identity(name), whole, reason, taken if whole else None, tuple(left)
    )


def _drop_unusable(place: LiveFiles, name: str) -> None:
    """Remove a -shm, and an empty -wal, that the owner of a database may not use.

    They hold nothing: SQLite makes them anew. Nobody may have the database open.
    """
    for beside in (f"{name}-shm", f"{name}-wal"):
        holds = beside.endswith("-wal") and place.has_content(beside)
        if place.is_file(beside) and not holds and not place.is_writable(beside):
            with contextlib.suppress(OSError):
                place.remove(beside)


def _read_alone(path: str) -> Census:
    """Take the census of what its owner may not write to, and is whole in its one file."""
    escaped = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    uri = f"file:{escaped}?immutable=1"  # else SQLite would have to write beside it
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | NOFOLLOW
    with closing(apsw.Connection(uri, flags=flags)) as connection:
        prepare(connection, "PRAGMA mmap_size=0")
        execute(connection, "BEGIN")
        return census.take_census(connection, count_rows=False)


def _checkpoint(path: str, committed: int) -> tuple[Census | None, str]:
    """Checkpoint it: the census of what is in it then; or why it was left as it is."""
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE | NOFOLLOW)) as connection:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # which would remove the -wal
        prepare(connection, "PRAGMA mmap_size=0")
        # Reading it first makes SQLite use a -wal that is there, whatever the header of the main
        # file says.
        execute(connection, "BEGIN")
        taken = census.take_census(connection, count_rows=False)
        execute(connection, "COMMIT")
        [(_, frames, _)] = connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        seen = max(0, int(str(frames)))  # -1: it is not in WAL mode
        if committed > seen:
            lost = f"SQLite sees {seen} of its {committed} frames, and would pass over the rest"
            return None, f"{path}-wal breaks off: {lost}"
        [(busy, _, _)] = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise InUse(f"{path} is being read by another process")
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        return taken, ""


def _committed_frames(place: LiveFiles, name: str) -> int:
    """How many frames of the -wal belong to its header, up to the last that ends a transaction.

    Their pages are not looked at.
    """
    try:
        fd = os.open(
            f"{name}-wal",
            os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            dir_fd=place.folder,
        )
    except FileNotFoundError:
        return 0
    try:
        header = os.pread(fd, _WAL_HEADER, 0)
        if len(header) < _WAL_HEADER:
            return 0
        page_size, salts = int.from_bytes(header[8:12], "big"), header[16:24]
        committed = number = 0
        offset = _WAL_HEADER
        while (
            len(frame := os.pread(fd, _FRAME_HEADER, offset)) == _FRAME_HEADER
            and frame[8:16] == salts
        ):
            number += 1
            committed = number if frame[4:8] != bytes(4) else committed
            offset += _FRAME_HEADER + page_size
        return committed
    finally:
        os.close(fd)


def _unreadable(place: LiveFiles, name: str) -> str:
    """Why SQLite would not see, or could not use, all that is beside the main file.

    Empty where nothing is in the way.
    """
    journal, wal, path = f"{name}-journal", f"{name}-wal", place.path_of(name)
    if place.is_hot(journal):
        return f"{path}-journal is a hot journal: its last writer died in a transaction"
    if not place.has_content(wal):
        return ""
    status = os.stat(wal, dir_fd=place.folder, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return f"{path}-wal is no regular file"
    try:
        fd = os.open(
            wal, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.folder
        )
    except OSError as error:
        return f"{path}-wal can't be read: {error.strerror}"
    try:
        header = os.pread(fd, _WAL_HEADER, 0)
    finally:
        os.close(fd)
    return (
        ""
        if is_wal_header(header)
        else f"{path}-wal has no sound header, so SQLite would pass over what is in it"
    )


def is_wal_header(header: bytes) -> bool:
    """Tell whether the first bytes of a -wal are those that SQLite would go on from."""
    if len(header) < _WAL_HEADER:
        return False
    magic, version = struct.unpack(">II", header[:8])
    if magic not in _WAL_MAGIC or version != _WAL_VERSION:
        return False
    words = struct.unpack((">" if magic & 1 else "<") + "6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return struct.unpack(">II", header[24:]) == (first, second)
