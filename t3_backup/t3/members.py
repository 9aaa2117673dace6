"""List the processes beneath a T3 server, by its control group.

What is read of /proc are texts: root follows nothing in a home by it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from t3_backup.system.proc_files import parse_start
from t3_backup.t3.running_program import read_running_program
from t3_backup.text import printable

_CGROUPS = Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK")  # a second, as /proc counts them
_ENDED = ("Z", "X")


class Member(NamedTuple):
    """A process beneath a server; a pid may be another one's later, with another start."""

    pid: int
    start: str  # in ticks since the boot
    program: Path | None  # what it runs, as it was called; None where that isn't told

    @property
    def age(self) -> float:
        """Say for how many seconds it has been there."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(self.start) / _TICKS

    def is_there(self) -> bool:
        """Tell whether this very process is still there."""
        return _read_start(self.pid) == self.start


def list_pids(group: str) -> list[int]:
    """List the processes of a control group, and of those beneath it."""
    if not group.startswith("/") or group == "/":
        return []
    found: set[int] = set()
    for path in (_CGROUPS / group.lstrip("/")).rglob("cgroup.procs"):
        with contextlib.suppress(OSError):  # it has gone in between
            found |= set(map(int, path.read_text(encoding="ascii").split()))
    return sorted(found)


def read_member(pid: int) -> Member | None:
    """Read which process this is, and what it runs; None where it has ended."""
    start = _read_start(pid)
    return Member(pid, start, read_running_program(pid)) if start else None


def describe_process(pid: int) -> str:
    """Name a process for people."""
    name = "a process"
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return f"{printable(name)} (pid {pid})"


def _read_start(pid: int) -> str:
    """Read when a process began; empty where it has ended, awaited by its parent or not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state = text.rpartition(")")[2].split()[0]
        return "" if state in _ENDED else parse_start(text)
    except (OSError, IndexError):
        return ""
