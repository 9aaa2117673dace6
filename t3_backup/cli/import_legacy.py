"""The command `import-legacy`: take over the snapshots of an earlier script."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from t3_backup import accounts
from t3_backup.backup import legacy_import
from t3_backup.backup.limits import limits_of
from t3_backup.backup.order import SnapshotOrder
from t3_backup.errors import EXIT_OK, Cancelled, Failure, UsageError, explain
from t3_backup.history import chain
from t3_backup.monitor import recorder
from t3_backup.output import console
from t3_backup.output.console import Console
from t3_backup.restore.recovery import recover_interrupted, restore_limits
from t3_backup.settings import Settings
from t3_backup.store.identity import open_store
from t3_backup.store.leftovers import check_catalog, remove_leftovers
from t3_backup.store.lock import WAIT_S
from t3_backup.store.store import Store
from t3_backup.system import signals
from t3_backup.system.deadline import Deadline
from t3_backup.system.signals import StopRequest
from t3_backup.text import INFO, utc_now


def import_legacy_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `import-legacy`: take over old snapshots, of the named users or of all."""
    if os.geteuid() != 0:
        raise UsageError("import-legacy needs root: the users own the folders of an earlier script")
    out = Console(sys.stderr if args.json else sys.stdout)
    stop = signals.stop_on_signals()
    signals.lower_priority()
    documents: list[dict[str, Any]] = []
    with open_store(values.dest) as store:
        store.lock(wait=WAIT_S)
        broken = recover_interrupted(store, restore_limits(values, store), out.warn)
        for user in sorted(set(args.users)) or legacy_import.users_with_legacy(store):
            if stop.is_set():
                break
            documents.append(_import_of(user, values, store, stop, out))
        measured = recorder.write_metrics(store, values, args.dest, out)
    if args.json:
        console.print_document({"accounts": documents})
    elif not documents and not stop.is_set():
        out.line(INFO, f"no snapshots of an earlier script in {values.dest}")
    stop.end()
    failed = any(one["problem"] or one["waiting"] for one in documents)
    return Failure.exit_code if failed or broken or not measured else EXIT_OK


def _import_of(
    user: str, values: Settings, store: Store, stop: StopRequest, out: Console
) -> dict[str, Any]:
    """Import those of one user, and say so; a failure costs no other user."""
    names, warnings, problem = list[str](), list[str](), ""
    try:
        limits = limits_of(values, store.free_bytes, store.total_bytes())
        account = accounts.find(user)
        order = SnapshotOrder(account, limits, None, utc_now(), stop, lambda _: None)
        legacy_import.set_aside(order, store)
        if store.list_set_aside(user):
            account_dir = store.account_dir(user, create=True)
            assert account_dir is not None
            with account_dir:
                listing = remove_leftovers(
                    account_dir, account_dir.read_listing(), chain.find_needed
                )
                told = check_catalog(account_dir, listing).lines(user)
                warnings += [f"{user}: {one}" for one in told]
                deadline = Deadline.after(order.limits.seconds)
                done = legacy_import.import_legacy(order, store, account_dir, listing, deadline)
                names, warnings = done.names, [*warnings, *done.warnings]
    except Cancelled:
        pass  # what waits is told below
    except (Failure, OSError) as error:
        problem = explain(error)
        out.warn(f"{user}: {problem}")
    for name in names:
        out.line(INFO, f"took over {user}: {name}, of an earlier script")
    for warning in warnings:
        out.warn(warning)
    waiting = [str(store.path / name) for name in store.list_set_aside(user)]
    if not names and not warnings and not problem and not waiting:
        out.line(INFO, f"{user}: no snapshots of an earlier script to take over")
    known = {"user": user, "taken_over": names, "waiting": waiting}
    return known | {"warnings": warnings, "problem": problem}
