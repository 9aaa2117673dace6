"""Remove the snapshots that retention lets go, and nothing that a snapshot which stays needs.

A delta whose base goes gets another base first. What can't be read counts as needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from t3_backup.errors import Cancelled, Failure, explain
from t3_backup.history import chain, compaction, doubtful, retention, usage
from t3_backup.history.compaction import Compaction
from t3_backup.history.delta import Header
from t3_backup.history.result import MaintenanceResult
from t3_backup.history.retention import Policy
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.archives import remove_unused_archives
from t3_backup.store.faults import SOUND, Unsound
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.text import quote


@dataclass(frozen=True)
class Pruning:
    """Prune one account's folder; what comes of it is added to `done`."""

    account_dir: AccountDir
    policy: Policy
    stopping: threading.Event
    check_free_space: Callable[[], None]  # raises what ends it
    done: MaintenanceResult
    # bytes of the disk that copies of doubtful worth may take; None: there is no limit to it
    doubtful_bytes: int | None = None
    unsound: Unsound = SOUND

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
                f"{user}: nothing is pruned: {why}; t3-backup-state accept {quote(user)}"
            )
        self._remove(self._find_outdated(self.done.listing))
        if not held:
            self._remove_archives()

    def limit_doubtful(self) -> None:
        """Remove what copies of doubtful worth take too much, and nothing else.

        Raises as `prune` does.
        """
        self._remove(self._find_excess(self.done.listing))

    def _remove(self, outdated: Sequence[Manifest]) -> None:
        """Remove these snapshots, newest first, but those that others need."""
        user = self.account_dir.user
        if outdated:
            # What has no sound manifest counts for nothing, but what it needs stays: the manifest
            # may come back.
            needed = chain.bases_of(self.account_dir, self.done.listing.strays)
            outdated = [
                snapshot
                for snapshot in outdated
                if needed.isdisjoint(image.sha256 for image in snapshot.images)
            ]
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

    def _remove_archives(self) -> None:
        try:
            self.done.refresh(self.account_dir)
            self.done.listing = remove_unused_archives(self.account_dir, self.done.listing)
        except OSError as error:
            self.done.stale = True
            why = f"an archive can't be pruned: {error.strerror}"
            self.done.warnings.append(f"{self.account_dir.user}: {why}")

    def _find_outdated(self, listing: Listing) -> list[Manifest]:
        """Return the snapshots that are to go, newest first.

        They are those that the policy lets go, unless one is held, and the doubtful ones that take
        too much.
        """
        going = {snapshot.name for snapshot in self._find_excess(listing)}
        if not any(snapshot.holds for snapshot in listing.snapshots):
            decisions = retention.decide_retention(listing.snapshots, self.policy, self.unsound)
            going |= {decision.snapshot.name for decision in decisions if not decision.keep}
        return [snapshot for snapshot in listing.snapshots if snapshot.name in going]

    def _find_excess(self, listing: Listing) -> list[Manifest]:
        """Return the doubtful ones that take too much, newest first. Raises OSError."""
        if self.doubtful_bytes is None:
            return []
        sizes = usage.measure_own_bytes(self.account_dir, listing)
        sound = [one for one in listing.snapshots if one.name not in self.unsound]
        return doubtful.find_excess(sound, sizes, self.doubtful_bytes)

    def _rebase(self, going: set[str]) -> set[str]:
        """Give the deltas on images of those that go another base.

        Return the names of the snapshots that can go then. What has to stay for one of its
        databases stays with all of them, so it is looked again what these need.
        """
        while True:
            headers = self._read_headers(going)
            staying: set[str] = set()
            for file in dict.fromkeys(image.file for image in self.done.listing.images):
                images = self.done.listing.images_of(file)
                kept = [image for image in images if image.snapshot.name not in going]
                gone = [image for image in images if image.snapshot.name in going]
                staying |= self._rebase_images(kept, gone, headers)
            if staying.isdisjoint(going):
                return going
            going = going - staying

    def _rebase_images(
        self,
        kept: Sequence[StoredDatabase],
        gone: Sequence[StoredDatabase],
        headers: Mapping[str, Header | None],
    ) -> set[str]:
        """The same for the images of one database: the names of snapshots that can't go."""
        rebases, stuck = compaction.plan_rebases(kept, gone, headers, self.unsound)
        staying: set[str] = set()
        everyone = {image.snapshot.name for image in gone}
        for image, base in reversed(rebases):
            try:
                self.done.refresh(self.account_dir)
                step = Compaction(self.account_dir, self.done.listing, self.check_free_space)
                self.done.listing = step.pack_image(image, base) or self.done.listing
            except Cancelled:
                raise
            except (Failure, OSError) as error:
                self.done.stale = True
                self.done.warnings.append(
                    f"{self.account_dir.user}: the base of {image.name} can't be pruned: "
                    f"{explain(error)}"
                )
                staying |= self._chain_names(image) or everyone
        for image in gone:
            if image.name in stuck:
                staying |= self._chain_names(image) or everyone
        return staying

    def _read_headers(self, going: set[str]) -> dict[str, Header | None]:
        """Read the headers of the images that stay, by name.

        What one that can't be read needs is taken from `going`.
        """
        headers: dict[str, Header | None] = {}
        images = self.done.listing.images
        # the oldest first: what is taken from it is newer, and is looked at, too
        for image in reversed(images):
            if image.snapshot.name in going:
                continue
            try:
                headers[image.name] = chain.read_header(self.account_dir, self.done.listing, image)
            except (Failure, OSError) as error:
                # That is the nearest that there is: what was between the two went when it had got
                # the next as its base.
                self.done.warnings.append(
                    f"{self.account_dir.user}: {image.name} can't be read, so the snapshots it "
                    f"needs are kept: {explain(error)}"
                )
                same = self.done.listing.images_of(image.file)
                if base := compaction.choose_bases(same, self.unsound).get(image.name):
                    going.discard(base.snapshot.name)
        return headers

    def _chain_names(self, image: StoredDatabase) -> set[str]:
        """Return the names of the snapshots that an image needs; none where that can't be told."""
        try:
            self.done.refresh(self.account_dir)
            needed = chain.read_chain(self.account_dir, self.done.listing, image)
            return {one.snapshot.name for one in needed}
        except (Failure, OSError):
            return set()
