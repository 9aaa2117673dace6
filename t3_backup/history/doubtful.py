"""Find which copies of doubtful worth go where they take too much of the disk.

They are evidence, or the best there is, and wait for somebody to look at them, so that retention
alone would keep them all: and a user makes as many as they like. A pure function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from t3_backup.history.retention import label_kind
from t3_backup.store.manifest import Manifest

_EVIDENCE = ("damaged", "suspect")


def find_excess(
    snapshots: Iterable[Manifest], sizes: Mapping[str, int], most: int
) -> list[Manifest]:
    """Find the oldest doubtful ones without which the rest takes `most` bytes, newest first.

    Those are damaged, suspect or unproven; `sizes` has the bytes of each by its name. Never goes:
    the first one that waits for somebody; the newest of each verdict, and of unproven ones one more
    where no two verified ones are there; the newest of each kind of label; what is pinned, or was
    put back.
    """
    newest_first = sorted(snapshots, key=lambda snapshot: snapshot.sequence, reverse=True)
    doubtful = [one for one in newest_first if one.verdict in (*_EVIDENCE, "unproven")]
    taken = sum(sizes[one.name] for one in doubtful)
    staying = _find_staying(newest_first)
    excess = []
    for one in reversed(doubtful):
        if taken <= most:
            break
        if one.name not in staying:
            excess.append(one)
            taken -= sizes[one.name]
    return excess[::-1]


def _find_staying(newest_first: Sequence[Manifest]) -> set[str]:
    """Return the names of those that never go."""
    waiting = [one for one in newest_first if one.holds]
    newest = {one.verdict: one.name for one in reversed(newest_first)}
    unproven = [one for one in newest_first if one.verdict == "unproven"]
    verified = sum(one.verdict == "verified" for one in newest_first)
    staying = {*newest.values(), *(one.name for one in waiting[-1:])}
    staying |= {one.name for one in unproven[: 1 if verified > 1 else 2]}
    kept = (one for one in newest_first if one.pinned_at or one.restored_since is not None)
    staying |= {one.name for one in kept}
    labels: set[str] = set()
    for one in newest_first:
        if one.label is not None and label_kind(one.label) not in labels:
            labels.add(label_kind(one.label))
            staying.add(one.name)
    return staying
