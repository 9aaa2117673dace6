"""The folder for what can't lie in the store: root's in /var/lib, everybody else's in their home.

It is private, as the store is. Who reads there makes sure that it was written by oneself.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from t3_backup import accounts
from t3_backup.errors import StoreError
from t3_backup.store.private_folder import check_private, open_own_folder

VARIABLE = "T3_BACKUP_STATE"  # in the environment: another folder, for tests
_ROOTS = "/var/lib/t3-backup"
_OWN = ".local/state/t3-backup"  # beneath the home

# What says that a disk takes nothing more: it is read-only, full, or failing.
TAKES_NOTHING = (
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)


def state_folder() -> Path:
    """Return the folder of what is kept outside of the store; it need not be there."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(_ROOTS) if os.geteuid() == 0 else accounts.own().home / _OWN


@contextlib.contextmanager
def opened(name: str, *, create: bool = False) -> Iterator[int | None]:
    """Open a folder in it; None where there is none of one's own.

    It is made private where it is to be created. Raises StoreError and OSError where that can't be.
    """
    path = state_folder() / name
    if create:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    try:
        fd = open_own_folder(path, path)
    except StoreError:
        if create:
            raise
        yield None
        return
    try:
        if create:
            check_private(fd, path, mend=True)
        yield fd
    finally:
        os.close(fd)
