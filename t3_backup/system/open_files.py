"""Find who has a file open, by the texts of /proc alone: which inode of which mount.

No file of a user's is asked for anything: on a file system of theirs even stat(2) by way of
/proc/PID/fd may never end. Nor is a process's command line read, which is in its own memory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from t3_backup.system.file_identity import ProcFile
from t3_backup.system.proc_files import parse_descriptor, parse_mounts
from t3_backup.text import printable

_PATIENCE_S = 2.0
_POLL_S = 0.05
_MOST = 5


def describe_holders(*files: ProcFile) -> str:
    """Name the processes that have one of `files` open: `pid 4711 (sqlite3)`.

    Empty where none is to be seen. One that is just about to open it is waited for. Without root's
    rights one sees one's own alone.
    """
    wanted = [one for one in files if one.inode and one.device]  # else they can't be told apart
    if not wanted:
        return ""
    until = time.monotonic() + _PATIENCE_S
    while not (found := list(_holders(wanted))) and time.monotonic() < until:
        time.sleep(_POLL_S)
    more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return ", ".join(found[:_MOST] + more)


def _holders(wanted: Collection[ProcFile]) -> Iterator[str]:
    for process in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if process != os.getpid() and _has_open(process, wanted):
            yield f"pid {process} ({_name(process)})"


def _has_open(process: int, wanted: Collection[ProcFile]) -> bool:
    folder = Path(f"/proc/{process}")
    with contextlib.suppress(OSError):
        found = list(_open_inodes(folder, {one.inode for one in wanted}))
        # as the process has its mounts, which may be none of ours
        mounts = parse_mounts(_read(folder / "mountinfo")) if found else {}
        return any(ProcFile(inode, mounts.get(mount, "")) in wanted for inode, mount in found)
    return False


def _open_inodes(folder: Path, inodes: Collection[int]) -> Iterator[tuple[int, str]]:
    """Give inode and mount of each of `inodes` that a process has open."""
    for name in os.listdir(folder / "fdinfo"):
        with contextlib.suppress(OSError):
            inode, mount, is_open = parse_descriptor(_read(folder / "fdinfo" / name))
            if is_open and inode in inodes:
                yield inode, mount


def _name(process: int) -> str:
    try:
        return printable(_read(Path(f"/proc/{process}/comm")).strip())
    except OSError:
        return "it has ended"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")
