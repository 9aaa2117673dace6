"""Checkpoint a database into its one file, so that nothing of it lies elsewhere when it is swapped.

Opened read-write as its owner, once nobody else has it open; the -wal goes back into the main file
and is gone. What can't be read to the end is left as it is: a -wal without a sound header, a hot
journal, a file that is no database.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import closing

import apsw

from t3_backup.errors import InUse
from t3_backup.store.census import Census
from t3_backup.system.sqlite import NOFOLLOW
from t3_backup.worker.child import census
from t3_backup.worker.child.connection import execute
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.restore import CheckpointDatabase, Checkpointed

_FRAME_HEADER = 24  # bytes
_WAL_HEADER = 32  # bytes (sqlite.org/fileformat.html#walformat)
_WAL_MAGIC = (0x377F0682, 0x377F0683)  # checksums little-endian, big-endian
_WAL_VERSION = 3007000


def serve_checkpoint_database(task: Task, _operation: CheckpointDatabase) -> Checkpointed:
    """Bring all of the live database into its one file."""
    return checkpoint(LiveFiles.open(task.job.home, task.job.uid))


def checkpoint(place: LiveFiles) -> Checkpointed:
    """Checkpoint what is in `place`, or say why that can't be.

    Raises InUse where somebody has it open, SourceRefused, OSError.
    """
    if place.identity() is None:
        left = place.sidecars()
        return Checkpointed(
            None,
            not left,
            f"there is no {place.name}, but {', '.join(left)} of one" if left else "",
            None,
            tuple(left),
        )
    with place.hold_lease() as lease:
        reason = _unreadable(place)
        committed = 0 if reason else _committed_frames(place)
        lease.require_held()
    taken: Census | None = None
    if not reason:
        try:
            taken, reason = _checkpoint(place, committed)
        except (apsw.BusyError, apsw.LockedError):
            raise InUse(f"{place.path} is locked by another process") from None
        except apsw.Error as error:
            reason = f"{place.path} can't be opened: {error}"
    with place.hold_lease():
        place.drop_empty()
        if not reason and (left := place.sidecars()):
            reason = f"{', '.join(left)} remained next to {place.path}"
        place.sync()
        left = place.sidecars()
    return Checkpointed(
        place.identity(), not reason, reason, taken if not reason else None, tuple(left)
    )


def _checkpoint(place: LiveFiles, committed: int) -> tuple[Census | None, str]:
    """Checkpoint it: the census of what is in it then; or why it was left as it is."""
    with closing(
        apsw.Connection(place.path, flags=apsw.SQLITE_OPEN_READWRITE | NOFOLLOW)
    ) as connection:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # which would remove the -wal
        execute(
            connection, "PRAGMA trusted_schema=0", "PRAGMA temp_store=memory", "PRAGMA mmap_size=0"
        )
        # Reading it first makes SQLite use a -wal that is there, whatever the header of the main
        # file says.
        execute(connection, "BEGIN")
        taken = census.take_census(connection, count_rows=False)
        execute(connection, "COMMIT")
        [(_, frames, _)] = connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        seen = max(0, int(str(frames)))  # -1: it is not in WAL mode
        if committed > seen:
            lost = f"SQLite sees {seen} of its {committed} frames, and would pass over the rest"
            return None, f"{place.path}-wal breaks off: {lost}"
        [(busy, _, _)] = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise InUse(f"{place.path} is being read by another process")
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        return taken, ""


def _committed_frames(place: LiveFiles) -> int:
    """How many frames of the -wal belong to its header, up to the last that ends a transaction.

    Their pages are not looked at.
    """
    try:
        fd = os.open(
            f"{place.name}-wal",
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


def _unreadable(place: LiveFiles) -> str:
    """Why SQLite would not see, or could not use, all that is beside the main file.

    Empty where nothing is in the way.
    """
    journal, wal = f"{place.name}-journal", f"{place.name}-wal"
    if place.is_hot(journal):
        return f"{place.path}-journal is a hot journal: its last writer died in a transaction"
    if not place.has_content(wal):
        return ""
    status = os.stat(wal, dir_fd=place.folder, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return f"{place.path}-wal is no regular file"
    try:
        fd = os.open(
            wal, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.folder
        )
    except OSError as error:
        return f"{place.path}-wal can't be read: {error.strerror}"
    try:
        header = os.pread(fd, _WAL_HEADER, 0)
    finally:
        os.close(fd)
    return (
        ""
        if is_wal_header(header)
        else f"{place.path}-wal has no sound header, so SQLite would pass over what is in it"
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
