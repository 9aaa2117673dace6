"""What a child has while it serves one operation.

That is its job, the database that was found, and the way to report to the parent.
"""

from __future__ import annotations

import _thread
import os
import time
from typing import TYPE_CHECKING

from t3_backup.errors import Failure, SourceAbsent, SourceError, WorkerLost
from t3_backup.worker.operations import Job
from t3_backup.worker.protocol import CHANNEL, MAX_LINE, Event, Progress, encode_event

if TYPE_CHECKING:  # not every operation has a use for it
    from t3_backup.worker.child.home_watch import HomeWatch
    from t3_backup.worker.child.source import LiveDatabase

_PAUSE_S = 0.5  # between two signs of life


class Task:
    """One operation that is being served."""

    def __init__(self, job: Job) -> None:
        """Begin without a database; who finds one sets it."""
        self.job = job
        self.sources: tuple[LiveDatabase, ...] = ()
        self.held: frozenset[str] = frozenset()  # names of databases that T3's servers have open
        self.files: dict[str, int] = {}  # by database: the descriptor that it is copied into
        self.watch: HomeWatch | None = None
        self._reports = _thread.allocate_lock()  # a line is never cut by another
        self._began = self._reported = time.monotonic()

    def database(self, name: str) -> LiveDatabase:
        """Return the database of that name, which was found before. Raises SourceAbsent."""
        for source in self.sources:
            if source.name == name:
                return source
        raise SourceAbsent(f"no {name}")

    def seconds_left(self) -> float:
        """Return the seconds that are left of the job's."""
        return self.job.seconds - (time.monotonic() - self._began)

    def receive_files(self) -> None:
        """Receive a file for each database that was found, in their order.

        Raises WorkerLost where they don't come. It comes before the filter of system calls.
        """
        import socket  # noqa: PLC0415 - a worker that only proves starts faster without it

        with socket.socket(fileno=os.dup(CHANNEL)) as channel:
            channel.setblocking(True)
            _, files, _, _ = socket.recv_fds(channel, 1, len(self.sources))
        if len(files) != len(self.sources):
            raise WorkerLost("the files to copy into did not come")
        self.files = {one.name: fd for one, fd in zip(self.sources, files, strict=True)}

    def report(self, event: Event | Failure) -> None:
        """Send one event to the parent. Raises OSError, and SourceError where it is too long."""
        data = encode_event(event)
        if len(data) > MAX_LINE:
            why = f"what is to be told of them takes {len(data)} bytes, more than {MAX_LINE}"
            raise SourceError(f"the names of the tables are too many or too long: {why}")
        with self._reports:
            while data:
                data = data[os.write(CHANNEL, data) :]

    def report_alive(self, done: int) -> None:
        """Report that so many bytes are done, unless that was a moment ago.

        The parent ends a child that shows no sign of life.
        """
        if time.monotonic() - self._reported > _PAUSE_S:
            self._reported = time.monotonic()
            self.report(Progress(done, done))
