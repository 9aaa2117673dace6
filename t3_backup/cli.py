"""`t3-backup-state`: arguments to calls, one function a subcommand; the exit code is the verdict.

0 all well; 1 at least one account or snapshot is not; 2 wrong use or configuration; 75 another run holds the store.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import t3_backup
from t3_backup import accounts, backup, report, settings, verify
from t3_backup.accounts import Account
from t3_backup.choice import choose
from t3_backup.errors import EXIT_OK, Cancelled, Failure, StoreError, UsageError, explain
from t3_backup.lock import GAP_S
from t3_backup.manifest import LABEL, is_legacy
from t3_backup.settings import Settings
from t3_backup.shelf import Shelf
from t3_backup.store import Store
from t3_backup.watch import Limits

_LOCK_WAIT_S = 5.0
_NICE = 10

_EXAMPLES = """\
examples:
  t3-backup-state                                  back up every account of the map, as the timer does
  t3-backup-state run --user alice --label prebump-0.0.25
  t3-backup-state list alice
  t3-backup-state verify alice --at 2026-11-24
  t3-backup-state accept alice                     a suspect or damaged snapshot has been looked at

settings: T3_BACKUP_DEST, T3_BACKUP_MAP, T3_BACKUP_KEEP, T3_BACKUP_TIMEOUT (seconds), T3_BACKUP_JOBS, T3_BACKUP_STALL (seconds),
  T3_BACKUP_WAL_BUDGET and T3_BACKUP_RESERVE (bytes; K, M, G), in /etc/default/t3-backup or the environment; a flag beats both.

