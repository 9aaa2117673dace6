"""Tell all who hear of a run: people, the log, and systemd's status.

One that can't be told any more costs nobody their backup: `broken` keeps it for the exit code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from t3_backup.backup.result import AccountResult
from t3_backup.output import sd_notify
from t3_backup.output.console import Console
from t3_backup.output.logfile import Log
from t3_backup.output.sd_notify import Notifier
from t3_backup.text import INFO, utc_now
from t3_backup.worker.protocol import Event


class Reporter:
    """Tell all who hear of one run; without a log where it has none."""

    def __init__(self, lines: Console, log: Log | None, shown: Notifier) -> None:
        self._lines = lines
        self._log = log
        self._notifier = shown

    @property
    def broken(self) -> bool:
        """Tell whether somebody could not be told."""
        return self._lines.broken or (self._log is not None and self._log.broken)

    def line(self, priority: int, text: str) -> None:
        """Write a line for people."""
        self._lines.line(priority, text)

    def warn(self, text: str) -> None:
        """Write a warning for people."""
        self._lines.warn(text)

    def expect(self, accounts: int) -> None:
        """Say how many accounts the run has."""
        self._notifier.accounts = accounts

    def listen(self, user: str, event: Event) -> None:
        """Tell of the progress of an account."""
        self._lines.listen(user, event)
        self._notifier.listen(user, event)

    def finished(self, result: AccountResult) -> None:
        """Tell what became of an account."""
        self._lines.finished(result)
        self._notifier.finished(result)
        if self._log is not None and (problem := self._log.finished(result)):
            self._lines.warn(problem)

    def ended(self, results: Sequence[AccountResult]) -> None:
        """Tell what the run came to."""
        bad = sum(result.alarms for result in results)
        self.line(INFO, f"done ({len(results)} accounts, {bad} not well)")
        self._notifier.say(sd_notify.describe_end(results, utc_now()))

    def __enter__(self) -> Self:
        self._lines.__enter__()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._lines.__exit__()
        if error is not None:
            self._notifier.say(f"not done: {error}")
