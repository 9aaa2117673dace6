"""Let one command of t3-autoupdate run at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from t3_backup.autoupdate.gate import sandbox
from t3_backup.autoupdate.programs import npm
from t3_backup.autoupdate.programs.installations import Installations
from t3_backup.store import lock

_LOCK = ".lock"  # no user's name begins so
_WAIT_S = 5.0


@contextlib.contextmanager
def hold_lock(root: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[bool]:
    """Keep other commands waiting, and remove what a dead one left of a trial or of npm.

    Tell whether npm was interrupted, which `say` hears of.
    Raises LockHeld, Failure and OSError.
    """
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Everybody may open the folder of the programs, and who can open a folder can lock it for ever:
    # with it, each account that is down would stay so. So the lock has a folder of its own.
    folder = root / _LOCK
    folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        lock.acquire(fd, folder, wait=_WAIT_S)
        sandbox.remove_leftovers()
        interrupted = npm.remove_interrupted(say)
        Installations(root).remove_unfinished()
        yield interrupted
    finally:
        os.close(fd)
