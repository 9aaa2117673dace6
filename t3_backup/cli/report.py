"""The command `report`: write all accounts as one page of HTML."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from t3_backup.accounts import UserMap
from t3_backup.cli.accounts import account_contents
from t3_backup.errors import EXIT_OK, Failure, StoreError
from t3_backup.monitor import collect, html
from t3_backup.monitor.collect import AccountView
from t3_backup.monitor.health import Thresholds, judge_health
from t3_backup.monitor.html import AccountHistory
from t3_backup.output import console, messages
from t3_backup.output.console import Console
from t3_backup.settings import Settings
from t3_backup.store.identity import open_store
from t3_backup.store.store import Store
from t3_backup.system import atomic_file
from t3_backup.system.disk import reserve_of
from t3_backup.text import utc_now


def report_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `report`: write the accounts as a page of HTML."""
    html.template_engine()  # whoever lacks it hears so before anything else
    out, now = Console(sys.stderr), utc_now()
    with open_store(values.dest) as store:
        known = _users(values, store, out)
        if args.user is not None and args.user not in {*known.users, *store.users()}:
            raise StoreError(f"no snapshots of {args.user} in {store.path}")
        reserve = reserve_of(values.reserve, store.total_bytes())
        overview = collect.collect_overview(
            store, known, args.user, logins=values.logins, reserve=reserve
        )
        accounts = [
            AccountHistory(judge_health(view, now, Thresholds()), _notes(store, view))
            for view in overview.accounts
        ]
    place = f"{values.dest} on {os.uname().nodename}"
    page = html.build_page(accounts, place, overview.free_bytes, now, overview.warnings)
    text = html.render_page(page)
    if args.html == "-":
        console.print_text(text)
    else:
        atomic_file.write_output(Path(args.html), text)
    refused = [view.problem for view in overview.accounts if view.problem]
    for problem in (*overview.warnings, *refused):
        out.warn(problem)
    return Failure.exit_code if refused else EXIT_OK


def _users(values: Settings, store: Store, out: Console) -> UserMap:
    """Tell whose backups the map names; without one, those who have an account folder."""
    try:
        return collect.users_to_watch(values.map)
    except Failure as failure:
        out.warn(f"{failure}; the report has the accounts of the store alone")
        return UserMap(tuple(store.users()), ())


def _notes(store: Store, view: AccountView) -> list[str]:
    """Say what lies in an account's folder, or beside it, and does not count."""
    try:
        account_dir = store.account_dir(view.user)
        if account_dir is None:
            return []
        with account_dir:
            contents = account_contents(store, view.user, account_dir.read_listing(), {})
    except (StoreError, OSError):
        return []  # which is the account's problem already
    return messages.uncounted_lines(contents)
