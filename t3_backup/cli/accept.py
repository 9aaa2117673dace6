"""The command `accept`: accept suspect and damaged snapshots."""

from __future__ import annotations

import argparse

from t3_backup.cli.marks import change_marks
from t3_backup.settings import Settings
from t3_backup.store.losses import accept_losses
from t3_backup.store.manifest import Manifest
from t3_backup.store.marks import MarkChange, accept_snapshots
from t3_backup.store.store import Store
from t3_backup.text import utc_now


def accept_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `accept`: end the hold of what is suspect or damaged."""

    def change(store: Store) -> MarkChange:
        accepted = accept_snapshots(store, args.user, utc_now())
        said = [
            f"accepted {snapshot.user} {snapshot.name} ({_explain(snapshot)})"
            for snapshot in accepted
        ]
        said += [
            f"accepted that {args.user} {name} is lost" for name in accept_losses(store, args.user)
        ]
        return MarkChange(accepted, said or [f"{args.user}: no snapshot waits to be accepted"])

    return change_marks(args, values, change)


def _explain(snapshot: Manifest) -> str:
    return "; ".join(snapshot.reasons) or "its last proof failed"
