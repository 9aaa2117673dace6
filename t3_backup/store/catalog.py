"""Know of each snapshot of an account that it was sealed, or let go, and how its last proof ended.

Pure: the values, and what they say of a listing. Where they are kept is `catalog_file`'s. The
manifest vouches for a snapshot's bytes; the catalog for its being there: what is known as sealed
and not found was lost, and what is not known was left by a crash, or has come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

import t3_backup
from t3_backup.store.listing import Listing
from t3_backup.store.names import MANIFEST, parse_name
from t3_backup.text import quote

State = Literal["sealed", "removing", "removed"]
STATES: tuple[State, ...] = ("sealed", "removing", "removed")
Outcome = Literal["verified", "failed", "unchecked"]
OUTCOMES: tuple[Outcome, ...] = ("verified", "failed", "unchecked")


@dataclass(frozen=True)
class Proof:
    """How the last proof of a snapshot ended: it is what was sealed, it is not, or nobody knows."""

    when: datetime  # UTC
    outcome: Outcome
    reason: str = ""  # why it failed, or could not be checked


@dataclass(frozen=True)
class Entry:
    """What is known of one snapshot."""

    name: str
    state: State
    proof: Proof | None = None  # None: it was taken in as it was found


@dataclass(frozen=True)
class Catalog:
    """What is known of the snapshots of one account."""

    entries: Mapping[str, Entry] = field(default_factory=dict)  # by name
    problem: str = ""  # why some of it can't be read

    def proof_of(self, name: str) -> Proof | None:
        """Return the last proof of the snapshot of that name; None where none is known."""
        entry = self.entries.get(name)
        return entry.proof if entry is not None else None

    def is_sealed(self, name: str) -> bool:
        """Tell whether the snapshot of that name is known, and nobody has let it go."""
        entry = self.entries.get(name)
        return entry is not None and entry.state == "sealed"

    def lost(self, listing: Listing | None) -> tuple[str, ...]:
        """Return the names that are known as sealed and not there, sorted.

        None: the account's folder is gone. Where a version of this tool that keeps no catalog has
        worked here since, what is missing may be what that one let go: it counts as removed.
        """
        there = {snapshot.name for snapshot in listing.snapshots} if listing is not None else set()
        if listing is not None and self._was_bypassed(listing):
            return ()
        return tuple(sorted(name for name in self.entries.keys() - there if self.is_sealed(name)))

    def _was_bypassed(self, listing: Listing) -> bool:
        """Tell whether another version has made a snapshot since, and noted nothing here."""
        parsed = [parse_name(name) for name in self.entries]
        newest = max((one.when for one in parsed if one is not None), default=None)
        return newest is not None and any(
            snapshot.name not in self.entries
            and snapshot.tool_version != t3_backup.__version__
            and snapshot.when > newest
            for snapshot in listing.snapshots
        )


def find_changes(catalog: Catalog, listing: Listing) -> list[Entry]:
    """Find the entries that are to be others, where nothing was interrupted any more.

    A sound snapshot is taken in where it is not known, or was let go and is whole: nothing of it
    has gone, and retention decides again. What was let go and is not there is done. Where some of
    the catalog can't be read, a manifest without data may be of a snapshot that it knew.
    """
    there = {snapshot.name for snapshot in listing.snapshots}
    lost = catalog.lost(listing)
    found = []
    if catalog.problem:
        manifests = {name for name in listing.names if name.endswith(MANIFEST)}
        bare = {name.removesuffix(MANIFEST) for name in manifests} - there
        found += [
            Entry(name, "sealed")
            for name in sorted(bare - catalog.entries.keys())
            if parse_name(name)
        ]
    for name in sorted(there | catalog.entries.keys()):
        entry = catalog.entries.get(name, Entry(name, "removed"))
        if name in there and entry.state != "sealed":
            known = entry.state == "removing"
            found.append(Entry(name, "sealed", entry.proof if known else None))
        elif name not in there and entry.state != "removed" and name not in lost:
            found.append(replace(entry, state="removed"))
    return found


def explain_loss(user: str, lost: Iterable[str]) -> str:
    """Say that snapshots were lost, and what to do; empty where none was."""
    names = list(lost)
    if not names:
        return ""
    more = f" and {len(names) - 1} more were" if len(names) > 1 else " was"
    return (
        f"{names[0]}{more} sealed and can't be found: data or manifest was removed or damaged; "
        f"nothing is pruned until it is back, or: t3-backup-state accept {quote(user)}"
    )
