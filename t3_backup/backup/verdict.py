"""Judge a proven copy: verified, suspect or damaged.

Pure. It is judged whether the copy is the source at one moment. `damaged`: SQLite's own checks
object; the source is damaged, since the copy equals it. `suspect`: the copy is sound, but so much
is gone against the last good one that a person must look: a server started on an empty database
makes perfect copies of nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from t3_backup.store.census import Census
from t3_backup.store.manifest import Manifest
from t3_backup.t3.tables import APPEND_ONLY
from t3_backup.worker.operations.backup import Copied

# A copy that lost more than this part of its rows or pages is suspect.
_LOST = 0.5


@dataclass(frozen=True)
class Judgement:
    """One of manifest.VERDICTS, and the reasons where it is not `verified`."""

    verdict: str
    reasons: tuple[str, ...] = ()


def judge_copy(
    problems: tuple[str, ...], census: Census, method: str, previous: Manifest | None
) -> Judgement:
    """Judge a copy by `method` with this `census` and what the checks found.

    `previous` is the newest verified snapshot of the account; None: there is none.
    """
    if problems:
        return Judgement("damaged", problems)
    reasons = []
    if census.t3_level is None:
        reasons.append("no T3 migration level in it")
    if previous is not None:
        before = previous.census
        if census.total_rows < before.total_rows * (1 - _LOST):
            reasons.append(f"{census.total_rows} rows, {before.total_rows} in {previous.name}")
        # A VACUUM leaves the free pages out: pages compare with its like only.
        alike = (method == "vacuum") == (previous.method == "vacuum")
        if alike and census.page_count * census.page_size < before.page_count * before.page_size * (
            1 - _LOST
        ):
            reasons.append(f"{census.page_count} pages, {before.page_count} in {previous.name}")
        if (
            census.t3_level is not None
            and before.t3_level is not None
            and census.t3_level < before.t3_level
        ):
            reasons.append(f"T3 level {census.t3_level}, {before.t3_level} in {previous.name}")
    return Judgement("suspect" if reasons else "verified", tuple(reasons))


def choose_yardstick(snapshots: Iterable[Manifest]) -> Manifest | None:
    """Choose the snapshot of an account by which the next is measured.

    None: there is none. The newest that is good, or a loss that somebody has accepted; or the one
    that was put back, and of which nothing was taken since: what is lost against those before it
    was given up on purpose.
    """
    return max(filter(_may_measure, snapshots), key=_rank, default=None)


def _may_measure(snapshot: Manifest) -> bool:
    """Tell whether a snapshot may measure others.

    A VACUUM's is no loss that can be accepted: its pages are its own.
    """
    accepted = (
        snapshot.verdict == "suspect"
        and snapshot.accepted_at is not None
        and snapshot.method != "vacuum"
    )
    return snapshot.verdict == "verified" or accepted or snapshot.restored_since is not None


def _rank(snapshot: Manifest) -> tuple[int, bool]:
    if snapshot.restored_since is None or snapshot.restored_since <= snapshot.sequence:
        return snapshot.sequence, True
    return snapshot.restored_since, False  # one of that number was taken of it, and counts more


def find_disagreements(copied: Copied, census: Census) -> list[str]:
    """Tell how a copy with this `census` is not its source at one moment.

    Empty: it is.
    """
    if copied.pinned is not None:
        return copied.pinned.differences(census)
    if copied.before is not None and copied.after is not None:
        return _leaves_bounds(copied.before, copied.after, census)
    return []


def _leaves_bounds(before: Census, after: Census, taken: Census) -> list[str]:
    """Tell how a VACUUMed copy fails to lie between two moments of its source.

    Its pages and rowids are its own.
    """
    found = [
        f"{name} {getattr(before, name)}, {getattr(taken, name)}, {getattr(after, name)}"
        for name in ("schema_sha256", "t3_level", "user_version", "application_id")
        if not getattr(before, name) == getattr(taken, name) == getattr(after, name)
    ]
    for table in APPEND_ONLY:
        low, middle, high = (c.ends.get(table, 0) for c in (before, taken, after))
        if not low <= middle <= high:
            found.append(f"end of {table} {middle}, not from {low} to {high}")
    return found
