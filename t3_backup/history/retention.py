"""Which snapshots stay, and why. A pure function over manifests: no clock, no files.

Periods are those of UTC and are counted in the order of the sequence numbers, from the newest
verified (or unproven) snapshot back: neither age nor a clock that jumps prunes anything. A suspect
or damaged snapshot that nobody has accepted holds everything, so that a server which began anew on
an empty database can't roll the history out of the door. One whose last proof failed is evidence:
no good one goes for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Self

from t3_backup.settings import Settings
from t3_backup.store.faults import SOUND, Unsound
from t3_backup.store.manifest import Manifest

# by how much a time may be past a later one's before the clock is to blame
_PAST_DOUBT = timedelta(days=1)
# Each of these is counted among its like alone, so that no other pushes a good one out.
_COUNTED = ("verified", "unproven", "incomplete")
_EVIDENCE = "evidence"
_FAILED = "failed proof"
_LEAP = timedelta(days=366)  # between one run and the next, the clock may have leapt


def _day(when: datetime) -> str:
    return when.strftime("%Y-%m-%d")


def _week(when: datetime) -> str:
    return when.strftime("%G-W%V")


def _month(when: datetime) -> str:
    return when.strftime("%Y-%m")


def _year(when: datetime) -> str:
    return when.strftime("%Y")


@dataclass(frozen=True)
class Policy:
    """How many snapshots stay by each rule.

    Of periods, those that have a verified one count.
    """

    keep: int  # verified ones without a label, days, and ones that are not verified; at least 1
    daily: int  # days, where they are more than `keep`
    weekly: int  # ISO weeks
    monthly: int
    yearly: int
    labelled: int  # verified ones of each kind of label

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what the settings of a run say."""
        return cls(
            settings.keep,
            settings.keep_daily,
            settings.keep_weekly,
            settings.keep_monthly,
            settings.keep_yearly,
            settings.keep_labelled,
        )

    def periods(self) -> list[tuple[str, int, Callable[[datetime], str]]]:
        """Return the rules that go by periods.

        Of each: the name of one, how many of them, and which of them a time in UTC is in.
        """
        rules = [
            ("day", max(self.keep, self.daily), _day),
            ("week", self.weekly, _week),
            ("month", self.monthly, _month),
            ("year", self.yearly, _year),
        ]
        return [rule for rule in rules if rule[1]]

    def outside(self, snapshot: Manifest, unsound: Unsound = SOUND) -> str:
        """Tell why a snapshot goes: the rules that might have kept it."""
        if (kind := _class_of(snapshot, unsound)) in (_EVIDENCE, _FAILED):
            return f"outside: {kind} {self.keep}"
        if snapshot.label is not None:
            return f"outside: label {label_kind(snapshot.label)} {self.labelled}"
        return ", ".join(
            [
                f"outside: recent {self.keep}",
                *(f"{name}s {count}" for name, count, _ in self.periods()),
            ]
        )


@dataclass(frozen=True)
class Decision:
    """What becomes of one snapshot, and why.

    The reasons are each rule by which it stays, or the one text that says which rules it is outside
    of.
    """

    snapshot: Manifest
    keep: bool
    reasons: tuple[str, ...]


def _class_of(snapshot: Manifest, unsound: Unsound) -> str:
    """Say what it counts as: one of _COUNTED, evidence, or a failed proof."""
    if snapshot.name in unsound:
        return _FAILED
    if snapshot.verdict == "verified" and snapshot.missing:
        return "incomplete"
    return snapshot.verdict if snapshot.verdict in _COUNTED else _EVIDENCE


def label_kind(label: str) -> str:
    """Return the kind of a label, by which labels are counted.

    `prebump` is that of `prebump-0.0.25`.
    """
    return label.partition("-")[0]


