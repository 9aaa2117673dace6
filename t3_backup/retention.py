"""Which snapshots stay, and why. A pure function over manifests: no clock, no files.

Ages count from the newest verified snapshot, days are those of UTC, and order is by sequence number: a clock that
jumps prunes nothing. A suspect or damaged snapshot that nobody has accepted holds everything, so that a server which
began anew on an empty database can't roll the history out of the door.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from t3_backup.manifest import Manifest


@dataclass(frozen=True)
class Decision:
    """What becomes of one snapshot; `reasons` says why it stays, and is empty where it goes."""

    snapshot: Manifest
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """True where it stays."""
        return bool(self.reasons)


def label_kind(label: str) -> str:
    """The kind of a label, by which labelled ones are counted: `prebump` of `prebump-0.0.25`."""
    return label.partition("-")[0]


def decide(snapshots: Iterable[Manifest], keep: int) -> list[Decision]:
    """One decision a snapshot of one account, newest first.

    Stays: the newest `keep` verified ones; the newest verified one of each of the last `keep` days that have one; the
    newest `keep` verified ones of each kind of label; the newest `keep` accepted ones that are not verified (they are
    evidence); the newest verified one, always; and all of them while any is held. `keep` is at least 1.
    """
    newest_first = sorted(snapshots, key=lambda snapshot: snapshot.sequence, reverse=True)
    why: dict[int, list[str]] = defaultdict(list)

    held = [snapshot for snapshot in newest_first if snapshot.holds]
    if held:
        for snapshot in newest_first:
            why[snapshot.sequence].append(f"held by {held[0].name}, which is {held[0].verdict}")

    verified = [snapshot for snapshot in newest_first if snapshot.verdict == "verified"]
    plain = [snapshot for snapshot in verified if snapshot.label is None]
    if verified:
        why[verified[0].sequence].append("the newest verified one")
    _keep_first(why, plain, keep, "recent")
    _keep_days(why, plain, keep)
    kinds: dict[str, list[Manifest]] = defaultdict(list)
    for snapshot in verified:
        if snapshot.label is not None:
            kinds[label_kind(snapshot.label)].append(snapshot)
    for kind, group in kinds.items():
        _keep_first(why, group, keep, f"label {kind}")
    _keep_first(why, [s for s in newest_first if s.verdict != "verified"], keep, "evidence")
    # One from the future (the clock was wrong then, or is now) says nothing about ages: it stays.
    for snapshot in _future(newest_first, witnesses=why.keys()):
        why[snapshot.sequence].append("taken at a time after its successor's")
    return [Decision(snapshot, tuple(why[snapshot.sequence])) for snapshot in newest_first]


def _future(newest_first: Sequence[Manifest], witnesses: Container[int]) -> list[Manifest]:
    """Those with a time more than a day past that of a later one: the clock has jumped.

    Only what stays anyway (its sequence is in `witnesses`) says so: one that goes now would say nothing the next time.
    """
    found = []
    earliest_later = None
    for snapshot in newest_first:
        if earliest_later is not None and snapshot.when > earliest_later + timedelta(days=1):
            found.append(snapshot)
        elif snapshot.sequence in witnesses and (earliest_later is None or snapshot.when < earliest_later):
            earliest_later = snapshot.when
    return found


def _keep_first(why: dict[int, list[str]], snapshots: Sequence[Manifest], keep: int, rule: str) -> None:
    for place, snapshot in enumerate(snapshots[:keep], 1):
        why[snapshot.sequence].append(f"{rule} {place} of {keep}")


def _keep_days(why: dict[int, list[str]], plain: Sequence[Manifest], keep: int) -> None:
    days: dict[str, Manifest] = {}  # in the order of the sequence: a day in a far future must not take a place for good
    for snapshot in plain:
        days.setdefault(snapshot.taken_at[:10], snapshot)
    for place, (day, snapshot) in enumerate(list(days.items())[:keep], 1):
        why[snapshot.sequence].append(f"day {day}, {place} of {keep}")
