"""The command `prune`: let go what retention does not keep, and compact the rest."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from t3_backup.backup.limits import limits_of
from t3_backup.cli.accounts import AccountDirs
from t3_backup.errors import EXIT_OK, Failure
from t3_backup.history import chain
from t3_backup.history.maintenance import Maintenance
from t3_backup.history.retention import Decision
from t3_backup.monitor import attempts, collect, recorder
from t3_backup.output import console, documents
from t3_backup.output.console import Console
from t3_backup.restore.recovery import recover_interrupted
from t3_backup.settings import Settings
from t3_backup.store.catalog import explain_loss
from t3_backup.store.identity import open_store
from t3_backup.store.leftovers import check_catalog, remove_leftovers
from t3_backup.store.lock import WAIT_S
from t3_backup.system import signals
from t3_backup.t3 import databases
from t3_backup.text import INFO


def prune_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `prune`: remove what retention lets go, and compact the rest.

    With --dry-run, say what would go, what stays, and why.
    """
    out = Console(sys.stderr if args.json else sys.stdout)
    stop = signals.stop_on_signals()
    signals.lower_priority()
    accounts: list[dict[str, Any]] = []
    warned = False
    with open_store(values.dest) as store:
        store.lock(wait=WAIT_S, shared=args.dry_run)
        limits = limits_of(values, store.free_bytes, store.total_bytes())
        unended = [] if args.dry_run else recover_interrupted(store, limits, out.warn)
        noted = collect.attempts_of(store, out.warn)
        account_dirs = AccountDirs(store, args.user, out)
        for account_dir in account_dirs:
            found = attempts.uncovered_since(noted.get(account_dir.user, ()))
            hold = databases.summary(found[1].uncovered) if found else ""
            listing = account_dir.read_listing()
            if lost := account_dir.read_catalog().lost(listing):
                hold = explain_loss(account_dir.user, lost)
            maintenance = Maintenance.of(account_dir, listing, values, limits, stop)
            decisions = maintenance.decide_retention()
            if args.dry_run:
                accounts.append(_plan(account_dir.user, decisions, hold, out))
            else:
                accounts.append(_prune(maintenance, decisions, hold, out))
                warned |= bool(accounts[-1]["warnings"])
        measured = args.dry_run or recorder.write_metrics(store, values, args.dest, out)
    if args.json:
        console.print_document({"accounts": accounts})
    stop.end()
    failed = warned or unended or account_dirs.refused or not measured
    return Failure.exit_code if failed else EXIT_OK


def _plan(user: str, decisions: list[Decision], hold: str, out: Console) -> dict[str, Any]:
    warnings = [f"{user}: nothing is pruned: {hold}"] if hold else []
    for warning in warnings:
        out.warn(warning)
    for decision in decisions:
        what = "keep" if decision.keep else "would prune"
        out.line(INFO, f"{what} {user} {decision.snapshot.name} ({', '.join(decision.reasons)})")
    return documents.prune_document(user, decisions, [], [], warnings)


def _prune(
    maintenance: Maintenance, decisions: list[Decision], hold: str, out: Console
) -> dict[str, Any]:
    user = maintenance.account_dir.user
    why = {decision.snapshot.name: ", ".join(decision.reasons) for decision in decisions}
    listing = remove_leftovers(maintenance.account_dir, maintenance.listing, chain.find_needed)
    problem = check_catalog(maintenance.account_dir, listing).problem
    done = replace(maintenance, listing=listing).tidy(hold)
    done.warnings += [f"{user}: {problem}"] if problem else []
    for name in done.pruned:
        out.line(INFO, f"pruned {user} {name} ({why[name]})")
    for name in done.compacted:
        out.line(INFO, f"compacted {user} {name}")
    for warning in done.warnings:
        out.warn(warning)
    if not done.freed_space:
        out.line(INFO, f"{user}: nothing to prune or compact")
    return documents.prune_document(user, decisions, done.pruned, done.compacted, done.warnings)
