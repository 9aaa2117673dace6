"""The disk usage of an account's history, and which snapshots need which.

Nothing is locked or written.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from t3_backup.errors import Failure
from t3_backup.history import chain
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest
from t3_backup.system.disk import BLOCK_BYTES, used_bytes


@dataclass(frozen=True)
class SnapshotUsage:
    """How one snapshot is kept."""

    snapshot: Manifest
    form: str  # plain, delta, or packed (by itself); or missing
    bytes: int  # of the disk; what two names have in common counts for the newer one
    base: str | None  # name of the snapshot that it needs
    dependents: int  # snapshots that need it, directly or through others


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
    snapshots = listing.snapshots
    bases = {snapshot.name: _find_base(account_dir, listing, snapshot) for snapshot in snapshots}
    dependents = dict.fromkeys(bases, 0)
    # the oldest first: what needs one is known before that needs another
    for snapshot in reversed(snapshots):
        if (base := bases[snapshot.name][1]) is not None:
            dependents[base.name] += 1 + dependents[snapshot.name]
    seen: set[int] = set()
    stored = []
    for snapshot in snapshots:
        form, base = bases[snapshot.name]
        taken = 0
        with contextlib.suppress(FileNotFoundError):  # missing, or pruned in the meantime
            if (status := account_dir.stat_file(listing.data_name(snapshot))).st_ino not in seen:
                seen.add(status.st_ino)
                taken = status.st_blocks * BLOCK_BYTES
        stored.append(
            SnapshotUsage(
                snapshot, form, taken, base.name if base else None, dependents[snapshot.name]
            )
        )
    return Usage(
        account_dir.user,
        tuple(stored),
        used_bytes(account_dir.fd),
        sum(snapshot.bytes for snapshot in snapshots),
    )


def _find_base(
    account_dir: AccountDir, listing: Listing, snapshot: Manifest
) -> tuple[str, Manifest | None]:
    try:
        header = chain.read_header(account_dir, listing, snapshot)
    except (Failure, OSError):
        return "missing", None
    if header is None:
        return "plain", None
    if header.base_sha256 is None:
        return "packed", None
    return "delta", chain.find_base(listing.snapshots, snapshot, header.base_sha256)
