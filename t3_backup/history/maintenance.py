"""What keeps a shelf small and in order: retention lets snapshots go, and compaction lets the rest take little room.

Each step leaves every snapshot that stays whole, whatever ends it. What can't be done now is said, and done by the next run.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from t3_backup.errors import Cancelled, Failure, NoRoom, explain
from t3_backup.history import chain, compaction, page_hashes, reflink, retention
from t3_backup.history.compaction import Compaction
from t3_backup.history.delta import Header
from t3_backup.history.retention import Decision, Policy
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import Manifest
from t3_backup.system.disk import BLOCK_BYTES, used_bytes
from t3_backup.worker.limits import Limits

AUTO, DELTA, REFLINK, OFF = MODES = ("auto", "delta", "reflink", "off")


@dataclass
class MaintenanceResult:
    """What came of it: names, and what somebody should know."""

    pruned: list[str] = field(default_factory=list)
    compacted: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stopped: bool = False  # it did not come to its end

    @property
    def made_room(self) -> bool:
        """Whether something went."""
        return bool(self.pruned or self.compacted)


@dataclass(frozen=True)
class Maintenance:
    """Of one shelf, by whoever holds the store's lock."""

    account_dir: AccountDir
    policy: Policy
    mode: str  # of MODES
    limits: Limits
    stopping: threading.Event
    free_before: int  # bytes, when it began

    def shares(self) -> bool:
        """Whether snapshots are to share extents with those before them. Raises OSError where that can't be told."""
        return self.mode in (AUTO, REFLINK) and reflink.is_possible(self.account_dir)

    def lasting_bytes(self) -> int:
        """What the history will take beside one more plain copy: the newest of now is compacted then. Raises OSError."""
        plain = next((snapshot for snapshot in self.account_dir.snapshots() if self.account_dir.is_plain(snapshot)), None)
        going = 0 if plain is None or self.mode == OFF or self.shares() else self.account_dir.stored(plain).st_blocks * BLOCK_BYTES
        return used_bytes(self.account_dir.fd) - going

    def decisions(self) -> list[Decision]:
        """What becomes of each snapshot, newest first."""
        return retention.decide_retention(self.account_dir.snapshots(), self.policy)

    def tidy(self, hold: str = "") -> MaintenanceResult:
        """Prune, unless a `hold` says why not, and compact.

        Never raises for what can't be done; `stopped` where it was not to go on.
        """
        done = MaintenanceResult()
        if hold:
            done.warnings.append(f"{self.account_dir.user}: nothing is pruned: {hold}")
        for step in (self._compact,) if hold else (self._prune, self._compact):
            try:
                step(done)
            except Cancelled:
                done.stopped = True
                break
            except (Failure, OSError) as error:
                done.warnings.append(f"{self.account_dir.user}: the shelf is not in order yet: {explain(error)}")
        return done

    def _prune(self, done: MaintenanceResult) -> None:
        user, (snapshots, strays) = self.account_dir.user, self.account_dir.read()
        if held := next((snapshot for snapshot in snapshots if snapshot.holds), None):
            why = f"{held.name} is {held.verdict} ({'; '.join(held.reasons)})"
            done.warnings.append(f"{user}: nothing is pruned: {why}; t3-backup-state accept {user}")
            return
        gone = [decision.snapshot for decision in retention.decide_retention(snapshots, self.policy) if not decision.keep]
        if gone:
            # What has no sound manifest counts for nothing, but what it hangs on stays: the manifest may come back.
            needed = chain.needed_by(self.account_dir, strays)
            gone = [snapshot for snapshot in gone if snapshot.sha256 not in needed]
            going = self._hang_elsewhere(snapshots, {snapshot.name for snapshot in gone}, done)
            gone = [snapshot for snapshot in gone if snapshot.name in going]
        for snapshot in reversed(gone):  # the oldest first: a stop in between leaves what is newer
            chain.must_go_on(self.stopping)
            try:
                self.account_dir.remove(snapshot)
            except OSError as error:
                done.warnings.append(f"{user}: {snapshot.name} can't be pruned: {error.strerror}")
                return
            done.pruned.append(snapshot.name)
        try:
            self.account_dir.drop_archives()
        except OSError as error:
            done.warnings.append(f"{user}: an archive can't be pruned: {error.strerror}")

    def _hang_elsewhere(self, snapshots: Sequence[Manifest], going: set[str], done: MaintenanceResult) -> set[str]:
        """Make what hangs on those that go hang on others; the names of those that can go then."""
        headers = self._headers(snapshots, going, done)
        kept = [snapshot for snapshot in snapshots if snapshot.name not in going]
        gone = [snapshot for snapshot in snapshots if snapshot.name in going]
        found, stuck = compaction.moves(kept, gone, headers)
        staying: set[str] = set()
        for snapshot, base in reversed(found):
            try:
                self._packing(snapshots).pack(snapshot, base)
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                done.warnings.append(f"{self.account_dir.user}: what {snapshot.name} hangs on can't be pruned: {explain(error)}")
                staying |= self._chain(snapshots, snapshot) or going
        for snapshot in gone:
            if snapshot.name in stuck:
                staying |= self._chain(snapshots, snapshot) or going
        return going - staying

    def _headers(self, snapshots: Sequence[Manifest], going: set[str], done: MaintenanceResult) -> dict[str, Header | None]:
        """Those of the ones that stay, by name. What one that can't be read hangs on is taken from `going`."""
        headers: dict[str, Header | None] = {}
        for snapshot in reversed(snapshots):  # the oldest first: what is taken from it is newer, and is looked at, too
            if snapshot.name in going:
                continue
            try:
                headers[snapshot.name] = chain.header_of(self.account_dir, snapshot)
            except (Failure, OSError) as error:
                # That is the nearest that there is: what was between the two went when it had been made to hang on the next.
                done.warnings.append(
                    f"{self.account_dir.user}: {snapshot.name} can't be read, and keeps what it hangs on: {explain(error)}"
                )
                if base := compaction.bases(snapshots).get(snapshot.name):
                    going.discard(base.name)
        return headers

    def _chain(self, snapshots: Sequence[Manifest], snapshot: Manifest) -> set[str]:
        """Names of those that it hangs on; none where that can't be told."""
        try:
            return {one.name for one in chain.chain_of(self.account_dir, snapshots, snapshot)}
        except (Failure, OSError):
            return set()

    def _compact(self, done: MaintenanceResult) -> None:
        """The oldest first: while what it is to hang on is plain, there is little to put together."""
        user, snapshots = self.account_dir.user, self.account_dir.snapshots()
        if self.mode != OFF and not self.shares():
            if self.mode == REFLINK:
                done.warnings.append(f"{user}: the store's file system shares no extents: T3_BACKUP_COMPACT=reflink does nothing")
            else:
                self._hang_all(snapshots, done)
        if snapshots:
            page_hashes.drop_others(self.account_dir, snapshots[0])

    def _hang_all(self, snapshots: Sequence[Manifest], done: MaintenanceResult) -> None:
        to = compaction.bases(snapshots)
        for snapshot in reversed(snapshots):
            if snapshot.name not in to or snapshot.stays_plain or not self.account_dir.is_plain(snapshot):
                continue
            try:
                self._check()
                if self._packing(snapshots).pack(snapshot, to[snapshot.name]):
                    done.compacted.append(snapshot.name)
                else:
                    self.account_dir.replace_manifest(replace(snapshot, stays_plain=True))
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                done.warnings.append(f"{self.account_dir.user}: {snapshot.name} stays a plain copy: {explain(error)}")

    def _packing(self, snapshots: Sequence[Manifest]) -> Compaction:
        return Compaction(self.account_dir, snapshots, self._check)

    def _check(self) -> None:
        """Raises Cancelled, and NoRoom where the disk is near its end.

        What is written makes more room than it takes: where others have taken of the reserve already, half of what is left will do.
        """
        chain.must_go_on(self.stopping)
        free, least = self.limits.free_bytes(), self.limits.reserve
        if self.free_before < least:
            least = self.free_before // 2
        if free < least:
            raise NoRoom(f"{free} bytes are free, and {least} must stay so (T3_BACKUP_RESERVE)")
