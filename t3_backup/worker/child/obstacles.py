"""Find what in a home keeps anybody from opening or writing to a database there.

It is a look, which opens nothing: closing a descriptor of the database would drop SQLite's locks.
Runs as the owner, and says which command mends it.
"""

from __future__ import annotations

import os
import pwd
import shlex

from t3_backup.worker.child.source import LiveDatabase

_SHARED = ("-shm", "-wal")  # whoever opens a database in WAL mode writes to them


def find_obstacle(source: LiveDatabase) -> str:
    """Say why a database can't be opened, or written to, by its owner; empty: nothing is seen."""
    try:
        return _find_obstacle(source)
    except OSError as error:
        return f"{os.path.dirname(source.path)}: {error.strerror}"


def _find_obstacle(source: LiveDatabase) -> str:
    room = os.fstatvfs(source.folder)
    if not _may(source, source.name, os.R_OK):
        return f"its owner may not read it; next: chmod u+rw {shlex.quote(source.path)}"
    if room.f_flag & os.ST_RDONLY:
        return "the disk of the home is mounted read-only"
    for ending in _SHARED:
        if obstacle := _find_shared_obstacle(source, source.name + ending):
            return obstacle
    if not _may(source, ".", os.W_OK | os.X_OK):
        folder = os.path.dirname(source.path)
        return f"its owner may not write to its folder; next: chmod u+wx {shlex.quote(folder)}"
    if room.f_blocks and not room.f_bavail:
        return "the disk of the home is full; next: make room on it"
    if room.f_files and not room.f_favail:
        return "the disk of the home is full: it has no inode left; next: remove files there"
    return ""


def _find_shared_obstacle(source: LiveDatabase, name: str) -> str:
    """Say what is wrong with a file that all who open the database share."""
    try:
        owner = os.stat(name, dir_fd=source.folder, follow_symlinks=False).st_uid
    except FileNotFoundError:
        return ""
    if _may(source, name, os.R_OK | os.W_OK):
        return ""
    path = shlex.quote(os.path.join(os.path.dirname(source.path), name))
    me = os.geteuid()
    if owner == me:
        return f"its owner may not read and write {name}; next: chmod u+rw {path}"
    return f"{name} belongs to {_name_of(owner)}; next: chown {_name_of(me)}: {path}"


def _may(source: LiveDatabase, name: str, mode: int) -> bool:
    return os.access(name, mode, dir_fd=source.folder, effective_ids=True)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
