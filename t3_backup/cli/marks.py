"""Change the marks of an account's snapshots under the store's lock."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from t3_backup.errors import EXIT_OK, Failure
from t3_backup.monitor import recorder
from t3_backup.output import console, documents
from t3_backup.output.console import Console
from t3_backup.restore.recovery import recover_interrupted, restore_limits
from t3_backup.settings import Settings
from t3_backup.store.identity import open_store
from t3_backup.store.lock import WAIT_S
from t3_backup.store.marks import MarkChange
from t3_backup.store.store import Store
from t3_backup.text import INFO


def change_marks(
    args: argparse.Namespace, values: Settings, change: Callable[[Store], MarkChange]
) -> int:
    """Let `change` work under the store's lock, tell of it, return the exit code."""
    out = Console(sys.stderr if args.json else sys.stdout)
    with open_store(values.dest) as store:
        store.lock(wait=WAIT_S)
        broken = recover_interrupted(store, restore_limits(values, store), out.warn)
        changed, said = change(store)
        measured = recorder.write_metrics(store, values, args.dest, out)
    for line in said:
        out.line(INFO, line)
    if args.json:
        console.print_document({"accounts": [documents.marks_document(args.user, changed)]})
    ended = all(result.user != args.user for result in broken)
    return EXIT_OK if measured and ended else Failure.exit_code
