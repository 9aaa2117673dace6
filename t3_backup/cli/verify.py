"""The command `verify`: prove sealed snapshots again."""

from __future__ import annotations

import argparse
import errno
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from t3_backup.backup.limits import limits_of
from t3_backup.cli.accounts import AccountDirs, account_contents, pending_restores
from t3_backup.errors import EXIT_OK, EXIT_UNCHECKED, Cancelled, Failure, explain
from t3_backup.history.account_proof import AccountProof
from t3_backup.history.proof_record import record_result
from t3_backup.history.verify import VerifyResult
from t3_backup.monitor import recorder
from t3_backup.output import console, documents, messages
from t3_backup.output.console import Console
from t3_backup.restore.pending import PendingRestore
from t3_backup.settings import Settings
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.catalog import explain_loss
from t3_backup.store.identity import open_store
from t3_backup.store.listing import Listing, StoredSnapshot
from t3_backup.store.lock import GAP_S, WAIT_S
from t3_backup.store.losses import refuse_lost
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import is_legacy
from t3_backup.store.selection import select_snapshot
from t3_backup.store.store import Store
from t3_backup.system import signals
from t3_backup.system.signals import StopRequest
from t3_backup.text import utc_now


def verify_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `verify`: prove sealed snapshots again."""
    pause = threading.Event()
    stop = signals.stop_on_signals(pause.set)
    signals.pause_on_signal(pause)
    signals.lower_priority()
    out = Console(sys.stderr if args.json else sys.stdout)
    with open_store(values.dest) as store:
        restores = pending_restores(store, args.user, out)
        account_dirs = AccountDirs(store, args.user, out)
        this = _Verification(store, values, args.at, stop, pause, out, restores)
        accounts = [this.verify_account(account_dir) for account_dir in account_dirs]
        # Where that fails it is said; the exit code is about the proofs, and a run tries it again.
        recorder.write_metrics(store, values, args.dest, out)
    if args.json:
        console.print_document({"accounts": accounts})
    stop.end()
    return Failure.exit_code if account_dirs.refused else this.exit_code


@dataclass
class _Verification:
    """One call of the command: what it works with, and what it has come to so far."""

    store: Store
    values: Settings
    at: str | None  # the snapshot that is meant; None: all
    stop: StopRequest
    pause: threading.Event  # set where a proof is to end, for now or for good
    out: Console
    restores: dict[str, PendingRestore]
    done: int = 0
    failed: int = 0
    unchecked: int = 0
    _listing: Listing = field(init=False)
    _unrecorded: bool = False  # where an outcome could not be written down
    _checked: list[tuple[StoredSnapshot, VerifyResult]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """What it has come to."""
        if self.failed or self._unrecorded:
            return Failure.exit_code
        return EXIT_UNCHECKED if self.unchecked else EXIT_OK

    def verify_account(self, account_dir: AccountDir) -> dict[str, Any]:
        """Prove the snapshots of one account, tell of each, and return its document."""
        self._checked = []
        listing = account_dir.read_listing()
        self._prove_all(account_dir)
        for message in messages.fault_messages([one for _, one in self._checked]):
            self.out.line(message.priority, message.text)
        listing = account_dir.update_listing(listing)
        contents = account_contents(self.store, account_dir.user, listing, self.restores)
        if contents.lost and self.at is None:
            self.out.warn(f"{account_dir.user}: {explain_loss(account_dir.user, contents.lost)}")
            self.failed += len(contents.lost)
        for name in contents.strays if self.at is None else []:
            self.out.warn(f"{account_dir.user} {name} is not counted: it has no valid manifest")
            self.failed += not is_legacy(name)  # one of ours had a manifest once
        return documents.verify_document(contents, self._checked)

    def _prove_all(self, account_dir: AccountDir) -> None:
        self._listing = account_dir.read_listing()
        snapshots = list(self._listing.snapshots)
        if self.at is not None:
            refuse_lost(self.store, account_dir.user, self._listing, [self.at])
            snapshots = [select_snapshot(snapshots, self.at, utc_now())]
        limits = limits_of(self.values, self.store.free_bytes, self.store.total_bytes())
        with AccountProof(account_dir, limits, self.pause) as proof:
            for snapshot in snapshots:
                if (proven := self._prove_one(account_dir, proof, snapshot)) is not None:
                    self._take(*proven)
                if self.stop.is_set():
                    return

    def _prove_one(
        self, account_dir: AccountDir, proof: AccountProof, snapshot: Manifest
    ) -> tuple[StoredSnapshot, VerifyResult] | None:
        """Prove one snapshot; None where it was pruned meanwhile, or somebody wants an end.

        Whoever asks for a pause has the store in between, and it is begun anew.
        """
        paused = False
        while not ((self.done or paused) and self.stop.wait(GAP_S)):
            # Locked for one at a time, with a gap: it must not cost the timer its run.
            wait = self.values.timeout if self.done or paused else WAIT_S
            self.pause.clear()
            with self.store.locked(shared=True, wait=wait):
                if self.stop.is_set() or not account_dir.has_manifest(snapshot):
                    break
                # others may be deltas by now
                self._listing = listing = account_dir.update_listing(self._listing)
                try:
                    result = proof.verify(listing, snapshot)
                except Cancelled:
                    paused = True
                    continue
                self._record(account_dir, result)
                return listing.stored_snapshot(snapshot), result
        return None

    def _record(self, account_dir: AccountDir, result: VerifyResult) -> None:
        try:
            record_result(account_dir, result, utc_now())
        except OSError as error:
            if not self._unrecorded and error.errno != errno.EROFS:  # nobody wants that changed
                self.out.warn(f"{account_dir.user}: no proof can be recorded: {explain(error)}")
            self._unrecorded |= error.errno != errno.EROFS

    def _take(self, stored: StoredSnapshot, result: VerifyResult) -> None:
        self.done += 1
        self.failed += result.outcome == "failed" or bool(result.remarks)
        self.unchecked += result.outcome == "unchecked"
        self._checked.append((stored, result))
        for message in messages.verify_messages(result):
            self.out.line(message.priority, message.text)
