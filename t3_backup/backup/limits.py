"""Derive a worker's limits from the settings and the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from t3_backup.settings import Settings
from t3_backup.system.deadline import Deadline
from t3_backup.system.disk import reserve_of
from t3_backup.worker.limits import Limits


def limits_of(settings: Settings, free_bytes: Callable[[], int], total: int) -> Limits:
    """Return the limits of a worker; `total` bytes are on the store's file system."""
    reserve = reserve_of(settings.reserve, total)
    return Limits(
        settings.timeout, settings.stall, settings.wal_budget, reserve, free_bytes, settings.reserve
    )


def limits_until(limits: Limits, deadline: Deadline, *, least: float = 0.0) -> Limits:
    """Return the limits with the seconds that a deadline leaves, at least `least`."""
    return replace(limits, seconds=max(least, deadline.left()))
