"""The commands `pin` and `unpin`: keep snapshots whatever retention says, and leave them to it again."""

from __future__ import annotations

import argparse

from t3_backup.cli.marks import change_marks
from t3_backup.settings import Settings
from t3_backup.store.marks import set_pins
from t3_backup.text import utc_now


def pin_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `pin`: what is named is not pruned, whatever the settings say."""
    return change_marks(
        args, values, lambda store: set_pins(store, args.user, args.names, utc_now(), pinned=True)
    )


def unpin_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `unpin`: leave what is named to retention again."""
    return change_marks(
        args, values, lambda store: set_pins(store, args.user, args.names, utc_now(), pinned=False)
    )
