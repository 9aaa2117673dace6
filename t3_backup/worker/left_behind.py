"""Know the workers that can't be ended: asleep in the kernel, for a mount that never answers.

A signal reaches such a worker only when the mount answers, or is gone. It is left behind, and its
account gets no other one until then: so there are never more of them than accounts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from t3_backup.accounts import Account, folder_name
from t3_backup.errors import LeftBehind
from t3_backup.store.store import Store
from t3_backup.system.deadline import Deadline
from t3_backup.system.proc_files import parse_mount_points
from t3_backup.text import printable

_ENDING = "+worker"
_PATIENCE_S = 10.0  # for one that has yet to see that its command is gone
_POLL_S = 0.1
_EARLIER = "a worker of an earlier command"
# file systems that answer when somebody else does
_OTHERS = re.compile(r"fuse(blk|\..+)?|nfs\d?|cifs|smb\w+|9p|ceph|afs|coda|lustre|glusterfs")
_left: dict[int, list[subprocess.Popen[bytes]]] = {}  # by uid, of this process
_left_earlier: set[int] = set()  # uids of whom earlier commands have left some


def note_left(account: Account, process: subprocess.Popen[bytes]) -> None:
    """Remember a worker that was killed and has not died."""
    _left.setdefault(account.uid, []).append(process)


def require_none(account: Account) -> None:
    """Raise LeftBehind where a worker of the account is known to be left behind."""
    if account.uid in _left_earlier:
        raise LeftBehind(explain(account, _EARLIER))
    for process in _left.get(account.uid, ()):
        if process.poll() is None:
            raise LeftBehind(explain(account, f"an earlier worker of it (pid {process.pid})"))


@contextlib.contextmanager
def marked(
    store: Store, account: Account, waiting: Callable[[], object] = lambda: None
) -> Iterator[Account]:
    """Return the account with a mark: a descriptor that each of its workers keeps open.

    By that a lock on a file of the store is held until the last of them has died, and a later
    command knows of one that has not. The store's lock is held all the while. Raises LeftBehind
    where an earlier command has left one; one whose command was killed ends by itself, and is
    waited for, which `waiting` is told. Where the store can't have the file, there is no mark.
    """
    name = folder_name(account.user) + _ENDING
    try:
        mark = _open(store, name, os.O_CREAT)
    except OSError:  # full, or read-only
        yield account
        return
    try:
        if not _lock(mark) and not _wait_for(mark, waiting):
            _left_earlier.add(account.uid)
            raise LeftBehind(explain(account, _EARLIER))
        _left_earlier.discard(account.uid)
        yield replace(account, mark=mark)
    finally:
        os.close(mark)
        with contextlib.suppress(OSError):
            mark = _open(store, name)  # anew: a lock is that of all who inherited the descriptor
            try:
                if _lock(mark):
                    os.unlink(name, dir_fd=store.fd)
            finally:
                os.close(mark)


def _wait_for(mark: int, waiting: Callable[[], object]) -> bool:
    """Wait for a while until nobody else has the mark locked; False: somebody still has."""
    waiting()
    deadline = Deadline.after(_PATIENCE_S)
    while not deadline.passed():
        time.sleep(_POLL_S)
        if _lock(mark):
            return True
    return False


def _open(store: Store, name: str, flags: int = 0) -> int:
    flags |= os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o400, dir_fd=store.fd)


def _lock(mark: int) -> bool:
    """Lock the mark; False while somebody else has."""
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)  # else the file system knows no locks
    return True


def explain(account: Account, worker: str) -> str:
    """Say why a worker can't be ended, and what to type."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    base_dir = account.base_dir or account.home
    return explain_by(text, (str(account.home), str(base_dir)), worker)


def explain_by(mountinfo: str, folders: tuple[str, ...], worker: str) -> str:
    """Say it by the text of mountinfo: which file system beneath `folders` may not answer. Pure.

    The one that the folders are on is not to be unmounted for one account.
    """
    what = f"{worker} can't be ended"
    mounts = [one for one in parse_mount_points(mountinfo) if _OTHERS.fullmatch(one.kind)]
    beneath = [one for one in mounts if any(_is_in(one.point, folder) for folder in folders)]
    if beneath:
        points = sorted({one.point for one in beneath})
        kinds = ", ".join(sorted({one.kind for one in beneath}))
        return printable(
            f"{what} while what is mounted there ({kinds}) does not answer; "
            f"next: umount -f -l {shlex.join(points)}"
        )
    above = [one for one in mounts if any(_is_in(folder, one.point) for folder in folders)]
    if above:
        last = max(above, key=lambda one: len(one.point))
        return printable(f"{what} while {last.kind} does not answer; next: see to {last.point}")
    return f"{what}: it waits for a disk; next: journalctl -k"


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
