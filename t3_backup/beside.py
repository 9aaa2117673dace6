"""Bring back what was beside a database: unpacked next to the live one, then put in its place name by name, as its owner.

Both the new and the old lie in one folder meanwhile: `new/NAME` until it is in place, `old/NAME` from then on. Each step is a
rename, and says by itself how far it is: whatever was interrupted is gone on with.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable

from t3_backup import copier
from t3_backup.pack import KEPT
from t3_backup.place import Place
from t3_backup.protocol import Inspected
from t3_backup.unpack import unpack

ENDING = ".files"


def unpack_beside(place: Place, file: int, aside: str, limit: int, alive: Callable[[int], None]) -> Inspected:
    """Unpack the archive `file` beside the live database; nothing is in place yet. Durable. Raises SourceError, OSError."""
    name = aside + ENDING
    os.mkdir(name, 0o700, dir_fd=place.folder)
    for part in ("new", "old"):
        os.mkdir(f"{name}/{part}", 0o700, dir_fd=place.folder)
    new = _open(place, f"{name}/new")
    try:
        found = unpack(file, new, limit, alive)
    finally:
        os.close(new)
    _sync(place, name)
    place.sync()
    return found


def swap(place: Place, aside: str, *, install: bool, keep: bool) -> int:
    """Put what was unpacked in place and take away what it took the place of, or else take it away itself; again is harmless.

    `keep`: what it took the place of stays, in the folder `aside`.files/old. How many names stay there.
    """
    name = aside + ENDING
    if not place.has(name):
        return 0
    if install:
        for kept in KEPT:
            _install(place, name, kept)
        _sync(place, name)
        place.sync()
    stay = [kept for kept in KEPT if place.has(f"{name}/old/{kept}")] if install and keep else []
    _remove(place, f"{name}/new" if stay else name)
    place.sync()
    return len(stay)


def _install(place: Place, name: str, kept: str) -> None:
    new, old = f"{name}/new/{kept}", f"{name}/old/{kept}"
    if not place.has(new):
        return  # it is in place, or there was none
    if place.has(kept) and not place.has(old):
        _rename(place, kept, old)
    _rename(place, new, kept)


def _rename(place: Place, source: str, target: str) -> None:
    """A folder that its owner may not write to can't be moved: it would have to say where it lies."""
    status = os.stat(source, dir_fd=place.folder, follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    closed = stat.S_ISDIR(status.st_mode) and not mode & stat.S_IWUSR
    if closed:
        os.chmod(source, mode | stat.S_IWUSR, dir_fd=place.folder)
    os.rename(source, target, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    if closed:
        os.chmod(target, mode, dir_fd=place.folder)


def _open(place: Place, path: str) -> int:
    return copier.open_beneath(place.folder, path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(place: Place, name: str) -> None:
    for path in (f"{name}/new", f"{name}/old", name):
        if place.has(path):
            fd = _open(place, path)
            try:
                copier.sync_directory(fd, path)
            finally:
                os.close(fd)


def _remove(place: Place, name: str) -> None:
    """A tree, whose folders may be closed to their owner; nothing outside is reached through it."""
    if not place.has(name):
        return

    def again(_: object, path: str, __: object) -> None:
        raise OSError(f"{place.path.parent / path} can't be removed")

    _open_up(place, name)
    shutil.rmtree(name, dir_fd=place.folder, onerror=again)


def _open_up(place: Place, name: str) -> None:
    os.chmod(name, 0o700, dir_fd=place.folder)
    fd = _open(place, name)
    try:
        folders = [entry.name for entry in os.scandir(fd) if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)
    for folder in folders:
        _open_up(place, f"{name}/{folder}")
