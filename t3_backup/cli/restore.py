"""The command `restore`: show what it would bring, ask, and put a snapshot back."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.cli.prompt import confirm
from t3_backup.errors import EXIT_OK, Failure, ProofFailed, StoreError, UsageError
from t3_backup.history.proof_record import record_failures, trace_failure
from t3_backup.monitor import recorder
from t3_backup.output import console, documents, restore_messages
from t3_backup.output.console import Console
from t3_backup.output.restore_messages import Change
from t3_backup.restore import export, in_place
from t3_backup.restore.job import RestoreJob
from t3_backup.restore.recovery import recover_interrupted, restore_limits
from t3_backup.settings import Settings
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.census import Census
from t3_backup.store.faults import find_unsound
from t3_backup.store.identity import open_store
from t3_backup.store.lock import WAIT_S
from t3_backup.store.losses import explain_absence, refuse_lost
from t3_backup.store.manifest import Manifest
from t3_backup.store.selection import find_next_best, find_passed_over, select_restorable
from t3_backup.store.store import Store
from t3_backup.system import signals
from t3_backup.system.signals import StopRequest
from t3_backup.t3.base_dir import place_accounts
from t3_backup.t3.files import state_place
from t3_backup.t3.servers import find_service
from t3_backup.text import INFO, WARNING, printable, utc_now
from t3_backup.worker import client
from t3_backup.worker.limits import LOOK_STALL, Limits
from t3_backup.worker.operations.backup import FindDatabase
from t3_backup.worker.operations.restore import CountRows
from t3_backup.worker.protocol import Event
from t3_backup.worker.sources import Source


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
    with open_store(values.dest) as store:
        account_dir = store.account_dir(args.user)
        if account_dir is None:
            raise StoreError(explain_absence(store, args.user))
        with account_dir:
            if os.geteuid() != 0 and args.user != (own := accounts.own().user):
                whose = f"only their own account, not {args.user}"
                raise UsageError(f"{own} is not root and may restore {whose}")
            listing = account_dir.read_listing()
            refuse_lost(store, args.user, listing, [args.at])
            known = listing.snapshots
            unsound = find_unsound(known, account_dir.read_catalog())
            passed = find_passed_over(known, args.at, utc_now(), unsound)
            try:
                snapshot = select_restorable(
                    known,
                    args.at,
                    utc_now(),
                    label=args.label,
                    level=args.schema,
                    unsound=unsound,
                )
            except Failure as failure:
                if passed is None or isinstance(failure, UsageError):
                    raise
                why = unsound.reasons.get(passed.name)
                told = restore_messages.passed_over_line(passed, why)
                raise Failure(f"{failure}; {told}") from None
            if passed is not None and passed.sequence < snapshot.sequence:
                passed = None
            if passed is not None:
                why = unsound.reasons.get(passed.name)
                out.line(WARNING, f"WARN: {restore_messages.passed_over_line(passed, why)}")
            _check_database(args, snapshot)
            limits = restore_limits(values, store)
            do = _elsewhere if args.to is not None else _in_place
            done, well = do(_Restore(args, values, store, account_dir, snapshot, limits, stop, out))
            stored = account_dir.read_listing().stored_snapshot(snapshot)
            about = {
                "user": args.user,
                "snapshot": documents.snapshot_document(stored),
                "passed_over": None if passed is None else passed.name,
            }
    if args.json:
        console.print_document(about | done)
    stop.end()
    return EXIT_OK if well else Failure.exit_code


@contextlib.contextmanager
def _naming_another(restore: _Restore) -> Iterator[None]:
    """Record that the snapshot is not what was sealed, if so, and name the one to take instead."""
    try:
        yield
    except ProofFailed as error:
        account_dir, snapshot, args = restore.account_dir, restore.snapshot, restore.args
        listing = account_dir.read_listing()
        failed = trace_failure(account_dir, listing, snapshot, error.reason)
        with contextlib.suppress(OSError):  # of a store that is not to be written to
            record_failures(account_dir, failed, utc_now())
        known = find_unsound(listing.snapshots, account_dir.read_catalog())
        best = find_next_best(
            listing.snapshots, snapshot, failed.keys() | known.reasons.keys(), args.schema
        )
        given = {"--dest": args.dest, "--to": args.to, "--database": args.database}
        given |= {"--only": args.only}
        options = [word for flag, value in given.items() if value for word in (flag, value)]
        raise Failure(f"{error}; {restore_messages.instead_line(best, options)}") from None


def _check_database(args: argparse.Namespace, snapshot: Manifest) -> None:
    """Raise UsageError where the database that is named can't be put back."""
    if args.database is None:
        return
    if args.only == "files":
        raise UsageError("--database names a database, and --only files puts none back")
    if snapshot.image_of(args.database) is None:
        has = ", ".join(printable(one.file) for one in snapshot.databases)
        what = f"--database {printable(args.database)}: {snapshot.name} has none of that name"
        raise UsageError(f"{what}, but {has}")


