"""Keep an account's folder small and in order.

Retention removes snapshots, and compaction turns the rest into deltas. Each step leaves every
snapshot that stays whole, whatever ends it. What can't be done now is said, and done by the next
run.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from t3_backup.errors import Cancelled, Failure, NoRoom, explain
from t3_backup.history import (
    chain,
    compaction,
    page_hashes,
    proof_record,
    reflink,
    retention,
)
from t3_backup.history.compaction import Compaction
from t3_backup.history.pruning import Pruning
from t3_backup.history.result import MaintenanceResult
from t3_backup.history.retention import Decision, Policy
from t3_backup.settings import Settings
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.faults import SOUND, Unsound, find_unsound
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import StoredDatabase
from t3_backup.system.disk import BLOCK_BYTES, used_bytes
from t3_backup.text import utc_now
from t3_backup.worker.limits import Limits

AUTO, DELTA, REFLINK, OFF = "auto", "delta", "reflink", "off"  # as T3_BACKUP_COMPACT has them


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
    # bytes of the disk that copies of doubtful worth may take; None: there is no limit to it
    doubtful_bytes: int | None = None
    unsound: Unsound = SOUND

    @classmethod
    def of(
        cls,
        account_dir: AccountDir,
        listing: Listing,
        settings: Settings,
        limits: Limits,
        stopping: threading.Event,
        doubtful_bytes: int | None = None,
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
            doubtful_bytes=doubtful_bytes,
            unsound=find_unsound(listing.snapshots, account_dir.read_catalog()),
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
        """Return what the history takes beside one more plain copy of each database.

        The newest of now is compacted then. Raises OSError.
        """
        going = 0
        if self.mode != OFF and not self.shares_extents():
            newest: dict[str, str] = {}  # by database
            for image in self.listing.images:
                if self.listing.is_plain(image) and self.listing.has_data(image):
                    newest.setdefault(image.file, self.listing.data_name(image))
            blocks = [self.account_dir.stat_file(name).st_blocks for name in newest.values()]
            going = sum(blocks) * BLOCK_BYTES
        return used_bytes(self.account_dir.fd) - going

    def decide_retention(self) -> list[Decision]:
        """Decide what becomes of each snapshot, newest first."""
        return retention.decide_retention(self.listing.snapshots, self.policy, self.unsound)

    def tidy(self, hold: str = "") -> MaintenanceResult:
        """Prune, unless a `hold` says why not, and compact.

        Never raises for what can't be done; `stopped` where it was not to go on.
        """
        done = MaintenanceResult(self.listing)
        if hold:
            done.warnings.append(f"{self.account_dir.user}: nothing is pruned: {hold}")
        return self._take(done, (self._compact,) if hold else (self._prune, self._compact))

    def limit_doubtful(self) -> MaintenanceResult:
        """Remove what copies of doubtful worth take too much. Never raises, as `tidy`."""
        done = MaintenanceResult(self.listing)
        return self._take(done, (lambda done: self._pruning(done).limit_doubtful(),))

    def _take(
        self, done: MaintenanceResult, steps: Sequence[Callable[[MaintenanceResult], None]]
    ) -> MaintenanceResult:
        for step in steps:
            try:
                done.refresh(self.account_dir)
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
            done.refresh(self.account_dir)
        return done

    def _prune(self, done: MaintenanceResult) -> None:
        self._pruning(done).prune()

    def _pruning(self, done: MaintenanceResult) -> Pruning:
        return Pruning(
            self.account_dir,
            self.policy,
            self.stopping,
            self._check_free_space,
            done,
            self.doubtful_bytes,
            self.unsound,
        )

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
                for file in dict.fromkeys(image.file for image in done.listing.images):
                    self._compact_all(done.listing.images_of(file), done)
        done.refresh(self.account_dir)
        if done.listing.snapshots:
            newest = {image.file: image for image in reversed(done.listing.images)}
            done.listing = page_hashes.remove_other_page_hashes(
                self.account_dir, done.listing, newest.values()
            )

    def _compact_all(self, images: Sequence[StoredDatabase], done: MaintenanceResult) -> None:
        """Compact the images of one database.

        What is the same as the newest that stays plain is the same file, and takes no room.
        """
        bases = compaction.choose_bases(images, self.unsound)
        staying = {image.sha256 for image in images if image.name not in bases}
        for image in reversed(images):
            if (
                image.name not in bases
                or image.record.stays_plain
                or image.sha256 in staying
                or not done.listing.is_plain(image)
            ):
                continue
            try:
                done.refresh(self.account_dir)
                self._check_free_space()
                step = Compaction(self.account_dir, done.listing, self._check_free_space)
                if compacted := step.pack_image(image, bases[image.name]):
                    done.listing = compacted
                    done.compacted.append(image.name)
                else:
                    self._leave_plain(image, done)
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                done.stale = True
                done.warnings.append(
                    f"{self.account_dir.user}: {image.name} stays a plain copy: {explain(error)}"
                )
                self._record_broken(done.listing, [image, bases[image.name]])

    def _record_broken(self, listing: Listing, images: Sequence[StoredDatabase]) -> None:
        """Note of images that could not be worked with if they are not what was sealed."""
        with contextlib.suppress(OSError):  # the next proof finds it, too
            for image in images:
                proof_record.record_if_broken(self.account_dir, listing, image, utc_now())

    def _leave_plain(self, image: StoredDatabase, done: MaintenanceResult) -> None:
        """Note that the image takes no less room as a delta."""
        known = {snapshot.name: snapshot for snapshot in done.listing.snapshots}
        record = replace(image.record, stays_plain=True)
        snapshot = known[image.snapshot.name].with_database(record)
        self.account_dir.replace_manifest(snapshot)
        done.listing = done.listing.with_manifest(snapshot)

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
