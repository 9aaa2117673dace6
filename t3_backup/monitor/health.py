"""Judge how each account's backups are: fresh, good and enough, or what is wrong.

Pure: values and a clock in, values out. What counts is when the database was last known to be
safe: the time of a verified snapshot, or of a run that found it unchanged. `judge_freshness` alone
decides that, for all who tell of it. That a run ended well says nothing here; nor does a snapshot
that lost an image or whose last proof failed, nor one of what was about to be replaced. What lies
in the future was written by a wrong clock, and makes nothing fresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from t3_backup.monitor.attempts import UNCHANGED, Attempt, uncovered_since
from t3_backup.monitor.collect import AccountView
from t3_backup.monitor.proofs import AHEAD, ProofStates, judge_proofs
from t3_backup.store.catalog import explain_loss
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import UNWANTED
from t3_backup.t3 import databases
from t3_backup.text import format_size, printable, quote

OK, WARNING, CRITICAL = "ok", "warning", "critical"
STATES = (OK, WARNING, CRITICAL)  # in order
OLD = timedelta(days=2)  # a last good that is older fails the doctor, and is late in the report
_ROUNDING = timedelta(seconds=2)  # times of snapshots and attempts are whole seconds
_LEAST_SPAN = timedelta(days=1)  # a growth that was seen for less tells nothing of a day


@dataclass(frozen=True)
class Thresholds:
    """When something is not well."""

    max_age: timedelta = timedelta(hours=26)  # of the last good: older is critical
    min_snapshots: int = 1  # verified ones: fewer is a warning
    max_proof_age: timedelta = timedelta(days=15)  # two weekly proofs were missed: a warning


@dataclass(frozen=True)
class Freshness:
    """When one account's database was last known to be safe."""

    last_good: datetime | None  # UTC; None: never
    # The verified ones that a restore would choose by itself and that are not of the future, newest
    # first.
    good: tuple[Manifest, ...]
    ahead: tuple[Manifest, ...]  # those that are, newest first
    # names of databases that are not copied: what was taken since the first does not count
    uncovered: tuple[str, ...]

    @property
    def confirmed(self) -> datetime | None:
        """When a run last found the database unchanged, where that is what makes it fresh."""
        newer = self.last_good is not None and self.last_good > self.good[0].when
        return self.last_good if newer else None

    def is_old(self, now: datetime) -> bool:
        """Tell whether the last good is older than OLD."""
        return self.last_good is not None and now - self.last_good > OLD


@dataclass(frozen=True)
class Trouble:
    """One thing that is not well."""

    state: str  # WARNING or CRITICAL
    text: str


@dataclass(frozen=True)
class Health:
    """How one account's backups are."""

    view: AccountView
    fresh: Freshness
    proofs: ProofStates
    trend: float | None  # bytes a day by which the database grows; None where that can't be told
    last_error: Attempt | None  # the newest failed attempt, if nothing went well since
    note: str  # what there is to be known where all is well
    troubles: tuple[Trouble, ...]

    @property
    def state(self) -> str:
        """The worst of it."""
        return worst(trouble.state for trouble in self.troubles)

    @property
    def text(self) -> str:
        """What is to be said of it, the worst first; may be empty."""
        ordered = sorted(self.troubles, key=lambda trouble: -STATES.index(trouble.state))
        return "; ".join(trouble.text for trouble in ordered) or self.note


def worst(states: Iterable[str]) -> str:
    """Find the worst of `states`; OK where there are none."""
    return max(states, key=STATES.index, default=OK)


def judge_freshness(view: AccountView, now: datetime) -> Freshness:
    """Judge when an account's database was last known to be safe."""
    holed = {image.snapshot.name for image in view.lost}
    verified = [
        snapshot
        for snapshot in view.snapshots
        if snapshot.is_good
        and snapshot.label not in UNWANTED
        and snapshot.name not in holed
        and snapshot.name not in view.unsound
    ]
    verified.sort(key=lambda snapshot: snapshot.when, reverse=True)
    good = tuple(snapshot for snapshot in verified if snapshot.when <= now + AHEAD)
    ahead = tuple(snapshot for snapshot in verified if snapshot.when > now + AHEAD)
    bare = uncovered_since(view.attempts)
    known = [snapshot.when for snapshot in good] + _confirmations(view, good, now)
    if bare:  # what was taken since does not hold all that there is
        begun = bare[0].when - timedelta(seconds=bare[0].seconds) - _ROUNDING
        known = [when for when in known if when < begun]
    return Freshness(max(known, default=None), good, ahead, bare[1].uncovered if bare else ())


