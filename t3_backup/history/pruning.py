"""Remove the snapshots that retention lets go, and nothing that a snapshot which stays needs.

A delta whose base goes gets another base first. What can't be read counts as needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from t3_backup.errors import Cancelled, Failure, explain
from t3_backup.history import chain, compaction, retention
from t3_backup.history.compaction import Compaction
from t3_backup.history.delta import Header
from t3_backup.history.result import MaintenanceResult
from t3_backup.history.retention import Policy
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.archives import remove_unused_archives
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest


@dataclass(frozen=True)
class Pruning:
    """Prune one account's folder; what comes of it is added to `done`."""

    account_dir: AccountDir
    policy: Policy
    stopping: threading.Event
    check_free_space: Callable[[], None]  # raises what ends it
    done: MaintenanceResult

    def prune(self) -> None:
        """Remove what the policy lets go, and the archives that no snapshot names then.

        Raises Cancelled, Failure and OSError where it did not come to its end.
        """
        user = self.account_dir.user
        if self._find_outdated(self.done.listing):
            # what is about to be removed is looked at once more
            self.done.listing = self.account_dir.read_listing()
        if held := next(
            (snapshot for snapshot in self.done.listing.snapshots if snapshot.holds), None
        ):
            why = f"{held.name} is {held.verdict} ({'; '.join(held.reasons)})"
            self.done.warnings.append(
                f"{user}: nothing is pruned: {why}; t3-backup-state accept {user}"
            )
            return
        outdated = self._find_outdated(self.done.listing)
        if outdated:
            # What has no sound manifest counts for nothing, but what it needs stays: the manifest
            # may come back.
            needed = chain.bases_of_strays(self.account_dir, self.done.listing.strays)
            outdated = [snapshot for snapshot in outdated if snapshot.sha256 not in needed]
            going = self._rebase({snapshot.name for snapshot in outdated})
            outdated = [snapshot for snapshot in outdated if snapshot.name in going]
        # the oldest first: a stop in between leaves what is newer
        for snapshot in reversed(outdated):
            chain.check_stop(self.stopping)
            try:
                self.account_dir.remove_snapshot(snapshot)
            except OSError as error:
                self.done.stale = True
                self.done.warnings.append(
                    f"{user}: {snapshot.name} can't be pruned: {error.strerror}"
                )
                return
            self.done.listing = self.done.listing.without_snapshot(snapshot)
            self.done.pruned.append(snapshot.name)
        try:
            self.done.refresh(self.account_dir)
            self.done.listing = remove_unused_archives(self.account_dir, self.done.listing)
        except OSError as error:
            self.done.stale = True
            self.done.warnings.append(f"{user}: an archive can't be pruned: {error.strerror}")

    def _find_outdated(self, listing: Listing) -> list[Manifest]:
        """Return the snapshots that the policy lets go, newest first; none while one is held."""
        if any(snapshot.holds for snapshot in listing.snapshots):
            return []
        decisions = retention.decide_retention(listing.snapshots, self.policy)
        return [decision.snapshot for decision in decisions if not decision.keep]

    def _rebase(self, going: set[str]) -> set[str]:
        """Give the deltas on those that go another base.

        Return the names of those that can go then.
        """
        snapshots = self.done.listing.snapshots
        headers = self._read_headers(going)
        kept = [snapshot for snapshot in snapshots if snapshot.name not in going]
        gone = [snapshot for snapshot in snapshots if snapshot.name in going]
        rebases, stuck = compaction.plan_rebases(kept, gone, headers)
        staying: set[str] = set()
        for snapshot, base in reversed(rebases):
            try:
                self.done.refresh(self.account_dir)
                step = Compaction(self.account_dir, self.done.listing, self.check_free_space)
                self.done.listing = step.pack_snapshot(snapshot, base) or self.done.listing
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                self.done.stale = True
                self.done.warnings.append(
                    f"{self.account_dir.user}: the base of {snapshot.name} can't be pruned: "
                    f"{explain(error)}"
                )
                staying |= self._chain_names(snapshot) or going
        for snapshot in gone:
            if snapshot.name in stuck:
                staying |= self._chain_names(snapshot) or going
        return going - staying

    def _read_headers(self, going: set[str]) -> dict[str, Header | None]:
        """Read the headers of those that stay, by name.

        What one that can't be read needs is taken from `going`.
        """
        headers: dict[str, Header | None] = {}
        snapshots = self.done.listing.snapshots
        # the oldest first: what is taken from it is newer, and is looked at, too
        for snapshot in reversed(snapshots):
            if snapshot.name in going:
                continue
            try:
                headers[snapshot.name] = chain.read_header(
                    self.account_dir, self.done.listing, snapshot
                )
            except (Failure, OSError) as error:
                # That is the nearest that there is: what was between the two went when it had got
                # the next as its base.
                self.done.warnings.append(
                    f"{self.account_dir.user}: {snapshot.name} can't be read, so the snapshots it "
                    f"needs are kept: {explain(error)}"
                )
                if base := compaction.choose_bases(snapshots).get(snapshot.name):
                    going.discard(base.name)
        return headers

    def _chain_names(self, snapshot: Manifest) -> set[str]:
        """Return the names of those that a snapshot needs; none where that can't be told."""
        try:
            self.done.refresh(self.account_dir)
            return {
                one.name for one in chain.read_chain(self.account_dir, self.done.listing, snapshot)
            }
        except (Failure, OSError):
            return set()
