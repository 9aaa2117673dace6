"""Report each second what a copy costs the home: the growth of each -wal, and the room left there.

Root asks nothing of a user's file system itself, which may never answer. So a thread of the worker
does, and its silence tells root as much: a worker that was stopped, or a home that hangs.
"""

from __future__ import annotations

import _thread
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.protocol import HomeState

_PAUSE_S = 1.0
_STACK_BYTES = 1 << 18


class HomeWatch:
    """A thread that waits until there is something to watch.

    It is started before the worker becomes the user: after that no thread can be.
    """

    def __init__(self, report: Callable[[HomeState], object]) -> None:
        """Start the thread. Raises RuntimeError where there is none to be had."""
        self._report = report
        self._folder, self._sources = -1, tuple[tuple[LiveDatabase, int], ...]()
        self._begun = _thread.allocate_lock()
        self._begun.acquire()
        before = _thread.stack_size(_STACK_BYTES)
        _thread.start_new_thread(self._run, ())
        _thread.stack_size(before)

    def begin(self, folder: int, sources: Sequence[LiveDatabase]) -> None:
        """Report from now on what becomes of `sources` in the open `folder`."""
        self._folder = folder
        self._sources = tuple((one, one.wal_bytes()) for one in sources)
        self._begun.release()

    def _run(self) -> None:
        self._begun.acquire()
        with suppress(OSError):  # the parent is gone, or the folder: silence says so
            while True:
                self._report(self._look())
                time.sleep(_PAUSE_S)

    def _look(self) -> HomeState:
        """Look at the -wal of each database, and at their file system. Raises OSError."""
        growth = sum(max(0, one.wal_bytes() - before) for one, before in self._sources)
        status = os.fstatvfs(self._folder)
        size = status.f_frsize
        return HomeState(growth, status.f_bavail * size, status.f_blocks * size)
