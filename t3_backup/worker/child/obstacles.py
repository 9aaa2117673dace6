"""Find what in a home keeps anybody from opening or writing to a database there.

It is a look, which opens nothing: closing a descriptor of the database would drop SQLite's locks.
Runs as the owner, and says which command mends it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping

from t3_backup.system.access import may_access
from t3_backup.text import quote
from t3_backup.worker.child.source import LiveDatabase

_SHARED = ("-shm", "-wal", "-journal")  # whoever opens a database reads and writes them
_READ_WRITE = os.R_OK | os.W_OK


def find_obstacle(source: LiveDatabase) -> str:
    """Say why a database can't be opened, or written to, by its owner; empty: nothing is seen."""
    try:
        return _find_obstacle(source)
    except OSError as error:
        return f"{os.path.dirname(source.path)}: {error.strerror}"


def _find_obstacle(source: LiveDatabase) -> str:
    room = os.fstatvfs(source.folder)
    if not _may(source, source.name, os.R_OK):
        return f"its owner may not read it; next: chmod u+rw {quote(source.path)}"
    if room.f_flag & os.ST_RDONLY:
        return "the disk of the home is mounted read-only"
    if unusable := _find_unusable(source):
        return _explain_unusable(source, unusable)
    if not _may(source, ".", os.W_OK | os.X_OK):
        folder = os.path.dirname(source.path)
        return f"its owner may not write to its folder; next: chmod u+wx {quote(folder)}"
    if room.f_blocks and not room.f_bavail:
        return "the disk of the home is full; next: make room on it"
    if room.f_files and not room.f_favail:
        return "the disk of the home is full: it has no inode left; next: remove files there"
    return ""


def _find_unusable(source: LiveDatabase) -> dict[str, int]:
    """Find the files that all who open a database share, and its owner may not; with their uid."""
    found = {}
    for name in (source.name + ending for ending in _SHARED):
        with contextlib.suppress(FileNotFoundError):
            owner = os.stat(name, dir_fd=source.folder, follow_symlinks=False).st_uid
            if not _may(source, name, _READ_WRITE):
                found[name] = owner
    return found


def _explain_unusable(source: LiveDatabase, unusable: Mapping[str, int]) -> str:
    me, folder = os.geteuid(), os.path.dirname(source.path)
    foreign = [name for name, owner in unusable.items() if owner != me]
    names = foreign or [*unusable]
    if not foreign and not _may(source, source.name, _READ_WRITE):
        names.insert(0, source.name)  # SQLite gives them its mode
    told = ", ".join([*names[:-2], " and ".join(names[-2:])])
    paths = " ".join(quote(os.path.join(folder, name)) for name in names)
    if not foreign:
        return f"its owner may not read and write {told}; next: chmod u+rw {paths}"
    owner = _name_of(unusable[foreign[0]])
    belong = "belongs" if len(foreign) == 1 else "belong"
    return f"{told} {belong} to {owner}; next: chown {_name_of(me)}: {paths}"


def _may(source: LiveDatabase, name: str, mode: int) -> bool:
    return may_access(source.folder, name, mode)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
