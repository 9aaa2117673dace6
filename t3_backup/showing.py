"""Commands that only read the store: `list`, `report`, `verify` and `status`. Each returns its exit code."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t3_backup.backup.limits import limits_of
from t3_backup.errors import EXIT_OK, Cancelled, Failure, StoreError, UsageError
from t3_backup.history import verify
from t3_backup.history.chain import Walk
from t3_backup.monitor import attempts, collect, health, html
from t3_backup.monitor import status as monitor_status
from t3_backup.monitor.html import Shelved
from t3_backup.output import console, messages
from t3_backup.output.console import Console
from t3_backup.restore import pending
from t3_backup.restore.pending import PendingRestore
from t3_backup.settings import Settings
from t3_backup.store import selection
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.documents import snapshot_document
from t3_backup.store.lock import GAP_S, WAIT_S
from t3_backup.store.names import is_legacy
from t3_backup.store.selection import select_snapshot
from t3_backup.store.store import Store
from t3_backup.system import output_file, signals
from t3_backup.text import INFO, utc_now


def show_list(args: argparse.Namespace, values: Settings) -> int:
    """`list`: what there is, newest first."""
    out = Console(sys.stderr if args.json else sys.stdout)
    documents: list[dict[str, Any]] = []
    with Store.open(values.dest) as store:
        restores = _restores(store, args.user, out)
        shelves = Shelves(store, args.user, out)
        for shelf in shelves:
            entry = entry_of(store, shelf, [snapshot_document(shelf, snapshot) for snapshot in shelf.snapshots()], restores)
            documents.append(entry)
            if not args.json:
                for line in messages.list_lines(entry, utc_now()):
                    out.line(INFO, line)
    if args.json:
        console.print_document({"accounts": documents})
    elif not documents:
        out.line(INFO, f"no snapshots in {values.dest}")
    return Failure.exit_code if shelves.refused else EXIT_OK


def show_report(args: argparse.Namespace, values: Settings) -> int:
    """`report`: the same as a page of HTML."""
    html.template_engine()  # whoever lacks it hears so before anything else
    out = Console(sys.stderr)
    accounts: list[Shelved] = []
    with Store.open(values.dest) as store:
        noted = collect.attempts_of(store, out.warn)
        shelves = Shelves(store, args.user, out)
        for shelf in shelves:
            entry = entry_of(store, shelf, [], {})
            found = attempts.uncovered_since(noted.get(shelf.user, ()))
            names = found[1].uncovered if found else ()
            accounts.append(Shelved(shelf.user, shelf.snapshots(), messages.not_counted(entry), names))
        free = store.free_bytes()
    place = f"{values.dest} on {os.uname().nodename}"
    text = html.render_page(html.build_page(accounts, place, free, utc_now()))
    if args.html == "-":
        console.print_text(text)
    else:
        output_file.write_output(Path(args.html), text)
    return Failure.exit_code if shelves.refused else EXIT_OK


def show_verify(args: argparse.Namespace, values: Settings) -> int:
    """`verify`: prove sealed snapshots again."""
    stop = signals.stop_on_signals()
    signals.lower_priority()
    out = Console(sys.stderr if args.json else sys.stdout)
    documents, failed, done = [], 0, 0
    with Store.open(values.dest) as store:
        limits = limits_of(values, store.free_bytes, store.total_bytes())
        restores = _restores(store, args.user, out)
        shelves = Shelves(store, args.user, out)
        for shelf in shelves:
            snapshots = shelf.snapshots()
            if args.at is not None:
                snapshots = [select_snapshot(snapshots, args.at, utc_now())]
            entries: list[dict[str, Any]] = []
            archives: dict[str, str] = {}
            with Walk(shelf, limits, stop) as walk:
                for snapshot in snapshots:
                    # Locked for one at a time, with a gap: a proof of everything must not cost the timer its run.
                    if stop.is_set() or (done and stop.wait(GAP_S)):
                        break
                    with store.locked(shared=True, wait=WAIT_S if not done else values.timeout):
                        if not shelf.holds(snapshot):
                            continue  # pruned in the meantime
                        try:
                            check = verify.verify_snapshot(shelf, snapshot, limits, stop, walk)
                            if snapshot.companion is not None:
                                sha256 = snapshot.companion.sha256
                                if sha256 not in archives:  # the same one belongs to many
                                    archives[sha256] = verify.verify_archive(shelf, snapshot.companion, limits, stop)
                                check = check.and_also(archives[sha256])
                        except Cancelled:
                            break
                    done += 1
                    failed += not check.holds
                    out.line(*messages.check_line(check))
                    entries.append(snapshot_document(shelf, snapshot) | {"verifies": check.holds, "problems": list(check.reasons)})
            documents.append(entry_of(store, shelf, entries, restores))
            for name in documents[-1]["strays"] if args.at is None else []:
                out.warn(f"{shelf.user} {name} is not counted: it has no sound manifest")
                failed += not is_legacy(name)  # one of ours had a manifest once
    if args.json:
        console.print_document({"accounts": documents})
    stop.end()
    return Failure.exit_code if failed or shelves.refused else EXIT_OK


def show_status(args: argparse.Namespace, values: Settings) -> int:
    """`status`: how each account's backups are. Nothing is locked or written."""
    limits = _thresholds(args)
    out = Console(sys.stderr if args.json else sys.stdout)
    known = collect.users_to_watch(values.map)
    with Store.open(values.dest) as store:
        status = monitor_status.status_of(collect.collect_overview(store, known, args.user), utc_now(), limits)
    if args.nagios:
        if not status.accounts:
            raise Failure(f"no accounts: nobody in {values.map}, and no snapshots in {values.dest}")
        line, code = monitor_status.nagios(status)
        out.line(INFO, line)
        return code
    for warning in status.overview.warnings:
        out.warn(warning)
    if args.json:
        console.print_document(monitor_status.document(status))
    else:
        for line in monitor_status.table(status):
            out.line(INFO, line)
    return Failure.exit_code if status.state == health.CRITICAL or out.broken else EXIT_OK


