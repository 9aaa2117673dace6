"""What the history of an account takes of the disk, and which snapshots hang on which. Nothing is locked or written."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from t3_backup.errors import Failure
from t3_backup.history import chain
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import Manifest
from t3_backup.system.disk import BLOCK_BYTES, used_bytes
from t3_backup.text import format_columns, format_size


@dataclass(frozen=True)
class SnapshotUsage:
    """How one snapshot is kept."""

    snapshot: Manifest
    form: str  # plain, delta, or packed (by itself); or missing
    bytes: int  # of the disk; what two names have in common counts for the newer one
    base: str | None  # name of the snapshot that it hangs on
    hanging: int  # snapshots that hang on it, and on those, and so on


@dataclass(frozen=True)
class Usage:
    """Of one account. Bytes of the disk, but for `full`."""

    user: str
    stored: tuple[SnapshotUsage, ...]  # newest first
    bytes: int  # of all there is: manifests, archives and strays, too
    full: int  # bytes that as many plain copies would have

    def as_json(self) -> dict[str, Any]:
        """The interface."""
        snapshots = [
            {
                "name": one.snapshot.name,
                "bytes": one.snapshot.bytes,
                "form": one.form,
                "stored_bytes": one.bytes,
                "base": one.base,
                "hanging": one.hanging,
            }
            for one in self.stored
        ]
        return {"user": self.user, "stored_bytes": self.bytes, "full_bytes": self.full, "snapshots": snapshots}


def account_usage(account_dir: AccountDir) -> Usage:
    """What is on a shelf. Raises OSError."""
    snapshots = account_dir.snapshots()
    bases = {snapshot.name: _base(account_dir, snapshots, snapshot) for snapshot in snapshots}
    hanging = dict.fromkeys(bases, 0)
    for snapshot in reversed(snapshots):  # the oldest first: what hangs on one is known before it hangs on another
        if (base := bases[snapshot.name][1]) is not None:
            hanging[base.name] += 1 + hanging[snapshot.name]
    seen: set[int] = set()
    stored = []
    for snapshot in snapshots:
        form, base = bases[snapshot.name]
        taken = 0
        with contextlib.suppress(FileNotFoundError):  # missing, or pruned in the meantime
            if (status := account_dir.stored(snapshot)).st_ino not in seen:
                seen.add(status.st_ino)
                taken = status.st_blocks * BLOCK_BYTES
        stored.append(SnapshotUsage(snapshot, form, taken, base.name if base else None, hanging[snapshot.name]))
    return Usage(account_dir.user, tuple(stored), used_bytes(account_dir.fd), sum(snapshot.bytes for snapshot in snapshots))


def _base(account_dir: AccountDir, snapshots: Sequence[Manifest], snapshot: Manifest) -> tuple[str, Manifest | None]:
    try:
        header = chain.header_of(account_dir, snapshot)
    except (Failure, OSError):
        return "missing", None
    if header is None:
        return "plain", None
    if header.base_sha256 is None:
        return "packed", None
    return "delta", chain.base_among(snapshots, snapshot, header.base_sha256)


def usage_table(usage: Usage) -> list[str]:
    """For people."""
    times = f", {usage.full / usage.bytes:.1f} times as much" if usage.bytes else ""
    stored, full = format_size(usage.bytes), format_size(usage.full)
    first = f"{usage.user}: {len(usage.stored)} snapshots in {stored}; as full copies {full}{times}"
    rows = [("STORED", "SIZE", "FORM", "HANGING", "NAME", "ON")]
    rows += [
        (format_size(one.bytes), format_size(one.snapshot.bytes), one.form, str(one.hanging), one.snapshot.name, one.base or "-")
        for one in usage.stored
    ]
    return [first, *(f"  {line}" for line in format_columns(rows, right={0, 1, 3}))] if usage.stored else [first]
