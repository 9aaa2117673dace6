"""One run at a time: a flock on the store's own directory.

The kernel frees it when its holder dies, so no stale file can stop backups for months; and since
the directory is root's with mode 0700, no user can hold it. A reader (verify) takes the same lock
shared.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from t3_backup.errors import LockHeld, StoreError
from t3_backup.system import signals
from t3_backup.system.deadline import Deadline

WAIT_S = 5.0  # for whoever holds it, before a command says who that is and gives up
_PAUSE_S = 60.0  # for a proof that was asked to pause: it reads no more than it has begun to
_POLL_S = 0.1
# in the environment of a command: a descriptor by which its caller holds the store
INHERITED = "T3_BACKUP_LOCK_FD"
# whoever holds it again and again leaves it for so long in between, that others get their turn
GAP_S = 3 * _POLL_S


def acquire(
    directory: int, path: Path, *, shared: bool = False, wait: float, urgent: bool = False
) -> None:
    """Lock the open `directory`, a descriptor of `path`, until it is closed.

    Waits at most `wait` seconds. An `urgent` one asks a proof that holds it to pause, and waits
    until it has let go. Raises LockHeld, naming who holds it, and StoreError where `path` is no
    longer that directory.
    """
    if _is_inherited(directory):
        return
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline, asked = Deadline.after(wait), set[int]()
    while True:
        try:
            fcntl.flock(directory, operation)
            break
        except BlockingIOError:
            if urgent and (now := _ask_to_pause(directory, asked)):
                asked |= now
                deadline = Deadline.after(_PAUSE_S)
            if deadline.passed():
                raise LockHeld(
                    f"{path} is in use by {_holder(directory)}; try again later"
                ) from None
            time.sleep(_POLL_S)
    # Between open and flock somebody may have renamed the store away: a lock on what is no longer
    # there protects nothing.
    try:
        same = os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(directory))
    except FileNotFoundError:
        same = False
    if not same:
        raise StoreError(f"{path} was replaced while it was being locked; try again")


def _is_inherited(directory: int) -> bool:
    """Tell whether this command's caller holds the open `directory`, by an inherited descriptor."""
    text = os.environ.get(INHERITED, "")
    with contextlib.suppress(OSError, ValueError, OverflowError):
        held = int(text)
        if os.path.samestat(os.fstat(held), os.fstat(directory)):
            # at once where it is the caller's; else it is nobody's, or another's
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def release(directory: int) -> None:
    """Unlock the open `directory`."""
    fcntl.flock(directory, fcntl.LOCK_UN)


def is_held(directory: int) -> bool:
    """Tell whether the open `directory` is held exclusively.

    The lock is not tried: that could cost a run its turn.
    """
    return any(kind == "WRITE" for kind, _ in _holders(directory))


def _ask_to_pause(directory: int, asked: set[int]) -> set[int]:
    """Ask each reader once to pause; return those who were asked now, and do."""
    readers = {int(pid) for kind, pid in _holders(directory) if kind == "READ"}
    return {pid for pid in readers - asked if signals.ask_to_pause(pid)}


def _holder(directory: int) -> str:
    """Who holds the lock; 'another run' where the kernel doesn't say."""
    for _, pid in _holders(directory):
        try:
            command = (
                Path(f"/proc/{pid}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")
                .strip()
            )
        except OSError:
            break
        return f"pid {pid} ({command})"
    return "another run"


def _holders(directory: int) -> Iterator[tuple[str, str]]:
    """How it is locked (READ or WRITE) and by which pid, from /proc/locks (proc(5)).

    Nothing where that can't be read.
    """
    with contextlib.suppress(OSError, IndexError):
        text = Path("/proc/locks").read_text(encoding="ascii")
        status = os.fstat(directory)
        yield from parse_flocks(text, status.st_dev, status.st_ino)


def parse_flocks(text: str, device: int, inode: int) -> Iterator[tuple[str, str]]:
    """Find how a directory is locked and by which pid in the text of /proc/locks. Pure.

    Inodes of other disks have the same numbers. Where stat(2) has a number of its own for the disk
    (of major 0: btrfs, overlayfs), the inode alone says it. Raises IndexError.
    """
    major, minor = os.major(device), os.minor(device)
    where = f"{major:02x}:{minor:02x}:{inode}"
    for line in text.splitlines():
        fields = line.split()  # 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END
        if fields[1] == "FLOCK" and (
            fields[5] == where if major else fields[5].endswith(f":{inode}")
        ):
            yield fields[3], fields[4]
