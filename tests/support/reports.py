"""Accounts as the report shows them, judged as the status judges them."""

from __future__ import annotations

from collections.abc import Sequence

from support.manifests import NOON
from t3_backup.monitor.attempts import Attempt
from t3_backup.monitor.collect import AccountView
from t3_backup.monitor.health import Thresholds, judge_health
from t3_backup.monitor.html import AccountHistory
from t3_backup.store.manifest import Manifest


def judged_account(
    user: str,
    snapshots: Sequence[Manifest],
    notes: Sequence[str] = (),
    attempts: Sequence[Attempt] = (),
) -> AccountHistory:
    """An account of the map at noon; snapshots are the newest first, attempts the oldest first."""
    view = AccountView(user, in_map=True, snapshots=tuple(snapshots), attempts=tuple(attempts))
    return AccountHistory(judge_health(view, NOON, Thresholds()), notes)
