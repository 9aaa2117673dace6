"""Change what a person may change of a sealed snapshot: accept it, pin it, unpin it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from t3_backup.errors import Failure, UsageError
from t3_backup.store.manifest import Manifest
from t3_backup.store.selection import select_snapshot
from t3_backup.store.store import Store
from t3_backup.text import format_time


class Change(NamedTuple):
    """What came of such a command."""

    changed: list[Manifest]  # as they are from now on
    lines: list[str]


def set_pins(store: Store, user: str, names: Iterable[str], now: datetime, *, pinned: bool) -> Change:
    """Pin, or unpin, the snapshots of `user` that `names` mean; all of them, or none where one means nothing.

    The store is locked. Raises UsageError and Failure as `choose` does, and Failure where the account has no shelf.
    """
    account_dir = store.account_dir(user)
    if account_dir is None:
        raise Failure(f"no snapshots of {user} in {store.path}")
    result = Change([], [])
    with account_dir:
        snapshots = account_dir.snapshots()
        chosen = {snapshot.name: snapshot for snapshot in [_chosen(snapshots, name, now) for name in names]}
        for name, snapshot in chosen.items():
            if (snapshot.pinned_at is not None) == pinned:
                result.lines.append(f"{user} {name} is {'pinned already' if pinned else 'not pinned'}")
                continue
            changed = replace(snapshot, pinned_at=format_time(now) if pinned else None)
            account_dir.replace_manifest(changed)
            result.changed.append(changed)
            result.lines.append(f"{'pinned' if pinned else 'unpinned'} {user} {name}")
    return result


def _chosen(snapshots: list[Manifest], name: str, now: datetime) -> Manifest:
    try:
        return select_snapshot(snapshots, name, now)
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--at ")) from None  # there is no such flag here


def accept_snapshots(store: Store, user: str, now: datetime) -> list[Manifest]:
    """End the hold of an account: somebody has looked at what is suspect or damaged, and it stops pruning no longer.

    Each keeps its verdict, and so never counts among the good ones that retention keeps. The accepted ones as they are from
    now on. Raises Failure where the account has no shelf.
    """
    account_dir = store.account_dir(user)
    if account_dir is None:
        raise Failure(f"no snapshots of {user} in {store.path}")
    accepted = []
    with account_dir:
        for snapshot in account_dir.snapshots():
            if snapshot.holds:
                accepted.append(replace(snapshot, accepted_at=format_time(now)))
                account_dir.replace_manifest(accepted[-1])
    return accepted
