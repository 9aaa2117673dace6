"""The commands `prune` and `du`: what goes and why, now; and what all that stays takes. Each returns its exit code."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from t3_backup.backup import run
from t3_backup.backup.limits import limits_of
from t3_backup.cli.accounts import AccountDirs
from t3_backup.errors import EXIT_OK, Failure
from t3_backup.history.maintenance import Maintenance
from t3_backup.history.retention import Decision
from t3_backup.monitor import attempts, collect, recorder
from t3_backup.output import console
from t3_backup.output.console import Console
from t3_backup.restore.recovery import recover_interrupted
from t3_backup.settings import Settings
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.lock import WAIT_S
from t3_backup.store.store import Store
from t3_backup.system import signals
from t3_backup.t3 import databases
from t3_backup.text import INFO


def prune_command(args: argparse.Namespace, values: Settings) -> int:
    """`prune`: let go what retention lets go, and compact the rest; or (--dry-run) say what would go, what stays, and why."""
    out = Console(sys.stderr if args.json else sys.stdout)
    stop = signals.stop_on_signals()
    signals.lower_priority()
    documents: list[dict[str, Any]] = []
    warned = False
    with Store.open(values.dest) as store:
        store.lock(wait=WAIT_S, shared=args.dry_run)
        limits = limits_of(values, store.free_bytes, store.total_bytes())
        unended = [] if args.dry_run else recover_interrupted(store, limits, out.warn)
        noted = collect.attempts_of(store, out.warn)
        account_dirs = AccountDirs(store, args.user, out)
        for account_dir in account_dirs:
            found = attempts.uncovered_since(noted.get(account_dir.user, ()))
            hold = databases.summary(found[1].uncovered) if found else ""
            maintenance = run.maintenance_of(account_dir, values, limits, stop)
            decisions = maintenance.decisions()
            if args.dry_run:
                documents.append(_planned(account_dir, decisions, hold, out))
            else:
                documents.append(_pruned(account_dir, maintenance, decisions, hold, out))
                warned |= bool(documents[-1]["warnings"])
        measured = args.dry_run or recorder.write_metrics(recorder.metrics_folder(values, args.dest), store, values, out)
    if args.json:
        console.print_document({"accounts": documents})
    stop.end()
    return Failure.exit_code if warned or unended or account_dirs.refused or not measured else EXIT_OK


def _planned(account_dir: AccountDir, decisions: list[Decision], hold: str, out: Console) -> dict[str, Any]:
    warnings = [f"{account_dir.user}: nothing is pruned: {hold}"] if hold else []
    for warning in warnings:
        out.warn(warning)
    for decision in decisions:
        what = "keep" if decision.keep else "would prune"
        out.line(INFO, f"{what} {account_dir.user} {decision.snapshot.name} ({', '.join(decision.reasons)})")
    return _document(account_dir, decisions) | {"pruned": [], "compacted": [], "warnings": warnings}


def _pruned(
    account_dir: AccountDir, maintenance: Maintenance, decisions: list[Decision], hold: str, out: Console
) -> dict[str, Any]:
    why = {decision.snapshot.name: ", ".join(decision.reasons) for decision in decisions}
    account_dir.clear()
    done = maintenance.tidy(hold)
    for name in done.pruned:
        out.line(INFO, f"pruned {account_dir.user} {name} ({why[name]})")
    for name in done.compacted:
        out.line(INFO, f"compacted {account_dir.user} {name}")
    for warning in done.warnings:
        out.warn(warning)
    if not done.made_room:
        out.line(INFO, f"nothing of {account_dir.user} to prune or to compact")
    return _document(account_dir, decisions) | {"pruned": done.pruned, "compacted": done.compacted, "warnings": done.warnings}


def _document(account_dir: AccountDir, decisions: list[Decision]) -> dict[str, Any]:
    return {
        "user": account_dir.user,
        "decisions": [{"name": one.snapshot.name, "keep": one.keep, "reasons": list(one.reasons)} for one in decisions],
    }
