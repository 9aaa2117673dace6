"""The command `report`: write all accounts as one page of HTML."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from t3_backup.cli.accounts import AccountDirs, account_contents
from t3_backup.errors import EXIT_OK, Failure
from t3_backup.monitor import collect, html
from t3_backup.monitor.html import AccountHistory
from t3_backup.output import console, messages
from t3_backup.output.console import Console
from t3_backup.settings import Settings
from t3_backup.store.store import Store
from t3_backup.system import atomic_file
from t3_backup.t3.login_report import read_login
from t3_backup.text import utc_now


def report_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `report`: write the accounts as a page of HTML."""
    html.template_engine()  # whoever lacks it hears so before anything else
    out = Console(sys.stderr)
    accounts: list[AccountHistory] = []
    with Store.open(values.dest) as store:
        noted = collect.attempts_of(store, out.warn)
        account_dirs = AccountDirs(store, args.user, out)
        for account_dir in account_dirs:
            listing = account_dir.read_listing()
            user = account_dir.user
            contents = account_contents(store, user, listing, {})
            notes = messages.uncounted_lines(contents) + _login_notes(values.logins, user)
            tried = noted.get(user, ())
            accounts.append(AccountHistory(user, listing.snapshots, notes, tried))
        free = store.free_bytes()
    place = f"{values.dest} on {os.uname().nodename}"
    text = html.render_page(html.build_page(accounts, place, free, utc_now()))
    if args.html == "-":
        console.print_text(text)
    else:
        atomic_file.write_output(Path(args.html), text)
    return Failure.exit_code if account_dirs.refused else EXIT_OK


def _login_notes(logins: Path | None, user: str) -> list[str]:
    """Say what is wrong with an account's logins, where t3-autoupdate has said so."""
    trouble = read_login(logins, user).trouble(user, utc_now()) if logins is not None else ""
    return [trouble] if trouble else []
