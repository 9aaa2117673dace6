"""The command `status`: say how each account's backups are; also for Nagios.

A check answers in its own way whatever happens: one line on standard output, and exit code 3 for
unknown.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace

from t3_backup.errors import EXIT_OK, Failure, StoreError, UsageError, explain
from t3_backup.monitor import collect, health
from t3_backup.monitor import status as monitor_status
from t3_backup.monitor.collect import Overview
from t3_backup.output import console
from t3_backup.output.console import Console
from t3_backup.settings import Settings
from t3_backup.store import selection
from t3_backup.store.identity import check_identity
from t3_backup.store.known_stores import KnownStores
from t3_backup.store.store import Store
from t3_backup.system.disk import reserve_of
from t3_backup.text import INFO, utc_now


def status_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `status`: say how each account's backups are. Nothing is locked or written."""
    limits = _thresholds(args)
    out = Console(sys.stderr if args.json else sys.stdout)
    known = collect.users_to_watch(values.map)
    named = known.users if args.dest is None else ()
    problem = check_identity(values.dest, KnownStores.own(), named).problem
    try:
        with Store.open(values.dest) as store:
            reserve = reserve_of(values.reserve, store.total_bytes())
            overview = collect.collect_overview(
                store, known, args.user, logins=values.logins, reserve=reserve
            )
    except StoreError:
        if not problem:
            raise
        overview = Overview(values.dest, 0, ())
    overview = replace(overview, store_problem=problem)
    status = monitor_status.status_of(overview, utc_now(), limits)
    if args.nagios:
        if not status.accounts and not problem:
            raise Failure(f"no accounts: none in {values.map}, and no snapshots in {values.dest}")
        line, code = monitor_status.nagios(status)
        out.line(INFO, line)
        return code
    for warning in ([problem] if problem else []) + list(status.overview.warnings):
        out.warn(warning)
    if args.json:
        console.print_document(monitor_status.document(status))
    else:
        for line in monitor_status.table(status):
            out.line(INFO, line)
    return Failure.exit_code if status.state == health.CRITICAL else EXIT_OK


def answer_check(check: Callable[[], int]) -> int:
    """Return the exit code of `check`; whatever else ends it is said as UNKNOWN."""
    try:
        return console.check_output("t3-backup-state", check(), monitor_status.UNKNOWN)
    except (Failure, OSError) as error:
        why = explain(error)
    except Exception as error:  # noqa: BLE001 - a monitor reads no traceback
        why = f"internal error, please report it: {error!r}"
    Console(sys.stdout).line(INFO, monitor_status.plugin_line("UNKNOWN", why))
    return monitor_status.UNKNOWN


def _thresholds(args: argparse.Namespace) -> health.Thresholds:
    """Read --max-age and --min-snapshots. Raises UsageError."""
    most = selection.parse_span(args.max_age)
    if not most:
        raise UsageError(f"--max-age {args.max_age!r} is no time span such as 90m, 26h or 2d")
    if not re.fullmatch(r"[0-9]{1,6}", args.min_snapshots):
        wanted = "no whole number from 0 to 999999"
        raise UsageError(f"--min-snapshots {args.min_snapshots!r} is {wanted}")
    if args.json and args.nagios:
        raise UsageError("--json and --nagios can't be used together")
    return health.Thresholds(most, int(args.min_snapshots))
