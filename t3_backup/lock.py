"""One run at a time: a flock on the store's own directory.

The kernel frees it when its holder dies, so no stale file can stop backups for months; and since the directory is
root's with mode 0700, no user can hold it. A reader (verify) takes the same lock shared.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from t3_backup.errors import LockHeld, StoreError

_POLL_S = 0.1
GAP_S = 3 * _POLL_S  # whoever holds it again and again leaves it for so long in between, that others get their turn


def acquire(directory: int, path: Path, *, shared: bool = False, wait: float) -> None:
    """Lock the open `directory` (a descriptor of `path`), waiting at most `wait` seconds; held until it is closed.

    Raises LockHeld, naming who holds it, and StoreError where `path` is no longer that directory.
    """
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(directory, operation)
            break
        except BlockingIOError:
            if time.monotonic() >= until:
                raise LockHeld(f"{path} is in use by {_holder(directory)}; try again later") from None
            time.sleep(_POLL_S)
    # Between open and flock somebody may have renamed the store away: a lock on what is no longer there protects nothing.
    try:
        same = os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(directory))
    except FileNotFoundError:
        same = False
    if not same:
        raise StoreError(f"{path} was replaced while it was being locked; try again")


def release(directory: int) -> None:
    """Unlock the open `directory`."""
    fcntl.flock(directory, fcntl.LOCK_UN)


def _holder(directory: int) -> str:
    """Who holds the lock, from /proc/locks (proc(5)); 'another run' where the kernel doesn't say."""
    status = os.fstat(directory)
    suffix = f":{status.st_ino}"
    try:
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()  # 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END
            if fields[1] == "FLOCK" and fields[5].endswith(suffix):
                pid = fields[4]
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"pid {pid} ({command})"
    except (OSError, IndexError):
        pass
    return "another run"
