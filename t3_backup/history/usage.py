"""The disk usage of an account's history, and which snapshots need which.

Nothing is locked or written.
"""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.history import dependents
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.system.disk import BLOCK_BYTES, used_bytes


@dataclass(frozen=True)
class SnapshotUsage:
    """How one snapshot is kept."""

    snapshot: Manifest
    # of its live image: plain, delta, or packed (by itself); or missing
    form: str
    bytes: int  # of the disk; what two names have in common counts for the newer one
    base: str | None  # name of the snapshot that its live image needs
    dependents: int  # snapshots that need one of its images, directly or through others


@dataclass(frozen=True)
class Usage:
    """What the snapshots of one account take. Bytes of the disk, but for `full`."""

    user: str
    stored: tuple[SnapshotUsage, ...]  # newest first
    bytes: int  # of all there is: manifests, archives and strays, too
    full: int  # bytes that as many plain copies would have


def measure_usage(account_dir: AccountDir) -> Usage:
    """Measure what an account's folder takes. Raises OSError."""
    listing = account_dir.read_listing()
    forms = dependents.read_forms(account_dir, listing)
    hanging = dependents.find_hanging(listing, forms)
    seen: set[int] = set()
    stored = []
    for snapshot in listing.snapshots:
        live = forms[snapshot.live_image.name]
        taken = sum(_own_bytes(account_dir, listing, image, seen) for image in snapshot.images)
        needed = live.base.snapshot.name if live.base else None
        count = len(hanging[snapshot.name])
        stored.append(SnapshotUsage(snapshot, live.form, taken, needed, count))
    return Usage(
        account_dir.user,
        tuple(stored),
        used_bytes(account_dir.fd),
        sum(snapshot.total_bytes for snapshot in listing.snapshots),
    )


def measure_own_bytes(account_dir: AccountDir, listing: Listing) -> dict[str, int]:
    """Measure what the images of each snapshot take, by its name. Raises OSError.

    What two names have in common counts for the newer one.
    """
    seen: set[int] = set()
    return {
        snapshot.name: sum(
            _own_bytes(account_dir, listing, image, seen) for image in snapshot.images
        )
        for snapshot in listing.snapshots
    }


def _own_bytes(
    account_dir: AccountDir, listing: Listing, image: StoredDatabase, seen: set[int]
) -> int:
    """Bytes of the disk that an image takes; 0 for what was `seen`, or is not there."""
    try:
        status = account_dir.stat_file(listing.data_name(image))
    except FileNotFoundError:  # missing, or pruned in the meantime
        return 0
    if status.st_ino in seen:
        return 0
    seen.add(status.st_ino)
    return status.st_blocks * BLOCK_BYTES
