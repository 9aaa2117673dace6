"""Tell how the last proofs of an account's snapshots ended, and which are too old.

Pure: values and a clock in, values out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from t3_backup.monitor.collect import AccountView
from t3_backup.store.faults import Fault, waiting_faults
from t3_backup.store.manifest import Manifest
from t3_backup.text import quote

AHEAD = timedelta(minutes=5)  # clocks that are set right now and then differ by less
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class ProofStates:
    """How the snapshots of one account were last proven."""

    faults: tuple[Fault, ...]  # that nobody has accepted
    failed: tuple[Manifest, ...]  # the snapshots that these are about
    unchecked: tuple[tuple[Manifest, str], ...]  # those that could not be checked, and why
    # the one whose last proof is the longest ago, and when that was; of those that have one
    oldest: tuple[Manifest, datetime] | None

    def doubts(self, user: str, now: datetime, most: timedelta) -> Iterator[str]:
        """Tell what could not be checked, or not for longer than `most`, and what to do."""
        verify = f"next: t3-backup-state verify {quote(user)}"
        if self.unchecked:
            snapshot, reason = self.unchecked[0]
            more = f" and {len(self.unchecked) - 1} more" if len(self.unchecked) > 1 else ""
            yield f"{snapshot.name}{more} could not be checked: {reason}; {verify}"
        if self.oldest is None:
            return
        snapshot, when = self.oldest
        if when > now + AHEAD:
            yield f"the last proof of {snapshot.name} is dated in the future; {verify}"
        if now - when > most:
            age, limit = (f"{span / _DAY:.1f}".removesuffix(".0") for span in (now - when, most))
            yield f"the last proof of {snapshot.name} is {age}d old (at most {limit}d); {verify}"


def judge_proofs(view: AccountView) -> ProofStates:
    """Judge the last proofs of an account's snapshots."""
    known = [
        (snapshot, proof)
        for snapshot in view.snapshots
        if (proof := view.catalog.proof_of(snapshot.name)) is not None
    ]
    verified = [(snapshot, proof.when) for snapshot, proof in known if proof.outcome == "verified"]
    return ProofStates(
        faults=waiting_faults(view.snapshots, view.unsound),
        failed=tuple(one for one in view.snapshots if one.name in view.unsound.waiting),
        unchecked=tuple(
            (snapshot, proof.reason) for snapshot, proof in known if proof.outcome == "unchecked"
        ),
        oldest=min(verified, key=lambda one: one[1], default=None),
    )
