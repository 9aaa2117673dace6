"""The command `list`: show the snapshots, newest first."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from t3_backup.cli.accounts import AccountDirs, account_contents, pending_restores
from t3_backup.errors import EXIT_OK, Failure
from t3_backup.output import console, documents, messages
from t3_backup.output.console import Console
from t3_backup.settings import Settings
from t3_backup.store.identity import open_store
from t3_backup.text import INFO, utc_now


def list_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `list`: show what there is, newest first."""
    out = Console(sys.stderr if args.json else sys.stdout)
    accounts: list[dict[str, Any]] = []
    with open_store(values.dest) as store:
        restores = pending_restores(store, args.user, out)
        account_dirs = AccountDirs(store, args.user, out)
        for account_dir in account_dirs:
            listing = account_dir.read_listing()
            contents = account_contents(store, account_dir.user, listing, restores)
            accounts.append(documents.contents_document(contents))
            if not args.json:
                for line in messages.list_lines(contents, utc_now()):
                    out.line(INFO, line)
    if args.json:
        console.print_document({"accounts": accounts})
    elif not accounts:
        out.line(INFO, f"no snapshots in {values.dest}")
    return Failure.exit_code if account_dirs.refused else EXIT_OK
