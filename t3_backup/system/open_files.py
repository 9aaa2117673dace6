"""Find who has a file open: by what stat(2) says of each descriptor in /proc.

Nothing of a user's is opened for it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from t3_backup.system.file_identity import FileIdentity
from t3_backup.text import printable

_PATIENCE_S = 2.0
_POLL_S = 0.05
_MOST = 5


def describe_holders(*files: FileIdentity) -> str:
    """Name the processes that have one of `files` open: `pid 4711 (sqlite3 FILE)`.

    Empty where none is to be seen. One that is just about to open it is waited for. Without root's
    rights one sees one's own alone.
    """
    wanted = {(file.device, file.inode) for file in files}
    if not wanted:
        return ""
    until = time.monotonic() + _PATIENCE_S
    while not (found := list(_holders(wanted))) and time.monotonic() < until:
        time.sleep(_POLL_S)
    more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return ", ".join(found[:_MOST] + more)


def _holders(wanted: Collection[tuple[int, int]]) -> Iterator[str]:
    for process in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if process != os.getpid() and _has_open(process, wanted):
            yield f"pid {process} ({_command(process)})"


def _has_open(process: int, wanted: Collection[tuple[int, int]]) -> bool:
    folder = f"/proc/{process}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                status = os.stat(f"{folder}/{name}")  # of the open file: no name is looked up
                if (status.st_dev, status.st_ino) in wanted:
                    return True
    return False


def _command(process: int) -> str:
    try:
        line = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return "it has ended"
    return printable(line.replace(b"\0", b" ").decode(errors="replace").strip(), 120)