def _elsewhere(restore: _Restore) -> tuple[dict[str, Any], bool]:
    args, snapshot = restore.args, restore.snapshot
    image = snapshot.live_image if args.database is None else snapshot.image_of(args.database)
    assert image is not None
    if not args.dry_run:
        with restore.store.locked(shared=True, wait=WAIT_S), _naming_another(restore):
            export.export_database(
                restore.account_dir,
                image,
                Path(args.to),
                restore.limits,
                restore.stop,
            )
    verb = "would write" if args.dry_run else "wrote"
    restore.out.line(INFO, f"{verb} {image.name} of {args.user} to {args.to}")
    return {"action": "planned" if args.dry_run else "written", "to": args.to}, True


def _in_place(restore: _Restore) -> tuple[dict[str, Any], bool]:
    args, store, snapshot, out = restore.args, restore.store, restore.snapshot, restore.out
    files = snapshot.companion is not None and args.only != "database" and args.database is None
    if args.only == "files" and not files:
        raise Failure(f"{snapshot.name} has no files: there were none, or they were not saved")
    named = dict(restore.values.base_dirs)
    [account] = place_accounts([accounts.find(args.user)], named, out.warn)
    databases = args.only != "files"
    found = _find_databases(account, restore.limits, restore.stop)
    moved = [one.file for one in snapshot.databases if args.database in (None, one.file)]
    whole = databases and args.database is None
    lacking = [file for file in found if whole and snapshot.image_of(file) is None]
    change = Change(args.database, databases, files, lacking)
    live, problem = _live(account, change.compared(snapshot).file, restore.limits, restore.stop)
    about = {
        "live": None if live is None else live.as_json(),
        "live_problem": problem,
        "databases": documents.database_changes(moved if databases else (), lacking),
    }
    for line in restore_messages.plan_lines(snapshot, live, problem, utc_now(), change):
        out.line(INFO, line)
    if args.dry_run:
        return about | {"action": "planned"}, True
    question = _question(account, moved if databases else [], lacking)
    wrong_use = "a restore replaces the live database"
    confirm(question, wrong_use, yes=args.yes, silent=args.json)
    store.lock(wait=WAIT_S, urgent=True)
    for one in recover_interrupted(store, restore.limits, out.warn, args.user):
        if one.user == args.user and not one.whole:
            raise Failure(one.reason)
    if not restore.account_dir.has_manifest(snapshot):
        raise Failure(f"{snapshot.name} was pruned in the meantime")
    job = RestoreJob(
        account=account,
        store=store,
        account_dir=restore.account_dir,
        snapshot=snapshot,
        service=None if args.no_service else find_service(args.user),
        limits=restore.limits,
        stopping=restore.stop,
        now=utc_now,
        say=partial(out.line, INFO),
        database=databases,
        file=args.database,
        files=files,
        files_limit=restore.values.files_limit,
        kept=args.kept,
    )
    with _naming_another(restore):
        done = in_place.restore_in_place(job)
    measured = recorder.write_metrics(store, restore.values, args.dest, out)
    given = ["--dest", args.dest] if args.dest else []
    options = shlex.join(given + (["--no-service"] if args.no_service else []))
    for told in restore_messages.done_lines(done, options):
        out.line(told.priority, told.text)
    undo = None if done.prerestore is None else restore_messages.undo_command(done, options)
    well = done.server != "failed" and not done.missing and measured
    return about | documents.restored_document(done, undo), well


def _question(account: Account, moved: Sequence[str], lacking: Sequence[str]) -> str:
    """Ask whether what is there may be replaced."""
    folder = Path(*state_place(str(account.home), str(account.base_dir or "")))
    if len(moved) == 1 and not lacking:
        return f"Replace {printable(str(folder / moved[0]))} with it?"
    what = "the databases" if moved else "what is beside the databases"
    return f"Replace {what} in {folder} with it?"


def _find_databases(account: Account, limits: Limits, stop: StopRequest) -> tuple[str, ...]:
    """Name the databases that a backup would copy now: nothing depends on it."""
    found = list[str]()

    def listen(event: Event) -> None:
        if isinstance(event, Source):
            found.extend(one.file for one in event.databases)

    with contextlib.suppress(Failure):
        look = replace(limits, stall=LOOK_STALL)  # a home that does not answer is known by it
        client.ask(account, FindDatabase(), look, stop, listen)
    return tuple(found)


def _live(
    account: Account, file: str, limits: Limits, stop: StopRequest
) -> tuple[Census | None, str]:
    """Take the census of a live database, or say why not: nothing depends on it."""
    try:
        return client.ask(account, CountRows(file), limits, stop).census, ""
    except Failure as failure:
        return None, str(failure)
