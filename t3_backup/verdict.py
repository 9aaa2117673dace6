"""What a proven copy is worth: verified, suspect or damaged. Pure.

`damaged`: SQLite's own checks object; the source is damaged, since the copy equals it. `suspect`: the copy is sound,
but so much is gone against the last good one that a person must look: a server started on an empty database makes
perfect copies of nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.census import Census
from t3_backup.manifest import Manifest

# A copy that lost more than this part of its rows or pages is suspect.
_LOST = 0.5


@dataclass(frozen=True)
class Verdict:
    """One of manifest.VERDICTS, and the reasons where it is not `verified`."""

    verdict: str
    reasons: tuple[str, ...] = ()


def judge(problems: tuple[str, ...], census: Census, method: str, previous: Manifest | None) -> Verdict:
    """The verdict on a copy by `method` with this `census`, in which the checks found `problems`.

    `previous` is the newest verified snapshot of the account; None: there is none.
    """
    if problems:
        return Verdict("damaged", problems)
    reasons = []
    if census.t3_level is None:
        reasons.append("no T3 migration level in it")
    if previous is not None:
        before = previous.census
        if census.total_rows < before.total_rows * (1 - _LOST):
            reasons.append(f"{census.total_rows} rows, {before.total_rows} in {previous.name}")
        # A VACUUM leaves the free pages out: pages compare with those of the same method only.
        if method == previous.method and census.page_count * census.page_size < before.page_count * before.page_size * (1 - _LOST):
            reasons.append(f"{census.page_count} pages, {before.page_count} in {previous.name}")
        if census.t3_level is not None and before.t3_level is not None and census.t3_level < before.t3_level:
            reasons.append(f"T3 level {census.t3_level}, {before.t3_level} in {previous.name}")
    return Verdict("suspect" if reasons else "verified", tuple(reasons))
