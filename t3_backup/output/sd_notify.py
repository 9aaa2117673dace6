"""Show how far a run is in `systemctl status` (sd_notify(3)).

Nobody depends on it: without python3-systemd, or where it can't be sent, it is not.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from t3_backup.backup.result import AccountResult
from t3_backup.text import format_size, printable
from t3_backup.worker.protocol import Event, Phase, Progress

_PAUSE_S = 0.5  # between two of them
_MOST_NAMES = 4
_LONGEST = 1000  # characters


@dataclass(frozen=True)
class AccountProgress:
    """How far one account is: bytes."""

    phase: str
    total: int
    done: int = 0


def describe_progress(working: Mapping[str, AccountProgress], done: int, accounts: int) -> str:
    """Say how far a run is: `alice: copy 43 % (4 GiB of 9 GiB); 2 of 5 accounts done`."""
    parts = [f"{user}: {_describe_share(work)}" for user, work in sorted(working.items())]
    if len(parts) > _MOST_NAMES:
        parts[_MOST_NAMES:] = [f"{len(parts) - _MOST_NAMES} more"]
    first = f"{', '.join(parts)}; " if parts else ""
    return f"{first}{done} of {accounts} accounts done"


def _describe_share(work: AccountProgress) -> str:
    """Say how far a copy is; a proof reads some pages often, and has no share."""
    if work.phase != "copy" or not work.total:
        return work.phase
    done = min(work.done, work.total)  # a database grows while it is copied
    share = f"{format_size(done)} of {format_size(work.total)}"
    return f"{work.phase} {done * 100 // work.total} % ({share})"


def describe_end(results: Sequence[AccountResult], now: datetime) -> str:
    """Say what a run came to: `done: 5 accounts, 0 not well (2026-11-26 03:41 UTC)`."""
    bad = sum(result.alarms for result in results)
    return f"done: {len(results)} accounts, {bad} not well ({now:%Y-%m-%d %H:%M} UTC)"


class Notifier:
    """Show the status of one run."""

    def __init__(
        self, notify: Callable[[str], object] | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._notify = notify
        self._clock = clock
        self._said_at = -_PAUSE_S
        self._lock = threading.Lock()
        self._working: dict[str, AccountProgress] = {}
        self._done = 0
        self.accounts = 0  # how many the run has

    def listen(self, user: str, event: Event) -> None:
        """Show the progress of an account."""
        with self._lock:
            if isinstance(event, Phase):
                self._working[user] = AccountProgress(event.phase, event.total)
            elif isinstance(event, Progress) and user in self._working:
                work = self._working[user]
                self._working[user] = AccountProgress(work.phase, work.total, event.written)
            self._say_now_and_then()

    def finished(self, result: AccountResult) -> None:
        """Count an account as done."""
        with self._lock:
            self._working.pop(result.user, None)
            self._done += 1
            self._say_now_and_then()

    def _say_now_and_then(self) -> None:
        now = self._clock()
        if now - self._said_at >= _PAUSE_S:
            self._said_at = now
            self.say(describe_progress(self._working, self._done, max(self.accounts, self._done)))

    def say(self, text: str) -> None:
        """Show a text at once; one line, whatever is in it."""
        self._send(f"STATUS={printable(text, _LONGEST)}")

    def stopping(self) -> None:
        """Show that the run is asked to stop; a signal may call it, so no lock is taken."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def _send(self, text: str) -> None:
        if self._notify is not None:
            with contextlib.suppress(OSError):
                self._notify(text)


def make_notifier() -> Notifier:
    """Return what shows this run's status to whom NOTIFY_SOCKET names, if to anybody."""
    notify: Callable[[str], object] | None = None
    if os.environ.get("NOTIFY_SOCKET"):
        with contextlib.suppress(ImportError):
            from systemd import daemon

            notify = daemon.notify
    return Notifier(notify)