exit status: 0 all well; 1 an account failed, a new snapshot is suspect or damaged, or one does not verify; 2 wrong use or
  configuration; 75 another run holds the store, try again later.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The command line, from which the help is made."""
    top = _Parser(
        prog="t3-backup-state",
        description="Proven copies of every T3 Code user's live database. Without a command: run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"t3-backup {t3_backup.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    store = _Parser(add_help=False)
    store.add_argument("--dest", metavar="DIR", help="the store (T3_BACKUP_DEST; /var/backups/t3-state)")
    store.add_argument("--json", action="store_true", help="one JSON document on standard output; lines go to standard error")

    run = commands.add_parser("run", parents=[store], help="back up the accounts of the map")
    run.add_argument("--user", action="append", metavar="U", help="only this account (may be repeated)")
    run.add_argument("--label", metavar="L", help="name the snapshots, and count them apart in retention")
    run.add_argument("--map", metavar="FILE", help="the user map (T3_BACKUP_MAP; /etc/ttyd-user-map)")
    run.add_argument("--keep", metavar="N", help="keep the newest N, and the newest of each of N days (T3_BACKUP_KEEP; 14)")
    run.add_argument("--timeout", metavar="S", help="seconds for one account (T3_BACKUP_TIMEOUT; 900)")
    run.add_argument("--jobs", metavar="N", help="accounts at once (T3_BACKUP_JOBS; 1)")
    run.add_argument("--dry-run", action="store_true", help="say what would be backed up, and write nothing")

    listing = commands.add_parser("list", parents=[store], help="show the snapshots, newest first")
    listing.add_argument("user", nargs="?", metavar="USER")

    proving = commands.add_parser("verify", parents=[store], help="prove sealed snapshots again")
    proving.add_argument("user", nargs="?", metavar="USER")
    proving.add_argument("--at", metavar="WHEN", help="one snapshot: its name, 'latest', a time, a date, or an age such as 3d")
    proving.add_argument("--timeout", metavar="S", help="seconds for one snapshot (T3_BACKUP_TIMEOUT; 900)")

    accepting = commands.add_parser("accept", parents=[store], help="end the hold of suspect and damaged snapshots")
    accepting.add_argument("user", metavar="USER")
    return top


def main(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ, defaults: Path = settings.DEFAULTS_FILE
) -> int:
    """Run the command and return its exit code; an error is one line on standard error."""
    try:
        args = parser().parse_args(sys.argv[1:] if argv is None else list(argv))
        if args.command is None:
            args = parser().parse_args(["run"])
        flags = {name: getattr(args, name, None) for name in ("dest", "map", "keep", "timeout", "jobs")}
        values = settings.load(flags, environ, defaults)
        commands = {"run": _run, "list": _list, "verify": _verify, "accept": _accept}
        return commands[args.command](args, values)
    except Failure as failure:
        report.Lines(sys.stderr).line(report.ERROR, f"t3-backup-state: {failure}")
        return failure.exit_code
    except OSError as error:
        report.Lines(sys.stderr).line(report.ERROR, f"t3-backup-state: {explain(error)}")
        return Failure.exit_code


def _run(args: argparse.Namespace, values: Settings) -> int:
    if args.label is not None and not LABEL.fullmatch(args.label):
        raise UsageError(
            f"--label {args.label!r} is not one: letters, digits and . _ + - (at most 64, the first a letter or digit)"
        )
    stopping = _stop_on_signals()
    _let_others_go_first()
    with report.reporter(sys.stderr if args.json else sys.stdout) as out:
        found, failures = _accounts(args.user, values, out)
        forgotten: list[str] = []
        if args.dry_run:
            results = failures + backup.plan(values, found, stopping, out.finished)
        else:
            with Store.open(values.dest, create=True) as store:
                store.lock(wait=_LOCK_WAIT_S)
                results = failures + backup.run(backup.Job(values, store, args.label, stopping, out.listen), found, out.finished)
                forgotten = _forgotten(store, results) if args.user is None else []
        failed = sum(result.alarms for result in results)
        for user in forgotten:
            out.warn(f"{user} has snapshots in {values.dest}, but is not in {values.map}")
        if not results:
            out.line(report.INFO, f"no users in {values.map}; nothing to back up")
        out.line(report.INFO, f"done ({len(results)} accounts, {failed} not well)")
    if args.json:
        report.print_document(report.run_document(results))
    lost_map = bool(forgotten) and not results
    return Failure.exit_code if failed or lost_map or out.broken or stopping.is_set() else EXIT_OK


def _forgotten(store: Store, results: list[backup.Result]) -> list[str]:
    """Who has a shelf and was no part of the run."""
    return [user for user in store.users() if user not in {result.user for result in results}]


def _accounts(users: list[str] | None, values: Settings, out: report.Lines) -> tuple[list[Account], list[backup.Result]]:
    """Whom to back up, and who of those named cannot be. Raises UsageError."""
    if os.geteuid() != 0:
        own = accounts.own()
        others = sorted(set(users or []) - {own.user})
        if others:
            raise UsageError(f"{own.user} is not root and may back up his own account alone, not {', '.join(others)}")
        return [own], []
    if users:
        wanted = sorted(set(users))
        known = None
    else:
        known = accounts.read_map(values.map)
        wanted = list(known.users)
        for warning in known.warnings:
            out.warn(warning)
    found, failures = [], []
    for user in wanted:
        try:
            found.append(accounts.find(user))
        except Failure as failure:
            failures.append(backup.Result(user, "failed", str(failure)))
            out.finished(failures[-1])
    if known is not None and not found and not failures and not known.is_empty:
        raise Failure(f"{values.map}: not one line of it names an account")
    return found, failures


def _list(args: argparse.Namespace, values: Settings) -> int:
    out = report.Lines(sys.stderr if args.json else sys.stdout)
    documents: list[dict[str, Any]] = []
    with Store.open(values.dest) as store:
        shelves = _Shelves(store, args.user, out)
        for shelf in shelves:
            entry = _entry(shelf, [backup.document(shelf, snapshot) for snapshot in shelf.snapshots()])
            documents.append(entry)
            if not args.json:
                for line in report.list_lines(shelf.user, entry["snapshots"], entry["strays"], report.utc_now()):
                    out.line(report.INFO, line)
    if args.json:
        report.print_document({"accounts": documents})
    elif not documents:
        out.line(report.INFO, f"no snapshots in {values.dest}")
    return Failure.exit_code if shelves.refused else EXIT_OK


def _verify(args: argparse.Namespace, values: Settings) -> int:
    stopping = _stop_on_signals()
    _let_others_go_first()
    out = report.Lines(sys.stderr if args.json else sys.stdout)
    documents, failed, done = [], 0, 0
    with Store.open(values.dest) as store:
        limits = Limits(values.timeout, values.stall, values.wal_budget, 0, store.free_bytes)
        shelves = _Shelves(store, args.user, out)
        for shelf in shelves:
            snapshots = shelf.snapshots()
            if args.at is not None:
                snapshots = [choose(snapshots, args.at, report.utc_now())]
            entries = []
            for snapshot in snapshots:
                # Locked for one at a time, with a gap: a proof of everything must not cost the timer its run.
                if stopping.is_set() or (done and stopping.wait(GAP_S)):
                    break
                with store.locked(shared=True, wait=_LOCK_WAIT_S if not done else values.timeout):
                    if not shelf.holds(snapshot):
                        continue  # pruned in the meantime
                    try:
                        check = verify.verify(shelf, snapshot, limits, stopping)
                    except Cancelled:
                        break
                done += 1
                failed += not check.holds
                out.line(*report.check_line(check))
                entries.append(backup.document(shelf, snapshot) | {"verifies": check.holds, "problems": list(check.reasons)})
            documents.append(_entry(shelf, entries))
            for name in documents[-1]["strays"] if args.at is None else []:
                out.warn(f"{shelf.user} {name} is not counted: it has no sound manifest")
                failed += not is_legacy(name)  # one of ours had a manifest once
    if args.json:
        report.print_document({"accounts": documents})
    return Failure.exit_code if failed or shelves.refused or stopping.is_set() else EXIT_OK


def _entry(shelf: Shelf, snapshots: list[dict[str, Any]]) -> dict[str, Any]:
    """An account as the interface has it."""
    return {"user": shelf.user, "snapshots": snapshots, "strays": shelf.strays()}


def _accept(args: argparse.Namespace, values: Settings) -> int:
    out = report.Lines(sys.stderr if args.json else sys.stdout)
    with Store.open(values.dest) as store:
        store.lock(wait=_LOCK_WAIT_S)
        accepted = backup.accept(store, args.user, report.utc_now())
    for snapshot in accepted:
        out.line(report.INFO, f"accepted {snapshot.user} {snapshot.name} ({'; '.join(snapshot.reasons)})")
    if not accepted:
        out.line(report.INFO, f"nothing of {args.user} waits to be accepted")
    if args.json:
        report.print_document({"accounts": [{"user": args.user, "snapshots": [s.as_json() for s in accepted]}]})
    return EXIT_OK


class _Shelves:
    """The shelf of `user`, or all of them, each open while it is looked at. One of many that can't be is said, and counted."""

    def __init__(self, store: Store, user: str | None, out: report.Lines) -> None:
        self._store = store
        self._user = user
        self._out = out
        self.refused = 0

    def __iter__(self) -> Iterator[Shelf]:
        for user in [self._user] if self._user is not None else self._store.users():
            try:
                shelf = self._store.shelf(user)
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


def _let_others_go_first() -> None:
    """The users' servers are on the same processors."""
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set: what runs is stopped cleanly, what waits is not begun.

    The terminal can't put it to sleep: with the workers asleep a pin would hold a server's -wal, and with the parent asleep
    nobody would end it.
    """
    stopping = threading.Event()
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)  # the workers inherit it
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


if __name__ == "__main__":
    sys.exit(main())