def decide_retention(
    snapshots: Iterable[Manifest], policy: Policy, unsound: Unsound = SOUND
) -> list[Decision]:
    """Decide what becomes of each snapshot of one account, newest first.

    Stays: the newest verified ones; the newest verified one of each of the last days, weeks, months
    and years that have one; the newest verified ones of each kind of label; of unproven ones the
    same, counted apart; the newest accepted ones of another verdict (they are evidence): as many of
    each as the policy says. Whatever it says: a pinned one; the newest verified one, and the newest
    unproven one; one whose last proof failed, until that is accepted; and all, while any is held.
    What is `unsound` is evidence, too, but counts among its like alone.
    """
    newest_first = sorted(snapshots, key=lambda snapshot: snapshot.sequence, reverse=True)
    why: dict[int, list[str]] = defaultdict(list)

    held = [snapshot for snapshot in newest_first if snapshot.holds]
    if held:
        _keep_all(why, newest_first, f"held by {held[0].name}, which is {held[0].verdict}")

    for kind in _COUNTED:
        like = [snapshot for snapshot in newest_first if _class_of(snapshot, unsound) == kind]
        if like:
            _keep_by_policy(why, newest_first, kind, like, policy)
    for kind in (_EVIDENCE, _FAILED):
        like = [one for one in newest_first if _class_of(one, unsound) == kind]
        _keep_first(why, like, policy.keep, kind)
    # What failed once may prove again, on another cable: somebody looks before it goes.
    waiting = [one for one in newest_first if one.name in unsound.waiting]
    _keep_all(why, waiting, "its last proof failed, and nobody has accepted that")
    # One from the future (the clock was wrong then, or is now) says nothing about ages: it stays.
    for snapshot in _find_future_ones(newest_first, witnesses=why.keys()):
        why[snapshot.sequence].append("taken at a time after its successor's")
    # Last, and so no witness: a pin under a wrong clock would keep all that came before it for
    # good.
    for snapshot in newest_first:
        if snapshot.pinned_at is not None:
            why[snapshot.sequence].append(f"pinned at {snapshot.pinned_at}")
    return [
        Decision(
            one,
            one.sequence in why,
            tuple(why[one.sequence]) if one.sequence in why else (policy.outside(one, unsound),),
        )
        for one in newest_first
    ]


def _keep_by_policy(
    why: dict[int, list[str]],
    newest_first: Sequence[Manifest],
    kind: str,
    like: Sequence[Manifest],
    policy: Policy,
) -> None:
    """Keep of those of one kind, of which there is one at least, what the policy says."""
    plain = [snapshot for snapshot in like if snapshot.label is None]
    why[like[0].sequence].append(f"the newest {kind} one")
    _keep_first(why, plain, policy.keep, "recent")
    # One of a time to come stays anyhow, and must take no period's place: the clock was wrong then.
    countable = [snapshot for snapshot in plain if snapshot.when <= like[0].when + _PAST_DOUBT]
    for name, count, period in policy.periods():
        _keep_periods(why, countable, count, name, period)
    kinds: dict[str, list[Manifest]] = defaultdict(list)
    for snapshot in like:
        if snapshot.label is not None:
            kinds[label_kind(snapshot.label)].append(snapshot)
    for of, group in kinds.items():
        _keep_first(why, group, policy.labelled, f"label {of}")
    if leap := _find_leap(plain, policy.keep):
        _keep_all(
            why,
            newest_first,
            f"the clock may have leapt: {leap.name} is more than a year after the one before it",
        )


def _find_leap(plain: Sequence[Manifest], keep: int) -> Manifest | None:
    """Find one of the newest `keep` that was taken more than a year after the one before it.

    A clock that is years ahead opens a period of each kind, and closes the oldest that count. So
    many runs are the time there is to notice it; once the clock is right again, what was taken
    under it takes no place any more.
    """
    # Between those that were taken over from an earlier script and the first of ours, years may
    # lie.
    ours = [snapshot for snapshot in plain if snapshot.sequence > 0]
    return next(
        (new for new, old in pairwise(ours[: keep + 1]) if new.when > old.when + _LEAP), None
    )


def _find_future_ones(
    newest_first: Sequence[Manifest], witnesses: Container[int]
) -> list[Manifest]:
    """Find those with a time more than a day past that of a later one: the clock has jumped.

    Only what stays anyway (its sequence is in `witnesses`) says so: one that goes now would say
    nothing the next time.
    """
    found = []
    earliest_later = None
    for snapshot in newest_first:
        if earliest_later is not None and snapshot.when > earliest_later + _PAST_DOUBT:
            found.append(snapshot)
        elif snapshot.sequence in witnesses and (
            earliest_later is None or snapshot.when < earliest_later
        ):
            earliest_later = snapshot.when
    return found


def _keep_all(why: dict[int, list[str]], snapshots: Iterable[Manifest], reason: str) -> None:
    for snapshot in snapshots:
        why[snapshot.sequence].append(reason)


def _keep_first(
    why: dict[int, list[str]], snapshots: Sequence[Manifest], count: int, rule: str
) -> None:
    for rank, snapshot in enumerate(snapshots[:count], 1):
        why[snapshot.sequence].append(f"{rule} {rank} of {count}")


def _keep_periods(
    why: dict[int, list[str]],
    snapshots: Iterable[Manifest],
    count: int,
    rule: str,
    period: Callable[[datetime], str],
) -> None:
    # in the order of the sequence: a day in a far future must not take a place for good
    newest: dict[str, Manifest] = {}
    for snapshot in snapshots:
        newest.setdefault(period(snapshot.when.astimezone(UTC)), snapshot)
    for rank, (name, snapshot) in enumerate(list(newest.items())[:count], 1):
        why[snapshot.sequence].append(f"{rule} {name}, {rank} of {count}")
