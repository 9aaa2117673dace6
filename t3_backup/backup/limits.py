"""Derive a worker's limits from the settings and the disk."""

from __future__ import annotations

from collections.abc import Callable

from t3_backup.settings import Settings
from t3_backup.system.disk import reserve_of
from t3_backup.worker.limits import Limits


def limits_of(settings: Settings, free_bytes: Callable[[], int], total: int) -> Limits:
    """The limits of a worker; `total` bytes are on the store's file system."""
    reserve = reserve_of(settings.reserve, total)
    return Limits(settings.timeout, settings.stall, settings.wal_budget, reserve, free_bytes, settings.reserve)
