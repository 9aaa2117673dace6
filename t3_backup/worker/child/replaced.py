"""Remove what a restore has replaced beside a database, as far as an archive gives it back.

Once the new state is in place and its server runs again. `old/NAME` becomes `gone/NAME` where it is
as it was sealed, to the last entry; only what is there is removed. All else stays aside, and so
does what can't be removed: no restore fails by it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from t3_backup.store.replacement import STAGED_FILES
from t3_backup.system import native
from t3_backup.t3.files import KEPT_FILES
from t3_backup.worker.child.archive_install import explain_fixed, free_name, rename
from t3_backup.worker.child.archive_walk import (
    Entry,
    explain_unfit,
    mark_entries,
    top_name,
    walk_entries,
)
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.own_processes import read_descriptor
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.archive import Remains, RemoveReplaced
from t3_backup.worker.protocol import shorten_list

Alive = Callable[[int], None]  # told now and then that it goes on

_PARTS = ("new", "old", "gone")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def serve_remove_replaced(task: Task, operation: RemoveReplaced) -> Remains:
    """Remove it."""
    return remove_replaced(LiveFiles.of(task.job), operation, task.report_alive)


def remove_replaced(place: LiveFiles, operation: RemoveReplaced, alive: Alive) -> Remains:
    """Remove what the operation says is in an archive; again is harmless.

    What was unpacked and is not in place goes, too, unless it was to be. `alive` is called often.
    """
    aside, reasons = operation.aside, list[str]()
    name = aside + STAGED_FILES
    if place.has(name):
        _part_old(place, name, operation.sealed, reasons, alive)
        for part in ("gone",) if operation.installed else ("gone", "new"):
            _remove(place, f"{name}/{part}", reasons, alive)
        for empty in (*(f"{name}/{part}" for part in _PARTS), name):
            with contextlib.suppress(OSError):  # which one that is not empty stays
                os.rmdir(empty, dir_fd=place.folder)
        place.sync()
    left = [f"{name}/{part}" for part in _PARTS if place.has(f"{name}/{part}")]
    for other in _renamed(place, aside):
        why = explain_unfit(os.stat(other, dir_fd=place.folder, follow_symlinks=False), place.uid)
        reasons.append(
            f"{other.removeprefix(f'{aside}.')} stays next to the new one: "
            f"{why or 'it can only get another name'}"
        )
        left.append(other)
    return Remains(tuple(left), tuple(reasons))


def _renamed(place: LiveFiles, aside: str) -> list[str]:
    """What could only get another name where it was."""
    kept = tuple(f"{aside}.{name}" for name in KEPT_FILES)
    return sorted(name for name in os.listdir(place.folder) if name.startswith(kept))


def _part_old(
    place: LiveFiles, name: str, sealed: dict[str, str], reasons: list[str], alive: Alive
) -> None:
    """Move what is as it was sealed from `old` to `gone`, of which nothing needs to stay.

    `reasons` hears why the rest stays.
    """
    if not place.has(f"{name}/old"):
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{name}/gone", 0o700, dir_fd=place.folder)
    old = native.open_beneath(place.folder, f"{name}/old", _FOLDER)
    try:
        passed, entries = list[str](), list[Entry]()
        for entry in walk_entries(old, place.uid, passed):
            entries.append(entry)
            alive(0)
        entries.sort(key=lambda entry: entry.path)
        found = mark_entries(entries, passed)
        for kept in sorted(os.listdir(old)):
            if kept in found and found[kept] == sealed.get(kept):
                rename(place, f"{name}/old/{kept}", free_name(place, f"{name}/gone/{kept}"))
            else:
                why = [told for told in passed if top_name(told) == kept]
                changed = "it is not what was sealed" if kept in sealed else "it was not sealed"
                reasons.append(f"{kept} stays next to the new one: {shorten_list(why) or changed}")
        place.sync_staged_files(name)
    finally:
        os.close(old)


def _remove(place: LiveFiles, name: str, reasons: list[str], alive: Alive) -> None:
    """Remove a folder, or tell why it stays."""
    try:
        if place.has(name):
            _remove_tree(place, name, alive)
    except OSError as error:
        reasons.append(f"{name} could not be removed: {explain_fixed(error)}")


def _remove_tree(place: LiveFiles, name: str, alive: Alive) -> None:
    """Remove a folder whose folders may be closed to their owner, as deep as they may be.

    Nothing outside is reached through it. What can't be removed stays, and costs the rest nothing.
    Raises OSError; EBUSY where something is mounted in it, and then nothing is touched.
    """
    top = native.open_beneath(place.folder, name, _FOLDER)
    try:
        folders = _open_up(top, alive)
        problem: OSError | None = None
        for path in reversed(folders):  # each after those that are in it
            try:
                problem = _empty(top, path, alive) or problem
            except OSError as error:
                problem = error
        if problem is not None:
            raise problem
    finally:
        os.close(top)


def _open_up(top: int, alive: Alive) -> list[str]:
    """List the folders beneath `top`, each before those that are in it, open to their owner."""
    found, mount = ["."], read_descriptor("self", str(top))[1]
    for path in found:
        with contextlib.suppress(OSError):  # it is another's
            os.chmod(path, 0o700, dir_fd=top)
        try:
            fd = native.open_beneath(top, path, _FOLDER)
        except OSError:
            continue  # whoever empties it tells
        try:
            if read_descriptor("self", str(fd))[1] != mount:
                raise _at(OSError(errno.EBUSY, "something is mounted there"), path)
            alive(0)
            with os.scandir(fd) as entries:
                inner = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
                found += [f"{path}/{name}" for name in inner]
        finally:
            os.close(fd)
    return found


def _empty(top: int, path: str, alive: Alive) -> OSError | None:
    """Remove all that is in a folder; why something stays. Raises OSError."""
    fd = native.open_beneath(top, path, _FOLDER)
    problem: OSError | None = None
    try:
        for name in os.listdir(fd):
            try:
                os.unlink(name, dir_fd=fd)
            except IsADirectoryError:
                try:
                    os.rmdir(name, dir_fd=fd)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:  # of which it was told why
                        problem = _at(error, f"{path}/{name}")
            except OSError as error:
                problem = _at(error, f"{path}/{name}")
            alive(0)
        return problem
    finally:
        os.close(fd)


def _at(error: OSError, path: str) -> OSError:
    """Let an error say where it is about."""
    error.filename = path.removeprefix("./")
    return error
