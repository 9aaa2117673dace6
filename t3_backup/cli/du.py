"""The command `du`: say how much of the disk each account's history takes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from t3_backup.cli.accounts import AccountDirs
from t3_backup.errors import EXIT_OK, Failure
from t3_backup.history import usage
from t3_backup.output import console, documents, messages
from t3_backup.output.console import Console
from t3_backup.settings import Settings
from t3_backup.store.identity import open_store
from t3_backup.text import INFO, format_size


def du_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `du`: say what each account's history takes, and full copies would."""
    out = Console(sys.stderr if args.json else sys.stdout)
    accounts: list[dict[str, Any]] = []
    with open_store(values.dest) as store:
        account_dirs = AccountDirs(store, args.user, out)
        for account_dir in account_dirs:
            found = usage.measure_usage(account_dir)
            accounts.append(documents.usage_document(found))
            for line in [] if args.json else messages.usage_lines(found):
                out.line(INFO, line)
        free = store.free_bytes()
    if args.json:
        console.print_document({"accounts": accounts, "free_bytes": free})
    else:
        out.line(INFO, f"{format_size(free)} free in {values.dest}")
    return Failure.exit_code if account_dirs.refused else EXIT_OK
