"""Commands by which somebody has a say in what is kept: `accept`, `pin` and `unpin`. Each returns its exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from t3_backup.errors import EXIT_OK, Failure
from t3_backup.monitor import recorder
from t3_backup.output import console
from t3_backup.output.console import Console
from t3_backup.restore.recovery import recover_interrupted, restore_limits
from t3_backup.settings import Settings
from t3_backup.store.lock import WAIT_S
from t3_backup.store.marks import Change, accept_snapshots, set_pins
from t3_backup.store.store import Store
from t3_backup.text import INFO, utc_now


def accept(args: argparse.Namespace, values: Settings) -> int:
    """`accept`: end the hold of what is suspect or damaged."""

    def change(store: Store) -> Change:
        accepted = accept_snapshots(store, args.user, utc_now())
        said = [f"accepted {snapshot.user} {snapshot.name} ({'; '.join(snapshot.reasons)})" for snapshot in accepted]
        return Change(accepted, said or [f"nothing of {args.user} waits to be accepted"])

    return _command(args, values, change)


def pin(args: argparse.Namespace, values: Settings) -> int:
    """`pin`: what is named is not pruned, whatever the settings say."""
    return _command(args, values, lambda store: set_pins(store, args.user, args.names, utc_now(), pinned=True))


def unpin(args: argparse.Namespace, values: Settings) -> int:
    """`unpin`: what is named is retention's again."""
    return _command(args, values, lambda store: set_pins(store, args.user, args.names, utc_now(), pinned=False))


def _command(args: argparse.Namespace, values: Settings, change: Callable[[Store], Change]) -> int:
    out = Console(sys.stderr if args.json else sys.stdout)
    with Store.open(values.dest) as store:
        store.lock(wait=WAIT_S)
        broken = recover_interrupted(store, restore_limits(values, store), out.warn)
        changed, said = change(store)
        measured = recorder.write_metrics(recorder.metrics_folder(values, args.dest), store, values, out)
    for line in said:
        out.line(INFO, line)
    if args.json:
        console.print_document({"accounts": [{"user": args.user, "snapshots": [s.as_json() for s in changed]}]})
    ended = all(result.user != args.user for result in broken)
    return EXIT_OK if measured and ended else Failure.exit_code
