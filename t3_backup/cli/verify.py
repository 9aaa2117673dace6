"""The command `verify`: prove sealed snapshots again."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from t3_backup.backup.limits import limits_of
from t3_backup.cli.accounts import AccountDirs, account_contents, pending_restores
from t3_backup.errors import EXIT_OK, Cancelled, Failure
from t3_backup.history import verify
from t3_backup.history.chain_reader import ChainReaders
from t3_backup.history.verify import VerifyResult
from t3_backup.output import console, documents, messages
from t3_backup.output.console import Console
from t3_backup.settings import Settings
from t3_backup.store.listing import StoredSnapshot
from t3_backup.store.lock import GAP_S, WAIT_S
from t3_backup.store.names import is_legacy
from t3_backup.store.selection import select_snapshot
from t3_backup.store.store import Store
from t3_backup.system import signals
from t3_backup.text import utc_now


def verify_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `verify`: prove sealed snapshots again."""
    stop = signals.stop_on_signals()
    signals.lower_priority()
    out = Console(sys.stderr if args.json else sys.stdout)
    accounts, failed, done = list[dict[str, Any]](), 0, 0
    with Store.open(values.dest) as store:
        limits = limits_of(values, store.free_bytes, store.total_bytes())
        restores = pending_restores(store, args.user, out)
        account_dirs = AccountDirs(store, args.user, out)
        for account_dir in account_dirs:
            listing = account_dir.read_listing()
            snapshots = list(listing.snapshots)
            if args.at is not None:
                snapshots = [select_snapshot(snapshots, args.at, utc_now())]
            checked: list[tuple[StoredSnapshot, VerifyResult]] = []
            archives: dict[str, str] = {}
            with ChainReaders(account_dir, limits, stop) as readers:
                for snapshot in snapshots:
                    # Locked for one at a time, with a gap: it must not cost the timer its run.
                    if stop.is_set() or (done and stop.wait(GAP_S)):
                        break
                    with store.locked(shared=True, wait=WAIT_S if not done else values.timeout):
                        if not account_dir.has_manifest(snapshot):
                            continue  # pruned in the meantime
                        # and others may have become deltas
                        listing = account_dir.update_listing(listing)
                        try:
                            check = verify.verify_snapshot(
                                account_dir, listing, snapshot, limits, stop, readers
                            )
                            if archive := snapshot.companion:
                                if archive.sha256 not in archives:  # the same one belongs to many
                                    archives[archive.sha256] = verify.verify_archive(
                                        account_dir, archive, limits, stop
                                    )
                                check = check.with_problem(archives[archive.sha256])
                        except Cancelled:
                            break
                    done += 1
                    failed += not check.verifies
                    message = messages.verify_message(check)
                    out.line(message.priority, message.text)
                    checked.append((listing.stored_snapshot(snapshot), check))
            listing = account_dir.update_listing(listing)
            contents = account_contents(store, account_dir.user, listing, restores)
            accounts.append(documents.verify_document(contents, checked))
            for name in contents.strays if args.at is None else []:
                out.warn(f"{account_dir.user} {name} is not counted: it has no valid manifest")
                failed += not is_legacy(name)  # one of ours had a manifest once
    if args.json:
        console.print_document({"accounts": accounts})
    stop.end()
    return Failure.exit_code if failed or account_dirs.refused else EXIT_OK
