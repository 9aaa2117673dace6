"""Put what was unpacked beside a database in its place, name by name, as its owner.

Both the new and the old lie in one folder meanwhile: `new/NAME` until it is in place, and
`old/NAME` from then on. Each step is a rename, and says by itself how far it is: whatever was
interrupted is gone on with. Nothing is removed here, and nothing beneath a name is looked at: that
is for later (`replaced`), when the server runs again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat

from t3_backup.errors import explain
from t3_backup.store.replacement import STAGED_FILES
from t3_backup.system import native
from t3_backup.t3.files import KEPT_FILES
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.archive import InstallArchive, Installed

# What says that a name can't be moved by its user: the folder is another's, or immutable, or
# something is mounted there.
_FIXED = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV)
# what whoever moves or removes it has to do first
_FIRST = {errno.EPERM: "if it is immutable: chattr -R -i", errno.EBUSY: "umount it first"}


def serve_install_archive(task: Task, operation: InstallArchive) -> Installed:
    """Put it in place."""
    return install_archive(LiveFiles.of(task.job), operation.aside)


def install_archive(place: LiveFiles, aside: str) -> Installed:
    """Put what was unpacked in its place; again is harmless.

    What it takes the place of goes out of place, whole. What can't be moved stays where it is, and
    what was to come stays in `new`: one name costs no other.
    """
    name, missing = aside + STAGED_FILES, list[str]()
    if not place.has(name):
        return Installed(())
    with contextlib.suppress(OSError):  # it is there, or what is to go into it stays in place
        os.mkdir(f"{name}/old", 0o700, dir_fd=place.folder)
    for kept in KEPT_FILES:
        try:
            _install(place, aside, kept)
        except OSError as error:
            why = explain_fixed(error)
            missing.append(
                f"{kept} could not be put back, since what is there can't be moved: {why}"
            )
    place.sync_staged_files(name)
    place.sync()
    return Installed(tuple(missing))


def _install(place: LiveFiles, aside: str, kept: str) -> None:
    """Let what was unpacked and what is in place change places. Raises OSError."""
    new = f"{aside}{STAGED_FILES}/new/{kept}"
    while place.has(new):
        if place.has(kept):
            _set_aside(place, aside, kept)
        with contextlib.suppress(FileExistsError):  # somebody has made one in between
            rename(place, new, kept)


def _set_aside(place: LiveFiles, aside: str, kept: str) -> None:
    """Into the folder of the old ones.

    A folder that its user may not write to can only get another name where it is.
    """
    try:
        rename(place, kept, free_name(place, f"{aside}{STAGED_FILES}/old/{kept}"))
    except OSError as error:
        if error.errno not in _FIXED:
            raise
        rename(place, kept, free_name(place, f"{aside}.{kept}"))


def explain_fixed(error: OSError) -> str:
    """Say why something can't be moved or removed, and what has to be done first."""
    return explain(error) + (f" ({_FIRST[error.errno]})" if error.errno in _FIRST else "")


def free_name(place: LiveFiles, name: str) -> str:
    """Return `name`, or one like it that nothing has."""
    names = (f"{name}.{number}" if number else name for number in itertools.count())
    return next(one for one in names if not place.has(one))


def rename(place: LiveFiles, source: str, target: str) -> None:
    """Move a name beneath `place`, never over another. Raises OSError.

    A folder that its owner may not write to would have to say where it lies: it may for a moment.
    """
    status = os.stat(source, dir_fd=place.folder, follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    closed = stat.S_ISDIR(status.st_mode) and not mode & stat.S_IWUSR and status.st_uid == place.uid
    if closed:
        os.chmod(source, mode | stat.S_IWUSR, dir_fd=place.folder)
    at = source
    try:
        try:
            native.rename_noreplace(place.folder, source, target)
        except OSError as error:
            if error.errno != errno.EINVAL:  # not every file system knows it
                raise
            os.rename(source, target, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        at = target
    finally:
        if closed:
            os.chmod(at, mode, dir_fd=place.folder)
