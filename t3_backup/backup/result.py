"""Say what became of one account in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

OUTCOMES = ("backed_up", "unchanged", "skipped", "failed", "planned")


def is_alarm(outcome: str, snapshots: Iterable[Mapping[str, Any]], unsaved: str) -> bool:
    """Whether somebody must look at what became of an account: failed, or kept but not good, or not all of it kept."""
    bad = any(snapshot["verdict"] != "verified" and snapshot.get("accepted_at") is None for snapshot in snapshots)
    return outcome == "failed" or bool(unsaved) or bad


@dataclass(frozen=True)
class AccountResult:
    """What became of one account."""

    user: str
    outcome: str  # one of OUTCOMES
    reason: str = ""
    snapshots: tuple[dict[str, Any], ...] = ()  # as the interface has them, newest first
    pruned: tuple[str, ...] = ()  # names of snapshots that are gone
    warnings: tuple[str, ...] = ()
    unsaved: str = ""  # why what is beside the database could not be saved with it
    taken_over: tuple[str, ...] = ()  # snapshots of earlier days that are ours now, newest first
    compacted: tuple[str, ...] = ()  # names of snapshots that are deltas from now on
    seconds: float = 0.0  # from the account's turn to its end
    unchanged: bool = False  # nothing new was kept: the newest of `snapshots` was there before
    uncovered: tuple[str, ...] = ()  # names of databases that are not copied: then the account has failed

    @property
    def alarms(self) -> bool:
        """True where somebody must look: failed, or kept but not good."""
        return is_alarm(self.outcome, self.snapshots, self.unsaved)
