"""The command `run`: decide whom to back up, and who hears of it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.backup import run as backup_run
from t3_backup.backup.account import BackupRun
from t3_backup.backup.result import AccountResult
from t3_backup.errors import EXIT_OK, Failure, StoreError, UsageError, explain
from t3_backup.monitor import failure as run_failure  # now: an upgrade may replace it meanwhile
from t3_backup.monitor import recorder
from t3_backup.output import console, documents, logfile, sd_notify
from t3_backup.output.console import Console, say_error
from t3_backup.output.reporter import Reporter
from t3_backup.restore.recovery import recover_interrupted, restore_limits
from t3_backup.settings import Settings
from t3_backup.store import lock
from t3_backup.store.identity import check_identity, settle_identity
from t3_backup.store.known_stores import KnownStores
from t3_backup.store.lock import WAIT_S
from t3_backup.store.names import LABEL
from t3_backup.store.store import Store
from t3_backup.system import signals
from t3_backup.t3.base_dir import place_accounts
from t3_backup.text import INFO


def run_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `run`: back up the accounts, and have the hooks called where that failed."""
    run, results, problem = logfile.run_id(), list[AccountResult](), ""
    try:
        code = _back_up(args, values, run, results)
    except (Failure, OSError) as error:
        code, problem = say_error(error), explain(error)
    if code != EXIT_OK and not args.dry_run:
        ending = run_failure.describe_own_end(run, code, problem, results)
        run_failure.follow_failure(ending, values, Console(sys.stderr if args.json else sys.stdout))
    return code


def _back_up(
    args: argparse.Namespace, values: Settings, run: str, results: list[AccountResult]
) -> int:
    """Do the run of that id and return its exit code.

    What became of each account is added to `results`.
    """
    if args.label is not None and not LABEL.fullmatch(args.label):
        wanted = "letters, digits and . _ + - (at most 64, the first a letter or digit)"
        raise UsageError(f"--label {args.label!r} is not one: {wanted}")
    if logfile.is_service():
        _must_outlive_the_service(values.dest)
    shown = sd_notify.make_notifier()
    stop = signals.stop_on_signals(shown.stopping)
    # else a caller holds the store: a server is down, and waits for this
    if lock.INHERITED not in os.environ:
        signals.lower_priority()
    lines = console.make_console(sys.stderr if args.json else sys.stdout, run)
    log = None if args.dry_run else logfile.open_log(values.log, run)
    with Reporter(lines, log, shown) as out:
        found, failures, all_known = _accounts(args.user, values, out)
        out.expect(len(found) + len(failures))
        forgotten: list[str] = []
        recorded = True
        known = KnownStores.own()
        named = [account.user for account in found] if args.dest is None else []
        if problem := check_identity(values.dest, known, named).problem:
            raise StoreError(problem)
        if args.dry_run:
            results += failures + backup_run.plan_backups(values, found, stop, out.finished)
        else:
            with Store.open(values.dest, create=True) as store:
                store.lock(wait=WAIT_S)
                settle_identity(
                    store, known, remember=_is_by_hand(), is_configured=args.dest is None
                )
                record = recorder.Recorder(store, run, out)
                broken, running = _end_restores(store, values, found, out)
                failures += broken
                record.begin(failures)
                this = BackupRun(values, store, args.label, stop, out.listen)
                results += failures + backup_run.run_backups(this, found, record.finished)
                measured = recorder.write_metrics(store, values, args.dest, out, results)
                recorded = measured and not record.broken and running
                if args.user is None:
                    tried = {result.user for result in results}
                    forgotten = [user for user in store.users() if user not in tried]
        for user in forgotten:
            out.warn(f"{user} has snapshots in {values.dest}, but is not in {values.map}")
        if not results:
            out.line(INFO, f"no users in {values.map}; nothing to back up")
        out.ended(results)
    if args.json:
        console.print_document(documents.run_document(results))
    lost_map = bool(forgotten) and not results
    failed = lost_map or any(result.alarms for result in results)
    stop.end()
    well = all_known and recorded and not failed and not out.broken
    return EXIT_OK if well else Failure.exit_code


def _end_restores(
    store: Store, values: Settings, found: list[Account], out: Reporter
) -> tuple[list[AccountResult], bool]:
    """End interrupted restores, and return what became of those that can't be ended.

    Return also whether all is well with the servers. The account of a restore that can't be ended
    goes from `found`: what is in its place may be a part of a state.
    """
    unended = recover_interrupted(store, restore_limits(values, store), out.warn)
    reasons = {one.user: one.reason for one in unended if not one.whole}
    users = [account.user for account in found if account.user in reasons]
    broken = [AccountResult(user, "failed", reasons[user]) for user in users]
    found[:] = [account for account in found if account.user not in reasons]
    for result in broken:
        out.finished(result)
    return broken, not any(one.whole for one in unended)


def _is_by_hand() -> bool:
    """Tell whether a person has typed this: only who sees what is there is to remember it."""
    return not logfile.is_service() and lock.INHERITED not in os.environ


def _must_outlive_the_service(dest: Path) -> None:
    """Raise UsageError for a store in a folder that goes with the service."""
    from t3_backup.doctor import units

    if any(dest.resolve().is_relative_to(place) for place in units.PRIVATE):
        why = "in a temporary folder, which is private to the service and removed with it"
        raise UsageError(f"T3_BACKUP_DEST: {dest} is {why}")


def _accounts(
    users: list[str] | None, values: Settings, out: Reporter
) -> tuple[list[Account], list[AccountResult], bool]:
    """Find whom to back up, who of those named can't be, and whether the map names nobody else.

    Raises UsageError and Failure.
    """
    wanted = sorted(set(users or []))
    if os.geteuid() != 0:
        own = accounts.own()
        if others := ", ".join(user for user in wanted if user != own.user):
            whose = f"only their own account, not {others}"
            raise UsageError(f"{own.user} is not root and may back up {whose}")
        return place_accounts([own], dict(values.base_dirs), out.warn), [], True
    known = None
    if not users:
        known = accounts.read_map(values.map)
        wanted = list(known.users)
        for warning in known.warnings:
            out.warn(warning)
    found, failures = [], []
    for user in wanted:
        try:
            found.append(accounts.find(user))
        except Failure as failure:
            failures.append(AccountResult(user, "failed", str(failure)))
            out.finished(failures[-1])
    if known is not None and known.warnings and not known.users:
        raise Failure(f"{values.map}: no line names an account")
    placed = place_accounts(found, dict(values.base_dirs), out.warn)
    return placed, failures, known is None or not known.passed_over