def judge_health(view: AccountView, now: datetime, limits: Thresholds) -> Health:
    """Judge how the account is at `now`."""
    fresh, proofs = judge_freshness(view, now), judge_proofs(view)
    skipped = bool(view.attempts) and view.attempts[-1].outcome == "skipped"
    no_database = skipped and not view.snapshots
    error = last_error(view.attempts, fresh.last_good)
    troubles = [*_troubles(view, fresh, error, now, limits, no_database=no_database)]
    if not view.problem:
        state = CRITICAL if view.in_map else WARNING
        troubles += [Trouble(state, fault.text) for fault in proofs.faults]
        doubts = proofs.doubts(view.user, now, limits.max_proof_age)
        troubles += [Trouble(WARNING, text) for text in doubts]
    note = "no database" if no_database else ""
    return Health(view, fresh, proofs, size_trend(fresh.good), error, note, tuple(troubles))


def _confirmations(view: AccountView, good: Sequence[Manifest], now: datetime) -> list[datetime]:
    """List when runs found that the database is still what a good snapshot holds."""
    names = {snapshot.name for snapshot in good}
    return [
        tried.when
        for tried in view.attempts
        if tried.outcome == UNCHANGED
        and tried.verdict in (None, "verified")  # of what it was found to be still
        and not tried.missing
        and tried.when <= now + AHEAD
        and _compared_with(view.snapshots, tried.when) in names
    ]


def _compared_with(snapshots: Sequence[Manifest], when: datetime) -> str | None:
    """Name the snapshot that a run of that time compared the database with."""
    there = [one for one in snapshots if one.when <= when and one.label not in UNWANTED]
    newest = max(there, key=lambda one: one.sequence, default=None)
    return newest.name if newest is not None else None


def last_error(attempts: Sequence[Attempt], last_good: datetime | None) -> Attempt | None:
    """Find the newest failed attempt, if nothing went well since; attempts are oldest first."""
    for attempt in reversed(attempts):
        if not attempt.failed:
            return None
        if last_good is None or attempt.when >= last_good:
            return attempt
    return None


def _troubles(
    view: AccountView,
    fresh: Freshness,
    error: Attempt | None,
    now: datetime,
    limits: Thresholds,
    *,
    no_database: bool,
) -> Iterator[Trouble]:
    if view.restore:
        yield Trouble(CRITICAL, view.restore)
    if view.vanished:
        yield Trouble(CRITICAL, explain_loss(view.user, view.vanished))
    if view.catalog.problem:
        yield Trouble(WARNING, f"{view.catalog.problem}; next: t3-backup-state run")
    if not view.in_map:
        yield Trouble(WARNING, "not in the map: no new snapshots are taken")
        if view.problem:
            yield Trouble(WARNING, view.problem)
        return
    if login := view.login.trouble(view.user, now):
        yield Trouble(WARNING, login)
    if view.problem:
        yield Trouble(CRITICAL, view.problem)
        return
    if no_database:
        last = view.attempts[-1]
        if not -AHEAD <= now - last.when <= limits.max_age:
            yield Trouble(CRITICAL, f"last checked at {last.at}: there was no database")
        return
    if fresh.uncovered:
        yield Trouble(CRITICAL, databases.explain(fresh.uncovered))
    if view.snapshots and (missing := view.snapshots[0].missing):
        found = "; ".join(
            f"{databases.shown_name(one.file)} is not in the newest snapshot: "
            f"{printable(one.reason)}"
            for one in missing
        )
        yield Trouble(CRITICAL, found)
    if holes := explain_holes(view):
        yield Trouble(CRITICAL, holes)
    if held := [snapshot for snapshot in view.snapshots if snapshot.holds]:
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        found = f"{held[0].name} is {held[0].verdict} ({'; '.join(held[0].reasons)}){more}"
        until = f"t3-backup-state accept {quote(view.user)}"
        yield Trouble(CRITICAL, f"{found}; nothing is pruned until: {until}")
    if doubt := explain_doubt(view.snapshots):
        yield Trouble(WARNING, doubt)
    if not fresh.uncovered:
        yield from _age(view, fresh.last_good, now, limits)
    if fresh.ahead:
        found = f"{fresh.ahead[0].name} is dated in the future and does not count"
        yield Trouble(WARNING, f"{found}; was the clock set back?")
    if fresh.last_good is not None and len(fresh.good) < limits.min_snapshots:
        yield Trouble(WARNING, f"{len(fresh.good)} good snapshots, not {limits.min_snapshots}")
    if view.attempts and (unsaved := view.attempts[-1].unsaved):
        yield Trouble(WARNING, f"files next to the database were not saved ({unsaved})")
    if error is not None and fresh.last_good is not None and not view.attempts[-1].uncovered:
        yield Trouble(WARNING, f"the last attempt failed ({error.reason})")


