"""The commands `pin` and `unpin`: exempt snapshots from pruning, or no longer."""

from __future__ import annotations

import argparse

from t3_backup.cli.marks import change_marks
from t3_backup.settings import Settings
from t3_backup.store.marks import MarkChange, set_pins
from t3_backup.store.store import Store
from t3_backup.text import utc_now


def pin_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `pin`: what is named is not pruned, whatever the settings say."""
    return _change(args, values, pinned=True)


def unpin_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `unpin`: leave what is named to retention again."""
    return _change(args, values, pinned=False)


def _change(args: argparse.Namespace, values: Settings, *, pinned: bool) -> int:
    def change(store: Store) -> MarkChange:
        return set_pins(store, args.user, args.names, utc_now(), pinned=pinned)

    return change_marks(args, values, change)
