"""Write a snapshot's image beside a live database, as its owner.

So the two can change places in one step.
"""

from __future__ import annotations

import errno
import os
from contextlib import closing

import apsw

from t3_backup.errors import SourceError
from t3_backup.store.census import Census
from t3_backup.system import native
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import NOFOLLOW
from t3_backup.text import quote
from t3_backup.worker.child import census
from t3_backup.worker.child.connection import execute, prepare
from t3_backup.worker.child.live_files import PROBE, LiveFiles
from t3_backup.worker.child.own_processes import read_descriptor
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.restore import Staged, StageDatabase

_MAKE_ROOM = "make room on the disk of the home"
_MEND = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EROFS: "mount the disk of the home so that it can be written to",
}


def serve_stage_database(task: Task, operation: StageDatabase) -> Staged:
    """Write the image in the job's file beside the live database.

    The folders on the way are made where there are none.
    """
    place = LiveFiles.of(task.job, create=True)
    return stage_database(place, task.job.file, operation.database, operation.aside)


def stage_database(place: LiveFiles, image: int, name: str, ending: str) -> Staged:
    """Write what is in the descriptor `image` beside the live database `name`, durably.

    It has the same name, with `ending`. Raises SourceError and OSError, and then nothing is left of
    it.
    """
    live, aside = place.identity(name), name + ending
    try:
        fd = place.create(aside, name, live)
    except OSError as error:
        raise _explain(error, place, name) from None
    try:
        native.copy(image, fd, os.fstat(image).st_size)
        native.sync_file(fd, place.path_of(aside))
        place.sync()
        _require_exchange(place, name, aside, live)
        staged = FileIdentity.of(os.fstat(fd))
        return Staged(live, staged, read_census(place, aside), place.proc_file(name))
    except OSError as error:
        place.remove(aside)
        raise _explain(error, place, name) from None
    except BaseException:
        place.remove(aside)
        raise
    finally:
        os.close(fd)


def _explain(error: OSError, place: LiveFiles, name: str) -> OSError | SourceError:
    """Say what keeps a file from being written there, with what to do, where that is known."""
    mend = f"chmod u+wx {quote(place.folder_path)}"
    if (then := mend if error.errno == errno.EACCES else _MEND.get(error.errno or 0)) is None:
        return error
    what = f"{place.path_of(name)} can't be put back: {error.strerror}"
    return SourceError(f"{what}; nothing was changed; next: {then}")


def _require_exchange(place: LiveFiles, name: str, aside: str, live: FileIdentity | None) -> None:
    """What keeps two names from changing places is found now, while the server runs.

    Raises SourceError.
    """
    probe = aside + PROBE
    os.close(place.create(probe))
    try:
        native.rename_exchange(place.folder, aside, probe)
        native.rename_exchange(place.folder, aside, probe)
    except OSError as error:
        raise SourceError(
            f"{place.folder_path}: the file system can't exchange two files in one step: "
            f"{error.strerror}"
        ) from None
    finally:
        place.remove(probe)
    if live is None:
        return
    try:
        fd = native.open_beneath(place.folder, name, os.O_RDWR | os.O_NONBLOCK)
        try:
            mounts = {read_descriptor("self", str(one))[1] for one in (place.folder, fd)}
        finally:
            os.close(fd)
        if len(mounts) > 1:
            raise SourceError(
                f"{place.path_of(name)} can't be changed: something is mounted there; "
                "next: umount it first"
            )
    except PermissionError as error:
        if error.errno == errno.EPERM:
            raise SourceError(
                f"{place.path_of(name)} can't be changed: it is immutable (lsattr(1)): chattr -i"
            ) from None


def read_census(place: LiveFiles, name: str) -> Census:
    """Take the census, without counts, of a database with nothing beside it.

    It is not in WAL mode. Raises SourceError.
    """
    path = place.path_of(name)
    try:
        with closing(
            apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY | NOFOLLOW)
        ) as connection:
            prepare(connection, "PRAGMA mmap_size=0", "PRAGMA query_only=1")
            execute(connection, "BEGIN")
            return census.take_census(connection, count_rows=False)
    except apsw.Error as error:
        raise SourceError(f"{path} can't be read as a database: {error}") from error
