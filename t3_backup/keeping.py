"""Commands by which somebody has a say in what is kept: `accept`, `pin` and `unpin`. Each returns its exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from t3_backup import backup, lines, recording, restoring
from t3_backup.choice import choose
from t3_backup.errors import EXIT_OK, Failure, UsageError
from t3_backup.lines import Lines
from t3_backup.lock import WAIT_S
from t3_backup.manifest import Manifest
from t3_backup.settings import Settings
from t3_backup.store import Store
from t3_backup.text import INFO, format_time, utc_now


class Change(NamedTuple):
    """What came of such a command."""

    changed: list[Manifest]  # as they are from now on
    lines: list[str]


def accept(args: argparse.Namespace, values: Settings) -> int:
    """`accept`: end the hold of what is suspect or damaged."""

    def change(store: Store) -> Change:
        accepted = backup.accept(store, args.user, utc_now())
        said = [f"accepted {snapshot.user} {snapshot.name} ({'; '.join(snapshot.reasons)})" for snapshot in accepted]
        return Change(accepted, said or [f"nothing of {args.user} waits to be accepted"])

    return _command(args, values, change)


def pin(args: argparse.Namespace, values: Settings) -> int:
    """`pin`: what is named is not pruned, whatever the settings say."""
    return _command(args, values, lambda store: set_pins(store, args.user, args.names, utc_now(), pinned=True))


def unpin(args: argparse.Namespace, values: Settings) -> int:
    """`unpin`: what is named is retention's again."""
    return _command(args, values, lambda store: set_pins(store, args.user, args.names, utc_now(), pinned=False))


def set_pins(store: Store, user: str, names: Iterable[str], now: datetime, *, pinned: bool) -> Change:
    """Pin, or unpin, the snapshots of `user` that `names` mean; all of them, or none where one means nothing.

    The store is locked. Raises UsageError and Failure as `choose` does, and Failure where the account has no shelf.
    """
    shelf = store.shelf(user)
    if shelf is None:
        raise Failure(f"no snapshots of {user} in {store.path}")
    result = Change([], [])
    with shelf:
        snapshots = shelf.snapshots()
        chosen = {snapshot.name: snapshot for snapshot in [_chosen(snapshots, name, now) for name in names]}
        for name, snapshot in chosen.items():
            if (snapshot.pinned_at is not None) == pinned:
                result.lines.append(f"{user} {name} is {'pinned already' if pinned else 'not pinned'}")
                continue
            changed = replace(snapshot, pinned_at=format_time(now) if pinned else None)
            shelf.replace_manifest(changed)
            result.changed.append(changed)
            result.lines.append(f"{'pinned' if pinned else 'unpinned'} {user} {name}")
    return result


def _chosen(snapshots: list[Manifest], name: str, now: datetime) -> Manifest:
    try:
        return choose(snapshots, name, now)
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--at ")) from None  # there is no such flag here


def _command(args: argparse.Namespace, values: Settings, change: Callable[[Store], Change]) -> int:
    out = Lines(sys.stderr if args.json else sys.stdout)
    with Store.open(values.dest) as store:
        store.lock(wait=WAIT_S)
        broken = restoring.end_interrupted(store, restoring.limits(values, store), out.warn)
        changed, said = change(store)
        measured = recording.write_metrics(recording.folder_of(values, args.dest), store, values, out)
    for line in said:
        out.line(INFO, line)
    if args.json:
        lines.print_document({"accounts": [{"user": args.user, "snapshots": [s.as_json() for s in changed]}]})
    ended = all(result.user != args.user for result in broken)
    return EXIT_OK if measured and ended else Failure.exit_code
