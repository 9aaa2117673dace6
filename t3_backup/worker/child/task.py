"""What a child has while it serves one operation.

That is its job, the database that was found, and the way to report to the parent.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from t3_backup.errors import Failure
from t3_backup.worker.operations import Job
from t3_backup.worker.protocol import Event, Progress, encode_event

if TYPE_CHECKING:  # not every operation has a use for it
    from t3_backup.worker.child.source import LiveDatabase

_PAUSE_S = 0.5  # between two signs of life


class Task:
    """One operation that is being served."""

    def __init__(self, job: Job) -> None:
        """Begin without a database; who finds one sets it."""
        self.job = job
        self.found: LiveDatabase | None = None
        self._reported = time.monotonic()

    @property
    def database(self) -> LiveDatabase:
        """Return the live database, which was found before."""
        assert self.found is not None
        return self.found

    def report(self, event: Event | Failure) -> None:
        """Send one event to the parent. Raises OSError."""
        data = encode_event(event)
        while data:
            data = data[os.write(self.job.channel, data) :]

    def report_alive(self, done: int) -> None:
        """Report that so many bytes are done, unless that was a moment ago.

        The parent ends a child that shows no sign of life.
        """
        if time.monotonic() - self._reported > _PAUSE_S:
            self._reported = time.monotonic()
            self.report(Progress(done, done))
