"""The result of a run: what became of each account."""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.store.listing import Listing, StoredSnapshot

OUTCOMES = ("backed_up", "unchanged", "skipped", "failed", "planned")


@dataclass(frozen=True)
class AccountResult:
    """What became of one account."""

    user: str
    outcome: str  # one of OUTCOMES
    reason: str = ""
    snapshots: tuple[StoredSnapshot, ...] = ()  # newest first
    pruned: tuple[str, ...] = ()  # names of snapshots that are gone
    warnings: tuple[str, ...] = ()
    unsaved: str = ""  # why what is beside the database could not be saved with it
    not_packed: tuple[str, ...] = ()  # what of it is not saved, where the rest is, and why
    taken_over: tuple[str, ...] = ()  # snapshots of earlier days that are ours now, newest first
    compacted: tuple[str, ...] = ()  # names of snapshots that are deltas from now on
    seconds: float = 0.0  # from the account's turn to its end
    unchanged: bool = False  # nothing new was kept: the newest of `snapshots` was there before
    # names of databases that are not copied: then the account has failed
    uncovered: tuple[str, ...] = ()
    own: bool = False  # where it failed: by something of the account's, and not of the store's
    unproven: str = ""  # why the new snapshot can't be judged, where that is new
    lost: tuple[str, ...] = ()  # names of snapshots that were sealed, and are not there
    # why the catalog could not be read or written
    catalog_problem: str = ""
    listing: Listing | None = None  # of the account's folder in the end; None: it is not known

    @property
    def alarms(self) -> bool:
        """Tell whether somebody must look at it.

        That is: it failed, or was kept but is not good, or not all of it was kept; or it can't be
        judged, which the run before did not say; or what was kept before is lost.
        """
        bad = any(one.manifest.holds or one.manifest.missing for one in self.snapshots)
        told = self.unsaved or self.unproven or self.lost or self.catalog_problem
        return self.outcome == "failed" or bool(told) or bad
