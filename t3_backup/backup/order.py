"""What a snapshot is to be of, and how: whose it is, within which limits, under which label."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime

from t3_backup.accounts import Account
from t3_backup.backup.limits import limits_until
from t3_backup.system.deadline import Deadline
from t3_backup.worker.limits import Limits
from t3_backup.worker.supervisor import Listener


@dataclass(frozen=True)
class SnapshotOrder:
    """Whose snapshot to take, and how."""

    account: Account
    limits: Limits  # of copy and proof together
    label: str | None
    when: datetime  # before the pin: what was committed by then is in the snapshot
    stopping: threading.Event
    listen: Listener

    def until(self, deadline: Deadline) -> SnapshotOrder:
        """Return the order with what is left of its time."""
        return replace(self, limits=limits_until(self.limits, deadline))
