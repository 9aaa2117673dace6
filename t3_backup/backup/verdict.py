"""Judge proven copies: verified, suspect, damaged or unproven.

Pure. It is judged whether the copy is the source at one moment. `damaged`: SQLite's own checks
object; the source is damaged, since the copy equals it. `unproven`: this SQLite can't run all of
them, and nothing else speaks against it. `suspect`: nothing is damaged, but rows lack their parent,
or so much is gone against the last one that measures that a person must look: a server started on
an empty database makes perfect copies of nothing. Of a database that is T3's it counts what a
person would miss; of any other, which nobody knows from within, rows and pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from t3_backup.store.census import UNREADABLE, Census, comparable_content
from t3_backup.store.manifest import Manifest, Missing, StoredDatabase
from t3_backup.t3 import content
from t3_backup.t3.databases import KNOWN
from t3_backup.t3.ledger import LEDGER_TABLE
from t3_backup.text import printable
from t3_backup.worker.operations.backup import Copied
from t3_backup.worker.operations.proof import Proven

# A copy of an unknown database that lost more than this part of its rows or pages is suspect.
_LOST = 0.5
_ORDER = ("verified", "unproven", "suspect", "damaged")  # the worst last


@dataclass(frozen=True)
class Judgement:
    """One of manifest.VERDICTS, and the reasons where it is not `verified`."""

    verdict: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """What each database of a snapshot is worth, and what is to be said of the whole."""

    databases: Mapping[str, Judgement]
    reasons: tuple[str, ...] = ()  # why the whole is suspect, whatever its databases are

    def of_whole(self, live: str) -> Judgement:
        """Judge the snapshot: it is what the worst of its databases is."""
        verdicts = [one.verdict for one in self.databases.values()]
        verdicts += ["suspect"] if self.reasons else []
        reasons = [*self.databases[live].reasons]
        for file in sorted(self.databases):
            if file != live:
                reasons += [f"{printable(file)}: {one}" for one in self.databases[file].reasons]
        return Judgement(max(verdicts, key=_ORDER.index), (*reasons, *self.reasons))


def judge_databases(
    found: Mapping[str, tuple[Copied, Proven]],
    missing: Sequence[Missing],
    before: Sequence[Manifest],
) -> Judged:
    """Judge the databases of a new snapshot, each by the same one of the snapshots `before`."""
    judged = {
        file: judge_proof(copied, proven, find_previous(before, file), file)
        for file, (copied, proven) in found.items()
    }
    there = {*found, *(one.file for one in missing)}
    return Judged(
        judged,
        tuple(
            f"{printable(one.file)} is gone; {one.snapshot.name} has it"
            for one in _find_expected(before)
            if one.file not in there
        ),
    )


def _find_expected(before: Sequence[Manifest]) -> list[StoredDatabase]:
    """Find the newest image of each database that the yardstick has, or could not have copied."""
    if (yardstick := choose_yardstick(before)) is None:
        return []
    files = {one.file for one in yardstick.databases} | {one.file for one in yardstick.missing}
    found = (find_previous(before, file) for file in sorted(files))
    return [image for image in found if image is not None]


def judge_proof(
    copied: Copied, proven: Proven, previous: StoredDatabase | None, file: str = KNOWN[0]
) -> Judgement:
    """Judge a copy of the database `file` by its proof; `previous` is as in `judge_copy`."""
    return judge_copy(
        proven.problems,
        proven.census,
        copied.method,
        previous,
        file,
        unjudged=proven.unjudged,
        orphans=proven.orphans,
    )


def judge_copy(
    problems: tuple[str, ...],
    census: Census,
    method: str,
    previous: StoredDatabase | None,
    file: str = KNOWN[0],
    *,
    unjudged: str = "",
    orphans: str = "",
) -> Judgement:
    """Judge a copy of the database `file`, by `method`, with this `census` and what checks found.

    `unjudged` and `orphans` are as in Proven. `previous` is the same database in the snapshot that
    it is measured by; None: there is none.
    """
    if problems:
        return Judgement("damaged", problems)
    # that each row has its parent is the application's rule, which the database obeys or not
    reasons = [orphans] if orphans else []
    # what this SQLite can't read of a sound database is not lost
    vague = bool(unjudged)
    had_level = previous is not None and previous.record.census.t3_level is not None
    must_have_level = had_level or (file in KNOWN and not vague)
    hidden = vague and LEDGER_TABLE in census.unreadable
    if census.t3_level is None and must_have_level and not hidden:
        reasons.append("no T3 migration level in it")
    if previous is not None:
        reasons += _find_losses(census, method, previous, vague=vague)
    if not reasons:
        return Judgement("unproven", (unjudged,)) if unjudged else Judgement("verified")
    return Judgement("suspect", (*reasons, *filter(None, [unjudged])))


def _find_losses(
    census: Census, method: str, previous: StoredDatabase, *, vague: bool
) -> list[str]:
    """Say what is gone against the same database in the snapshot that measures it.

    `vague`: what could not be read may still be there.
    """
    before, name, found = previous.record.census, previous.snapshot.name, list[str]()
    counted = comparable_content(before, census)
    if counted is not None:
        then, now = counted
        for word in content.lost_words(then, now):
            if not vague or now[word] != UNREADABLE:
                found.append(f"{max(0, now[word])} {word}, {then[word]} in {name}")
    elif not (vague and census.unreadable):
        found += _shrank(census, method, previous)
    if (
        census.t3_level is not None
        and before.t3_level is not None
        and census.t3_level < before.t3_level
    ):
        found.append(f"T3 level {census.t3_level}, {before.t3_level} in {name}")
    return found


def find_previous(snapshots: Iterable[Manifest], file: str) -> StoredDatabase | None:
    """Find what a new copy of the database `file` is measured by.

    It is that of the yardstick, or, where that one lacks a copy that could not be made, of the one
    before; None: it was not there.
    """
    for snapshot in sorted(filter(_may_measure, snapshots), key=_rank, reverse=True):
        if (found := snapshot.image_of(file)) is not None:
            return found
        if file not in {one.file for one in snapshot.missing}:
            return None
    return None


def _shrank(census: Census, method: str, previous: StoredDatabase) -> list[str]:
    """Say how more than half of the rows or pages of an unknown database is gone."""
    before, name, found = previous.record.census, previous.snapshot.name, list[str]()
    if census.total_rows < before.total_rows * (1 - _LOST):
        found.append(f"{census.total_rows} rows, {before.total_rows} in {name}")
    # A VACUUM leaves the free pages out: pages compare with its like only.
    alike = (method == "vacuum") == (previous.record.method == "vacuum")
    if alike and census.page_count * census.page_size < before.page_count * before.page_size * (
        1 - _LOST
    ):
        found.append(f"{census.page_count} pages, {before.page_count} in {name}")
    return found


def choose_yardstick(snapshots: Iterable[Manifest]) -> Manifest | None:
    """Choose the snapshot of an account by which the next is measured.

    None: there is none. The newest that is good or can't be judged, or a loss that somebody has
    accepted; or the one that was put back, and of which nothing was taken since: what is lost
    against those before it was given up on purpose.
    """
    return max(filter(_may_measure, snapshots), key=_rank, default=None)


def _may_measure(snapshot: Manifest) -> bool:
    """Tell whether a snapshot may measure others.

    What can't be judged may be all that there ever is, and is counted all the same. A VACUUM's is
    no loss that can be accepted: its pages are its own.
    """
    accepted = (
        snapshot.verdict == "suspect"
        and snapshot.accepted_at is not None
        and snapshot.live.method != "vacuum"
    )
    counted = snapshot.verdict == "unproven" and all(
        UNREADABLE not in (one.census.content or {}).values() for one in snapshot.databases
    )
    good = snapshot.verdict == "verified"
    return good or accepted or counted or snapshot.restored_since is not None


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
    for table in content.append_only(before.ends):
        low, middle, high = (c.ends.get(table, 0) for c in (before, taken, after))
        if not low <= middle <= high:
            found.append(f"end of {table} {middle}, not from {low} to {high}")
    return found
