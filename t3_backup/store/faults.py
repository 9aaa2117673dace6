"""Tell which snapshots are known not to be what was sealed, and of each fault once.

Pure. A snapshot whose last proof failed is not good, whatever its manifest says. Where one breaks
since a base of it does, that base is what is told of, with all that hang on it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from t3_backup.store.catalog import Catalog
from t3_backup.store.manifest import Manifest
from t3_backup.text import quote

NOT_AS_SEALED = "its data is not what was sealed"  # where a proof has not said how
_MOST_NAMES = 5


@dataclass(frozen=True)
class Unsound:
    """The snapshots whose last proof failed, by name."""

    reasons: Mapping[str, str] = field(default_factory=dict)  # why
    waiting: frozenset[str] = frozenset()  # of these, the ones that nobody has accepted since

    def __contains__(self, name: object) -> bool:
        """Tell whether the last proof of the snapshot `name` failed."""
        return name in self.reasons


SOUND = Unsound()  # none is known to be unsound


def find_unsound(snapshots: Iterable[Manifest], catalog: Catalog) -> Unsound:
    """Find the snapshots whose last proof failed, as the catalog of their account has it."""
    reasons, waiting = dict[str, str](), set[str]()
    for snapshot in snapshots:
        proof = catalog.proof_of(snapshot.name)
        if proof is None or proof.outcome != "failed":
            continue
        reasons[snapshot.name] = proof.reason
        accepted = snapshot.accepted_at
        if accepted is None or datetime.fromisoformat(accepted) < proof.when:
            waiting.add(snapshot.name)
    return Unsound(reasons, frozenset(waiting))


def waiting_faults(snapshots: Sequence[Manifest], unsound: Unsound) -> tuple[Fault, ...]:
    """Return the faults that nobody has accepted, of snapshots that are newest first."""
    found = find_faults(snapshots, unsound.reasons)
    return tuple(
        fault
        for fault in found
        if not unsound.waiting.isdisjoint((fault.snapshot.name, *fault.hanging))
    )


@dataclass(frozen=True)
class Fault:
    """A snapshot that is not what was sealed, and what breaks with it."""

    snapshot: Manifest
    reason: str
    hanging: tuple[str, ...] = ()  # names of the others, newest first
    newer: str = ""  # name of a good snapshot that came later

    @property
    def text(self) -> str:
        """What somebody should know of it, and which command comes next."""
        user = quote(self.snapshot.user)
        found = f"{self.snapshot.name} does NOT verify: {self.reason}"
        if self.hanging:
            names = ", ".join(self.hanging[:_MOST_NAMES])
            more = len(self.hanging) - _MOST_NAMES
            names += f" and {more} more" if more > 0 else ""
            found += f"; and with it {len(self.hanging)} that hang on it: {names}"
        if self.newer:
            return f"{found}; next: look at the disk, then t3-backup-state accept {quote(user)}"
        return f"{found}; next: t3-backup-state run --user {quote(user)}"


def hangs_on(base: str) -> str:
    """Write the reason of a snapshot that breaks since the snapshot `base` does."""
    return f"it hangs on {base}, which does not verify"


def find_faults(snapshots: Sequence[Manifest], failed: Mapping[str, str]) -> tuple[Fault, ...]:
    """Group the snapshots that `failed` names, each with its reason, by what is at fault.

    In the order of `snapshots`, which are newest first. Those of one reason, such as the archive
    that they share, are one fault.
    """
    broken = [snapshot for snapshot in snapshots if snapshot.name in failed]
    heads = {hangs_on(snapshot.name): snapshot for snapshot in broken}
    groups: dict[str, list[Manifest]] = {}
    for snapshot in broken:
        reason = failed[snapshot.name]
        base = heads.get(reason)
        # what breaks at a base that is known to be broken is told of with that base
        groups.setdefault(failed[base.name] if base else reason, []).append(snapshot)
    return tuple(
        Fault(
            group[0],
            reason,
            tuple(one.name for one in group[1:]),
            _find_newer(snapshots, group[0], failed),
        )
        for reason, group in groups.items()
    )


def _find_newer(snapshots: Sequence[Manifest], than: Manifest, failed: Container[str]) -> str:
    """Name a good snapshot that came after another; empty: there is none."""
    return next(
        (
            one.name
            for one in snapshots
            if one.is_good and one.name not in failed and one.sequence > than.sequence
        ),
        "",
    )
