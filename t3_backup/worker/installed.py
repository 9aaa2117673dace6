"""Notice that the files of this package were replaced since the command began.

A worker imports them anew: after an upgrade it is of another version than the command that starts
it, and may be asked for what it does not know. So none is started any more, but those that end a
restore: a server would else stay down until the next command.
"""

from __future__ import annotations

import os
from pathlib import Path

from t3_backup.errors import Upgraded

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = ("", "system", "store", "t3", "worker", "worker/child", "worker/operations")

Identity = tuple[int, int]  # inode and time of change: dpkg gives each file a new one


def _identify(path: str) -> Identity:
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns


def _identify_all() -> dict[str, Identity]:
    """Identify what a worker may import."""
    folders = (_PACKAGE / name for name in _FOLDERS)
    paths = (os.path.join(folder, name) for folder in folders for name in os.listdir(folder))
    return {path: _identify(path) for path in paths if path.endswith((".py", ".so"))}


_BEGAN = _identify_all()


def is_replaced() -> bool:
    """Tell whether a file is another one than when the command began, or gone."""
    try:
        return any(_identify(path) != before for path, before in _BEGAN.items())
    except OSError:
        return True


def require_same() -> None:
    """Raise Upgraded where a file was replaced."""
    if is_replaced():
        raise Upgraded("t3-backup was upgraded while this ran; next: the same command again")