def explain_holes(view: AccountView) -> str:
    """Say which snapshots have lost an image, and nobody has accepted it; empty: none has."""
    accepted = view.unsound.reasons.keys() - view.unsound.waiting
    holes = [image for image in view.lost if image.snapshot.name not in accepted]
    if not holes:
        return ""
    more = f" and {len(holes) - 1} more" if len(holes) > 1 else ""
    lost = f"{holes[0].snapshot.name} has lost {databases.shown_name(holes[0].file)}"
    next_step = "next: t3-backup-state run, which brings back what is the same in the home"
    until = f"or: t3-backup-state accept {quote(view.user)}"
    return f"{lost}{more}: no file holds it any more; {next_step}, {until}"


def explain_doubt(snapshots: Sequence[Manifest]) -> str:
    """Say why the newest snapshot can't be judged; empty: it was judged, or there is none."""
    newest = max(snapshots, key=lambda snapshot: snapshot.sequence, default=None)
    if newest is None or newest.verdict != "unproven":
        return ""
    return f"{newest.name} is unproven ({'; '.join(newest.reasons)})"


def _age(
    view: AccountView, last_good: datetime | None, now: datetime, limits: Thresholds
) -> Iterator[Trouble]:
    if last_good is not None:
        passed, most = (now - last_good).total_seconds(), limits.max_age.total_seconds()
        if passed > most:
            found = f"the last good one is {format_span(passed)} old"
            yield Trouble(CRITICAL, f"{found} (at most {format_span(most)})")
        return
    why = f" ({view.attempts[-1].reason})" if view.attempts and view.attempts[-1].failed else ""
    if view.snapshots:
        yield Trouble(CRITICAL, f"no good snapshot among {len(view.snapshots)}{why}")
    else:
        yield Trouble(CRITICAL, f"never backed up{why}")


def size_trend(good: Sequence[Manifest], file: str | None = None) -> float | None:
    """Compute the bytes a day by which a database grew, by least squares; else the live one.

    None where sizes span less than a day. What is another database in an older snapshot does not
    count.
    """
    file = file or (good[0].live.file if good else "")
    found = [(one.when, image.bytes) for one in good if (image := one.image_of(file))]
    if len(found) < 2 or found[0][0] - found[-1][0] < _LEAST_SPAN:
        return None
    days = [(when - found[-1][0]) / timedelta(days=1) for when, _ in found]
    mean = sum(days) / len(days)
    along = sum((day - mean) * size for day, (_, size) in zip(days, found, strict=True))
    return along / sum((day - mean) ** 2 for day in days)


def trend_text(trend: float | None) -> str:
    """Write a trend for people: `+1.2 MiB/d`."""
    if trend is None:
        return "-"
    return f"{'-' if trend <= -0.5 else '+'}{format_size(abs(trend))}/d"


def format_span(seconds: float) -> str:
    """Write a time span so that a little more can be told: `45m`, `26.2h`, `3.5d`."""
    if seconds < 7200:
        return f"{max(0, seconds) / 60:.0f}m"
    number, unit = (seconds / 3600, "h") if seconds < 3 * 86_400 else (seconds / 86_400, "d")
    return f"{number:.1f}".removesuffix(".0") + unit
