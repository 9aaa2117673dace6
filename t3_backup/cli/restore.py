"""The command `restore`: show what it would bring, ask, and put a snapshot back."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.cli.prompt import confirm
from t3_backup.errors import EXIT_OK, Failure, StoreError, UsageError
from t3_backup.monitor import recorder
from t3_backup.output import console, documents, restore_messages
from t3_backup.output.console import Console
from t3_backup.restore import export, in_place
from t3_backup.restore.in_place import RestoreJob
from t3_backup.restore.recovery import recover_interrupted, restore_limits
from t3_backup.settings import Settings
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.census import Census
from t3_backup.store.lock import WAIT_S
from t3_backup.store.manifest import Manifest
from t3_backup.store.selection import select_restorable
from t3_backup.store.store import Store
from t3_backup.system import signals
from t3_backup.system.signals import StopRequest
from t3_backup.t3.files import state_database
from t3_backup.t3.servers import find_service
from t3_backup.text import INFO, utc_now
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.restore import CountRows


@dataclass(frozen=True)
class _Restore:
    """What one call of the command is about."""

    args: argparse.Namespace
    values: Settings
    store: Store
    account_dir: AccountDir
    snapshot: Manifest
    limits: Limits
    stop: StopRequest
    out: Console


def restore_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `restore`: put a snapshot back in place, or elsewhere (--to)."""
    out = Console(sys.stderr if args.json else sys.stdout)
    stop = signals.stop_on_signals()
    with Store.open(values.dest) as store:
        account_dir = store.account_dir(args.user)
        if account_dir is None:
            raise StoreError(f"no snapshots of {args.user} in {store.path}")
        with account_dir:
            if os.geteuid() != 0 and args.user != (own := accounts.own().user):
                whose = f"only their own account, not {args.user}"
                raise UsageError(f"{own} is not root and may restore {whose}")
            known = account_dir.read_listing().snapshots
            snapshot = select_restorable(
                known, args.at, utc_now(), label=args.label, level=args.schema
            )
            limits = restore_limits(values, store)
            do = _elsewhere if args.to is not None else _in_place
            done, well = do(_Restore(args, values, store, account_dir, snapshot, limits, stop, out))
            stored = account_dir.read_listing().stored_snapshot(snapshot)
            about = {"user": args.user, "snapshot": documents.snapshot_document(stored)}
    if args.json:
        console.print_document(about | done)
    stop.end()
    return EXIT_OK if well else Failure.exit_code


def _elsewhere(restore: _Restore) -> tuple[dict[str, Any], bool]:
    args, snapshot = restore.args, restore.snapshot
    if not args.dry_run:
        with restore.store.locked(shared=True, wait=WAIT_S):
            export.export_snapshot(
                restore.account_dir, snapshot, Path(args.to), restore.limits, restore.stop
            )
    verb = "would write" if args.dry_run else "wrote"
    restore.out.line(INFO, f"{verb} {snapshot.name} of {args.user} to {args.to}")
    return {"action": "planned" if args.dry_run else "written", "to": args.to}, True


def _in_place(restore: _Restore) -> tuple[dict[str, Any], bool]:
    args, store, snapshot, out = restore.args, restore.store, restore.snapshot, restore.out
    files = args.only != "database" and snapshot.companion is not None
    if args.only == "files" and not files:
        raise Failure(f"{snapshot.name} has no files: there were none, or they were not saved")
    account = accounts.find(args.user)
    live, problem = _live(account, restore.limits, restore.stop)
    about = {"live": None if live is None else live.as_json(), "live_problem": problem}
    for line in restore_messages.plan_lines(snapshot, live, problem, utc_now()):
        out.line(INFO, line)
    if args.dry_run:
        return about | {"action": "planned"}, True
    question = f"Replace {state_database(account.home)} with it?"
    wrong_use = "a restore replaces the live database"
    confirm(question, wrong_use, yes=args.yes, silent=args.json)
    store.lock(wait=WAIT_S)
    for one in recover_interrupted(store, restore.limits, out.warn):
        if one.user == args.user and not one.whole:
            raise Failure(one.reason)
    if not restore.account_dir.has_manifest(snapshot):
        raise Failure(f"{snapshot.name} was pruned in the meantime")
    done = in_place.restore_in_place(
        RestoreJob(
            account=account,
            store=store,
            account_dir=restore.account_dir,
            snapshot=snapshot,
            service=None if args.no_service else find_service(args.user),
            limits=restore.limits,
            stopping=restore.stop,
            now=utc_now,
            say=partial(out.line, INFO),
            database=args.only != "files",
            files=files,
            files_limit=restore.values.files_limit,
        )
    )
    measured = recorder.write_metrics(store, restore.values, args.dest, out)
    given = ["--dest", args.dest] if args.dest else []
    options = shlex.join(given + (["--no-service"] if args.no_service else []))
    for told in restore_messages.done_lines(done, options):
        out.line(told.priority, told.text)
    undo = None if done.prerestore is None else restore_messages.undo_command(done, options)
    well = done.server != "failed" and not done.missing and measured
    return about | documents.restored_document(done, undo), well


def _live(account: Account, limits: Limits, stop: StopRequest) -> tuple[Census | None, str]:
    """Take the census of the live database, or say why not: nothing depends on it."""
    try:
        return client.ask(account, CountRows(), limits, stop).census, ""
    except Failure as failure:
        return None, str(failure)
