"""Measure what a command costs: seconds, bytes written, memory of all processes.

Reads /proc (Linux). Memory is sampled, so a peak shorter than some 10 ms can be missed; CPU and
bytes are the kernel's own sums and exact.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_SAMPLE_MS = 10


@dataclass(frozen=True)
class Cost:
    """Of one command, or of several one after the other."""

    wall_s: float
    cpu_s: float  # user and system, of the command and all descendants that were waited for
    written_bytes: int  # that the page cache took for the disk
    peak_anon_bytes: int  # RssAnon, summed over the tree at one moment
    finished: bool  # False: killed at the limit
    # VmRSS, summed alike: what processes share counts for each, and mapped files count, too
    peak_rss_bytes: int = 0

    def then(self, later: Cost) -> Cost:
        """Add `later`, which came after this."""
        return Cost(
            self.wall_s + later.wall_s,
            self.cpu_s + later.cpu_s,
            self.written_bytes + later.written_bytes,
            max(self.peak_anon_bytes, later.peak_anon_bytes),
            self.finished and later.finished,
            max(self.peak_rss_bytes, later.peak_rss_bytes),
        )


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    output: IO[bytes],
    limit_s: float = 600.0,
    pass_fds: Sequence[int] = (),
) -> Cost:
    """Run `command` to its end, or kill it after `limit_s`.

    Both of its streams go to `output`. Raises CalledProcessError if it fails by itself.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    anon, rss, finished = 0, 0, True
    pidfd = os.pidfd_open(process.pid)
    try:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        while not waiting.poll(_SAMPLE_MS):
            now = _tree_bytes(process.pid)
            anon, rss = max(anon, now[0]), max(rss, now[1])
            if finished and time.perf_counter() - began > limit_s:
                finished = False
                os.killpg(process.pid, signal.SIGKILL)
    finally:
        os.close(pidfd)
    wall = time.perf_counter() - began
    # A process that has ended and is not waited for yet has its account, its children's in it.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    written = _written_bytes(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if finished and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return Cost(wall, usage.ru_utime + usage.ru_stime, written, anon, finished, rss)


def _tree_bytes(root: int) -> tuple[int, int]:
    """Sum RssAnon and VmRSS of a process and its descendants."""
    anon, rss, pids = 0, 0, [root]
    while pids:
        pid = pids.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
            for task in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
                pids += map(int, children.split())
        except OSError:
            continue  # it has ended meanwhile
        anon += _field(status, "RssAnon:")
        rss += _field(status, "VmRSS:")
    return anon, rss


def _field(status: str, name: str) -> int:
    _, found, rest = status.partition(name)
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else 0


def _written_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(": ")
        if name == "write_bytes":
            return int(value)
    return 0