def _thresholds(args: argparse.Namespace) -> health.Thresholds:
    """What --max-age and --min-snapshots say. Raises UsageError."""
    most = selection.parse_span(args.max_age)
    if not most:
        raise UsageError(f"--max-age {args.max_age!r} is no time span such as 90m, 26h or 2d")
    if not re.fullmatch(r"[0-9]{1,6}", args.min_snapshots):
        raise UsageError(f"--min-snapshots {args.min_snapshots!r} is no whole number from 0 to 999999")
    if args.json and args.nagios:
        raise UsageError("--json and --nagios are two outputs; choose one")
    return health.Thresholds(most, int(args.min_snapshots))


def _restores(store: Store, user: str | None, out: Console) -> dict[str, PendingRestore]:
    """Those that have not ended, by user; of `user` alone, where one is named. Each is said."""
    found = {restore.user: restore for restore in pending.find_pending(store) if user in (None, restore.user)}
    for restore in found.values():
        out.warn(restore.text)
    return found


def entry_of(
    store: Store, shelf: AccountDir, snapshots: list[dict[str, Any]], restores: Mapping[str, PendingRestore]
) -> dict[str, Any]:
    """An account as the interface has it."""
    leftovers = [str(store.path / name) for name in store.aside(shelf.user) + store.leftovers(shelf.user)]
    restore = restores[shelf.user].as_json() if shelf.user in restores else None
    return {"user": shelf.user, "snapshots": snapshots, "strays": shelf.strays(), "leftovers": leftovers, "restore": restore}


class Shelves:
    """The shelf of `user`, or all of them, each open while it is looked at. One of many that can't be is said, and counted."""

    def __init__(self, store: Store, user: str | None, out: Console) -> None:
        self._store = store
        self._user = user
        self._out = out
        self.refused = 0

    def __iter__(self) -> Iterator[AccountDir]:
        for user in [self._user] if self._user is not None else self._store.users():
            try:
                shelf = self._store.shelf(user)
                if shelf is None and self._user is None:
                    continue  # that of a user without a database, which a run makes and removes again
                if shelf is None:
                    raise StoreError(f"no snapshots of {user} in {self._store.path}")
            except StoreError as error:
                if self._user is not None:
                    raise
                self._out.warn(str(error))
                self.refused += 1
                continue
            with shelf:
                yield shelf
