"""Open a folder that nobody else can change.

What is not one's own and private is refused, with the line that mends it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from t3_backup.errors import StoreError
from t3_backup.system import native

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        native.sync_directory(fd, str(path))
    finally:
        os.close(fd)


def open_own_folder(name: str | Path, path: Path, dir_fd: int | None = None) -> int:
    """Open a folder of one's own.

    Who owns it is asked first: opening another's may take a right that we don't have. Raises
    StoreError, and FileNotFoundError beneath `dir_fd`.
    """
    try:
        unread = os.open(name, os.O_PATH | _FOLDER, dir_fd=dir_fd)
        try:
            _check_owner(unread, path)
            return os.open(".", _FOLDER, dir_fd=unread)
        finally:
            os.close(unread)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and dir_fd is not None:
            raise
        raise StoreError(explain_refusal(path, error)) from None


def explain_refusal(path: Path, error: OSError) -> str:
    """Say why a folder can't be opened, and what to do."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return (
            f"{path} is a symlink or no folder; it is not followed: "
            "remove it, or name another store by --dest"
        )
    if error.errno == errno.ENOENT:
        return (
            f"no store at {path}; "
            "the first run makes it (or name another by --dest or T3_BACKUP_DEST)"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return _not_yours(path)
    return f"{path}: {error.strerror}"


def _not_yours(path: Path) -> str:
    return f"{path} can't be opened by you; choose a store of your own with --dest"


def _check_owner(fd: int, path: Path) -> None:
    owner, me = os.fstat(fd).st_uid, os.geteuid()
    if me not in (owner, 0):
        raise StoreError(_not_yours(path))
    if owner != me:
        raise StoreError(
            f"{path} belongs to uid {owner}, not to uid {me}: "
            "what its owner can change is no backup; "
            f"move it out of the way (mv {path} {path.parent}.{path.name}.old), or, if you have "
            "just copied it here "
            f"yourself, make it yours (chown -R)"
        )


def check_private(fd: int, path: Path, *, mend: bool) -> None:
    """Check that a folder is open to nobody else, or (`mend`) make it so.

    Raises StoreError and OSError.
    """
    status = os.fstat(fd)
    if stat.S_IMODE(status.st_mode) & 0o077:
        if not mend:
            raise StoreError(
                f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); "
                f"if it is the store: chmod 0700 {path}"
            )
        os.fchmod(fd, 0o700)
