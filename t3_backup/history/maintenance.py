"""Keep an account's folder small and in order.

Retention removes snapshots, and compaction turns the rest into deltas. Each step leaves every
snapshot that stays whole, whatever ends it. What can't be done now is said, and done by the next
run.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from t3_backup.errors import Cancelled, Failure, NoRoom, explain
from t3_backup.history import chain, compaction, page_hashes, reflink, retention
from t3_backup.history.compaction import Compaction
from t3_backup.history.delta import Header
from t3_backup.history.retention import Decision, Policy
from t3_backup.settings import Settings
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.archives import remove_unused_archives
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest
from t3_backup.system.disk import BLOCK_BYTES, used_bytes
from t3_backup.worker.limits import Limits

AUTO, DELTA, REFLINK, OFF = "auto", "delta", "reflink", "off"  # as T3_BACKUP_COMPACT has them


@dataclass
class MaintenanceResult:
    """What pruning and compaction did, and the folder since then."""

    listing: Listing
    pruned: list[str] = field(default_factory=list)
    compacted: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stopped: bool = False  # it did not come to its end
    stale: bool = False  # a change failed half way: what `listing` says may not be so any more

    @property
    def freed_space(self) -> bool:
        """Tell whether something was removed or became smaller."""
        return bool(self.pruned or self.compacted)


@dataclass(frozen=True)
class Maintenance:
    """Prune and compact one account's folder, under the store's lock."""

    account_dir: AccountDir
    listing: Listing
    policy: Policy
    mode: str  # one of these
    limits: Limits
    stopping: threading.Event
    free_before: int  # bytes, when it began
    # whether the file system shares extents; None: it is not known yet
    known_to_share: bool | None = None

    @classmethod
    def of(
        cls,
        account_dir: AccountDir,
        listing: Listing,
        settings: Settings,
        limits: Limits,
        stopping: threading.Event,
    ) -> Self:
        """Return the maintenance of an account's folder, as the settings have it."""
        return cls(
            account_dir,
            listing,
            Policy.of(settings),
            settings.compact,
            limits,
            stopping,
            limits.free_bytes(),
        )

    def shares_extents(self) -> bool:
        """Tell whether snapshots are to share extents with those before them.

        Raises OSError where that can't be told.
        """
        if self.mode not in (AUTO, REFLINK):
            return False
        return (
            reflink.can_share(self.account_dir)
            if self.known_to_share is None
            else self.known_to_share
        )

    def lasting_bytes(self) -> int:
        """Return what the history takes beside one more plain copy.

        The newest of now is compacted then. Raises OSError.
        """
        plain = next(
            (snapshot for snapshot in self.listing.snapshots if self.listing.is_plain(snapshot)),
            None,
        )
        going = 0
        if plain is not None and self.mode != OFF and not self.shares_extents():
            going = (
                self.account_dir.stat_file(self.listing.data_name(plain)).st_blocks * BLOCK_BYTES
            )
        return used_bytes(self.account_dir.fd) - going

    def decide_retention(self) -> list[Decision]:
        """Decide what becomes of each snapshot, newest first."""
        return retention.decide_retention(self.listing.snapshots, self.policy)

    def tidy(self, hold: str = "") -> MaintenanceResult:
        """Prune, unless a `hold` says why not, and compact.

        Never raises for what can't be done; `stopped` where it was not to go on.
        """
        done = MaintenanceResult(self.listing)
        if hold:
            done.warnings.append(f"{self.account_dir.user}: nothing is pruned: {hold}")
        for step in (self._compact,) if hold else (self._prune, self._compact):
            try:
                self._refresh(done)
                step(done)
            except Cancelled:
                done.stopped = True
                break
            except (Failure, OSError) as error:
                done.stale = True
                done.warnings.append(
                    f"{self.account_dir.user}: pruning or compaction did not finish: "
                    f"{explain(error)}"
                )
        with contextlib.suppress(OSError):
            self._refresh(done)
        return done

    def _refresh(self, done: MaintenanceResult) -> None:
        """Read the folder again where a change failed half way. Raises OSError."""
        if done.stale:
            done.listing, done.stale = self.account_dir.read_listing(), False

    def _prune(self, done: MaintenanceResult) -> None:
        user = self.account_dir.user
        if self._find_outdated(done.listing):
            # what is about to be removed is looked at once more
            done.listing = self.account_dir.read_listing()
        if held := next((snapshot for snapshot in done.listing.snapshots if snapshot.holds), None):
            why = f"{held.name} is {held.verdict} ({'; '.join(held.reasons)})"
            done.warnings.append(f"{user}: nothing is pruned: {why}; t3-backup-state accept {user}")
            return
        outdated = self._find_outdated(done.listing)
        if outdated:
            # What has no sound manifest counts for nothing, but what it needs stays: the manifest
            # may come back.
            needed = chain.bases_of_strays(self.account_dir, done.listing.strays)
            outdated = [snapshot for snapshot in outdated if snapshot.sha256 not in needed]
            going = self._rebase({snapshot.name for snapshot in outdated}, done)
            outdated = [snapshot for snapshot in outdated if snapshot.name in going]
        # the oldest first: a stop in between leaves what is newer
        for snapshot in reversed(outdated):
            chain.check_stop(self.stopping)
            try:
                self.account_dir.remove_snapshot(snapshot)
            except OSError as error:
                done.stale = True
                done.warnings.append(f"{user}: {snapshot.name} can't be pruned: {error.strerror}")
                return
            done.listing = done.listing.without_snapshot(snapshot)
            done.pruned.append(snapshot.name)
        try:
            self._refresh(done)
            done.listing = remove_unused_archives(self.account_dir, done.listing)
        except OSError as error:
            done.stale = True
            done.warnings.append(f"{user}: an archive can't be pruned: {error.strerror}")

    def _find_outdated(self, listing: Listing) -> list[Manifest]:
        """Return the snapshots that the policy lets go, newest first; none while one is held."""
        if any(snapshot.holds for snapshot in listing.snapshots):
            return []
        decisions = retention.decide_retention(listing.snapshots, self.policy)
        return [decision.snapshot for decision in decisions if not decision.keep]

    def _rebase(self, going: set[str], done: MaintenanceResult) -> set[str]:
        """Give the deltas on those that go another base.

        Return the names of those that can go then.
        """
        snapshots = done.listing.snapshots
        headers = self._read_headers(going, done)
        kept = [snapshot for snapshot in snapshots if snapshot.name not in going]
        gone = [snapshot for snapshot in snapshots if snapshot.name in going]
        rebases, stuck = compaction.plan_rebases(kept, gone, headers)
        staying: set[str] = set()
        for snapshot, base in reversed(rebases):
            try:
                self._refresh(done)
                step = Compaction(self.account_dir, done.listing, self._check_free_space)
                done.listing = step.pack_snapshot(snapshot, base) or done.listing
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                done.stale = True
                done.warnings.append(
                    f"{self.account_dir.user}: the base of {snapshot.name} can't be pruned: "
                    f"{explain(error)}"
                )
                staying |= self._chain_names(snapshot, done) or going
        for snapshot in gone:
            if snapshot.name in stuck:
                staying |= self._chain_names(snapshot, done) or going
        return going - staying

    def _read_headers(self, going: set[str], done: MaintenanceResult) -> dict[str, Header | None]:
        """Read the headers of those that stay, by name.

        What one that can't be read needs is taken from `going`.
        """
        headers: dict[str, Header | None] = {}
        snapshots = done.listing.snapshots
        # the oldest first: what is taken from it is newer, and is looked at, too
        for snapshot in reversed(snapshots):
            if snapshot.name in going:
                continue
            try:
                headers[snapshot.name] = chain.read_header(self.account_dir, done.listing, snapshot)
            except (Failure, OSError) as error:
                # That is the nearest that there is: what was between the two went when it had got
                # the next as its base.
                done.warnings.append(
                    f"{self.account_dir.user}: {snapshot.name} can't be read, so the snapshots it "
                    f"needs are kept: {explain(error)}"
                )
                if base := compaction.choose_bases(snapshots).get(snapshot.name):
                    going.discard(base.name)
        return headers

    def _chain_names(self, snapshot: Manifest, done: MaintenanceResult) -> set[str]:
        """Return the names of those that a snapshot needs; none where that can't be told."""
        try:
            self._refresh(done)
            return {one.name for one in chain.read_chain(self.account_dir, done.listing, snapshot)}
        except (Failure, OSError):
            return set()

    def _compact(self, done: MaintenanceResult) -> None:
        """Compact the oldest first: while its base is plain, there is little to put together."""
        user = self.account_dir.user
        if self.mode != OFF and not self.shares_extents():
            if self.mode == REFLINK:
                done.warnings.append(
                    f"{user}: the store's file system shares no extents: "
                    "T3_BACKUP_COMPACT=reflink does nothing"
                )
            else:
                self._compact_all(done.listing.snapshots, done)
        self._refresh(done)
        if done.listing.snapshots:
            newest = done.listing.snapshots[0]
            done.listing = page_hashes.remove_other_page_hashes(
                self.account_dir, done.listing, newest
            )

    def _compact_all(self, snapshots: Sequence[Manifest], done: MaintenanceResult) -> None:
        bases = compaction.choose_bases(snapshots)
        for snapshot in reversed(snapshots):
            if (
                snapshot.name not in bases
                or snapshot.stays_plain
                or not done.listing.is_plain(snapshot)
            ):
                continue
            try:
                self._refresh(done)
                self._check_free_space()
                step = Compaction(self.account_dir, done.listing, self._check_free_space)
                if compacted := step.pack_snapshot(snapshot, bases[snapshot.name]):
                    done.listing = compacted
                    done.compacted.append(snapshot.name)
                else:
                    plain = replace(snapshot, stays_plain=True)
                    self.account_dir.replace_manifest(plain)
                    done.listing = done.listing.with_manifest(plain)
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                done.stale = True
                done.warnings.append(
                    f"{self.account_dir.user}: {snapshot.name} stays a plain copy: {explain(error)}"
                )

    def _check_free_space(self) -> None:
        """Raise Cancelled, and NoRoom where the disk is near its end.

        What is written frees more than it takes: where others have taken of the reserve already,
        half of what is left will do.
        """
        chain.check_stop(self.stopping)
        free, least = self.limits.free_bytes(), self.limits.reserve
        if self.free_before < least:
            least = self.free_before // 2
        if free < least:
            raise NoRoom(f"{free} bytes are free, and {least} must stay so (T3_BACKUP_RESERVE)")
