"""Put what was unpacked beside a database in its place, name by name, as its owner.

Both the new and the old lie in one folder meanwhile: `new/NAME` until it is in place, `old/NAME`
from then on, and `gone/NAME` once it is known that an archive gives it back. Each step is a rename,
and says by itself how far it is: whatever was interrupted is gone on with.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat

from t3_backup.errors import explain
from t3_backup.system import native
from t3_backup.t3.files import KEPT_FILES
from t3_backup.worker.child.archive_walk import explain_unfit, mark_entries, top_name, walk_entries
from t3_backup.worker.child.live_files import STAGED_FILES, LiveFiles
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.archive import InstallArchive, Installed
from t3_backup.worker.protocol import shorten_list

# What says that a name can't be moved by its user: the folder is another's, or immutable, or
# something is mounted there.
_FIXED = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV)


def serve_install_archive(task: Task, operation: InstallArchive) -> Installed:
    """Put it in place, or remove it."""
    place = LiveFiles.of(task.job)
    return install_archive(
        place, operation.aside, install=operation.install, sealed=operation.sealed
    )


def install_archive(
    place: LiveFiles, aside: str, *, install: bool, sealed: dict[str, str]
) -> Installed:
    """Put what was unpacked in its place, or else take it away; again is harmless.

    What it takes the place of goes where it is, to the last entry, what `sealed` says is in an
    archive: its marks (`marks`) by name. All else stays out of place, since nothing could give it
    back. What can't be moved stays where it is.
    """
    name = aside + STAGED_FILES
    reasons, missing = list[str](), list[str]()
    if place.has(name):
        for part in ("new", "old", "gone"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{name}/{part}", 0o700, dir_fd=place.folder)
        for kept in KEPT_FILES if install else ():
            if (why := _install(place, aside, kept)) is not None:
                missing.append(
                    f"{kept} could not be put back, since what is there can't be moved: {why}"
                )
        place.sync_staged_files(name)
        place.sync()
        _part_old(place, name, sealed, reasons)
        if not missing:
            _remove(place, f"{name}/new", reasons)
        _remove(place, f"{name}/gone", reasons)
        for empty in (f"{name}/old", name):  # which one that is not empty stays
            with contextlib.suppress(OSError):
                os.rmdir(empty, dir_fd=place.folder)
        place.sync()
    left = [f"{name}/{part}" for part in ("old", "new", "gone") if place.has(f"{name}/{part}")]
    for other in sorted(
        other
        for other in os.listdir(place.folder)
        if other.startswith(f"{aside}.") and other != name
    ):
        why = explain_unfit(os.stat(other, dir_fd=place.folder, follow_symlinks=False), place.uid)
        reasons.append(
            f"{other.removeprefix(f'{aside}.')} stays next to the new one: "
            f"{why or 'it can only get another name'}"
        )
        left.append(other)
    return Installed(tuple(left), tuple(reasons), tuple(missing))


def _install(place: LiveFiles, aside: str, kept: str) -> str | None:
    """Why what was unpacked is not in place; None: it is, or there was none. Raises OSError."""
    new = f"{aside}{STAGED_FILES}/new/{kept}"
    while place.has(new):
        if place.has(kept):
            try:
                _set_aside(place, aside, kept)
            except OSError as error:
                if error.errno in _FIXED:
                    return explain(error)
                raise
        with contextlib.suppress(FileExistsError):  # somebody has made one in between
            _rename(place, new, kept)
    return None


def _set_aside(place: LiveFiles, aside: str, kept: str) -> None:
    """Into the folder of the old ones.

    A folder that its user may not write to can only get another name where it is.
    """
    try:
        _rename(place, kept, _free(place, f"{aside}{STAGED_FILES}/old/{kept}"))
    except OSError as error:
        if error.errno not in _FIXED:
            raise
        _rename(place, kept, _free(place, f"{aside}.{kept}"))


def _free(place: LiveFiles, name: str) -> str:
    """`name`, or one like it that nothing has."""
    names = (f"{name}.{number}" if number else name for number in itertools.count())
    return next(one for one in names if not place.has(one))


def _rename(place: LiveFiles, source: str, target: str) -> None:
    """A folder that its owner may not write to can't be moved: it would have to say where it lies.

    Raises OSError.
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


def _part_old(place: LiveFiles, name: str, sealed: dict[str, str], reasons: list[str]) -> None:
    """Move what is as it was sealed from `old` to `gone`, of which nothing needs to stay.

    `reasons` hears why the rest stays.
    """
    old = _open(place, f"{name}/old")
    try:
        passed: list[str] = []
        entries = sorted(walk_entries(old, place.uid, passed), key=lambda entry: entry.path)
        found = mark_entries(entries, passed)
        for kept in sorted(os.listdir(old)):
            if kept in found and found[kept] == sealed.get(kept):
                _rename(place, f"{name}/old/{kept}", _free(place, f"{name}/gone/{kept}"))
            else:
                why = [told for told in passed if top_name(told) == kept]
                changed = "it is not what was sealed" if kept in sealed else "it was not sealed"
                reasons.append(f"{kept} stays next to the new one: {shorten_list(why) or changed}")
    finally:
        os.close(old)


def _open(place: LiveFiles, path: str) -> int:
    return native.open_beneath(place.folder, path, os.O_RDONLY | os.O_DIRECTORY)


def _remove(place: LiveFiles, name: str, reasons: list[str]) -> None:
    """A tree, whose folders may be closed to their owner; nothing outside is reached through it.

    What can't be removed stays.
    """
    try:
        _open_up(place, name)
        shutil.rmtree(name, dir_fd=place.folder)
    except (OSError, RecursionError) as error:
        why = explain(error) if isinstance(error, OSError) else "its folders are too deep"
        reasons.append(f"{name} could not be removed: {why}")


def _open_up(place: LiveFiles, name: str) -> None:
    os.chmod(name, 0o700, dir_fd=place.folder)
    fd = _open(place, name)
    try:
        folders = [entry.name for entry in os.scandir(fd) if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)
    for folder in folders:
        _open_up(place, f"{name}/{folder}")
