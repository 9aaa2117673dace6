"""Retention over random histories: what goes is never what somebody will want back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.manifests import NOON
from support.snapshot_histories import (
    GOOD,
    KEEPS,
    YEARS,
    day,
    histories,
    kept_sequences,
    kept_snapshots,
    make_snapshot,
    newest_first,
    sequences,
    uniform_policy,
    unlabelled,
    verified,
)

from t3_backup.history.retention import decide_retention, label_kind
from t3_backup.store.faults import Unsound
from t3_backup.store.manifest import Manifest
from t3_backup.text import format_time


@given(histories(), KEEPS)
def test_the_newest_verified_one_always_stays(account_dir: list[Manifest], keep: int) -> None:
    """Row 13: labelled or not, whatever else there is; by a rule of its own, that even a KEEP of
    nothing would not end."""
    for newest in verified(account_dir)[:1]:
        assert newest in kept_snapshots(account_dir, keep)
        assert newest in kept_snapshots(account_dir, 0)


@given(histories(), KEEPS)
def test_the_newest_keep_verified_ones_stay(account_dir: list[Manifest], keep: int) -> None:
    """Row 13."""
    assert sequences(unlabelled(account_dir)[:keep]) <= kept_sequences(account_dir, keep)


@given(histories(), KEEPS)
def test_a_labelled_one_stays_until_its_own_kind_has_pushed_it_out(
    account_dir: list[Manifest], keep: int
) -> None:
    """Row 13."""
    staying = kept_sequences(account_dir, keep)
    labelled = [one for one in verified(account_dir) if one.label is not None]
    for kind in {label_kind(str(one.label)) for one in labelled}:
        of_kind = [one for one in labelled if label_kind(str(one.label)) == kind]
        assert sequences(of_kind[:keep]) <= staying


@given(histories(GOOD, jumps=False), KEEPS)
def test_labelled_ones_push_no_plain_one_out_and_plain_ones_no_labelled(
    account_dir: list[Manifest], keep: int
) -> None:
    """Row 13."""
    good = verified(account_dir)
    labelled = [one for one in good if one.label is not None]
    assert kept_sequences(good, keep) == kept_sequences(unlabelled(good), keep) | kept_sequences(
        labelled, keep
    )


@given(histories(), KEEPS)
def test_while_a_bad_one_is_unaccepted_nothing_goes(account_dir: list[Manifest], keep: int) -> None:
    """Row 12 and Row 34: wherever in the history it is."""
    if any(one.verdict != "verified" and one.accepted_at is None for one in account_dir):
        assert kept_snapshots(account_dir, keep) == newest_first(account_dir)


@given(histories(GOOD, jumps=False), KEEPS)
def test_a_bad_one_that_is_accepted_holds_nothing_and_counts_for_nothing(
    account_dir: list[Manifest], keep: int
) -> None:
    """Row 12: evidence takes no place of a good one's; the newest few of it stay."""
    evidence = [one for one in newest_first(account_dir) if one.verdict != "verified"]
    good = [one for one in account_dir if one.verdict == "verified"]
    assert kept_sequences(account_dir, keep) == kept_sequences(good, keep) | sequences(
        evidence[:keep]
    )


@given(histories(GOOD, jumps=False), KEEPS, st.sets(st.integers(0, 39)))
def test_what_is_known_to_fail_pushes_no_good_one_out_and_waits_for_accept(
    account_dir: list[Manifest], keep: int, broken: set[int]
) -> None:
    """Row 58: what is sound stays as if nothing else were there. A proof that failed holds its own
    snapshot alone, until somebody accepts that."""
    account_dir = [replace(one, name=f"s{one.sequence}") for one in account_dir]
    failed = [one for place, one in enumerate(newest_first(account_dir)) if place in broken]
    names = dict.fromkeys((one.name for one in failed), "cut")
    sound = [one for one in account_dir if one.name not in names]
    waiting = Unsound(names, frozenset(names))
    decisions = decide_retention(account_dir, uniform_policy(keep), waiting)
    staying = sequences(one.snapshot for one in decisions if one.keep)
    assert staying == kept_sequences(sound, keep) | sequences(failed)
    accepted = decide_retention(account_dir, uniform_policy(keep), Unsound(names))
    staying = sequences(one.snapshot for one in accepted if one.keep)
    assert kept_sequences(sound, keep) <= staying


@given(histories(), KEEPS)
def test_the_newest_verified_one_of_each_of_the_last_days_stays(
    account_dir: list[Manifest], keep: int
) -> None:
    """Row 35: by the order in which they were taken, so that a clock that was wrong can't count
    days twice."""
    staying = kept_snapshots(account_dir, keep)
    days = list(dict.fromkeys(day(one) for one in unlabelled(account_dir)))
    for last in days[:keep]:
        assert next(one for one in unlabelled(account_dir) if day(one) == last) in staying


@given(histories(jumps=False), KEEPS)
def test_with_a_clock_that_is_right_the_last_days_are_those_of_the_calendar(
    account_dir: list[Manifest], keep: int
) -> None:
    """Row 35."""
    staying = kept_snapshots(account_dir, keep)
    for last in sorted({day(one) for one in unlabelled(account_dir)}, reverse=True)[:keep]:
        assert next(one for one in unlabelled(account_dir) if day(one) == last) in staying


@given(histories(GOOD), KEEPS, st.integers(1, 60))
def test_many_runs_on_one_day_push_no_earlier_day_out(
    account_dir: list[Manifest], keep: int, runs: int
) -> None:
    """Row 35: they cost what one run on that day would have, whatever the clock did before."""
    sequence = max((one.sequence for one in account_dir), default=0)
    noon = max((one.when for one in account_dir), default=NOON).replace(
        hour=0, minute=0, second=0
    ) + timedelta(days=1, hours=12)
    burst = [
        make_snapshot(sequence + number, noon + timedelta(minutes=number))
        for number in range(1, runs + 1)
    ]
    once, often = [*account_dir, burst[-1]], [*account_dir, *burst]
    for last in list(dict.fromkeys(day(one) for one in unlabelled(once)))[:keep]:
        newest_of_day = next(one for one in unlabelled(once) if day(one) == last)
        assert newest_of_day in kept_snapshots(once, keep)
        assert newest_of_day in kept_snapshots(often, keep)


@given(
    histories(GOOD, jumps=False),
    KEEPS,
    st.sampled_from([YEARS, -YEARS, 86400 * 40, -86400 * 40]),
    st.data(),
)
def test_a_clock_that_jumps_prunes_nothing_that_would_stay_otherwise(
    account_dir: list[Manifest], keep: int, jump: int, data: st.DataObject
) -> None:
    """Row 15: a run under a wrong clock, and all runs after it, prune at most what it would have under a right one.

    It is on a day of its own, as most are, by either clock: a wrong one may make one day of it
    more, never more.
    """
    account_dir = [one for one in account_dir if one.label is None]
    last = max((one.when for one in account_dir), default=NOON)
    sequence = max((one.sequence for one in account_dir), default=0) + 1
    day_of_its_own = last + timedelta(days=1)
    later = data.draw(st.lists(st.integers(0, 4 * 86400), max_size=12))
    after, when = [], day_of_its_own + timedelta(days=1)
    for number, gap in enumerate(later, 1):
        when += timedelta(seconds=gap)
        after.append(make_snapshot(sequence + number, when))
    wrongly = make_snapshot(sequence, day_of_its_own + timedelta(seconds=jump))
    assume(day(wrongly) not in {day(one) for one in (*account_dir, *after)})
    right = [*account_dir, make_snapshot(sequence, day_of_its_own), *after]
    wrong = [*account_dir, wrongly, *after]
    assert sequences(wrong) - kept_sequences(wrong, keep) <= sequences(right) - kept_sequences(
        right, keep
    )


@given(histories(), KEEPS)
def test_one_from_the_future_stays(account_dir: list[Manifest], keep: int) -> None:
    """Row 15: as long as something that stays was taken after it, at an earlier time by more than a
    day."""
    staying = kept_snapshots(account_dir, keep)
    for one in account_dir:
        if any(
            other.sequence > one.sequence and one.when - other.when > timedelta(days=1)
            for other in staying
        ):
            assert one in staying


@given(histories(GOOD), KEEPS)
def test_age_alone_prunes_nothing(account_dir: list[Manifest], keep: int) -> None:
    """Row 15: the same history ten years earlier or later has the same fate."""
    for jump in (YEARS // 86400 * 86400, -(YEARS // 86400) * 86400):
        moved = [
            replace(one, taken_at=format_time(one.when + timedelta(seconds=jump)))
            for one in account_dir
        ]
        assert [one.sequence for one in kept_snapshots(moved, keep)] == [
            one.sequence for one in kept_snapshots(account_dir, keep)
        ]


@given(histories(), KEEPS, st.randoms(use_true_random=False))
def test_the_order_of_reading_an_account_folder_changes_nothing(
    account_dir: list[Manifest], keep: int, random
) -> None:
    """Row 13: and what decides once decides so again."""
    shuffled = account_dir.copy()
    random.shuffle(shuffled)
    first = decide_retention(account_dir, uniform_policy(keep))
    assert (
        first
        == decide_retention(account_dir, uniform_policy(keep))
        == decide_retention(shuffled, uniform_policy(keep))
    )
    assert [decision.snapshot for decision in first] == newest_first(account_dir)


@settings(max_examples=300)
@given(histories(GOOD), KEEPS)
def test_deciding_again_after_pruning_deletes_nothing_more(
    account_dir: list[Manifest], keep: int
) -> None:
    """Row 13."""
    once = kept_snapshots(account_dir, keep)
    assert kept_snapshots(once, keep) == once


@settings(max_examples=300)
@given(histories(GOOD), KEEPS)
def test_pruning_after_every_run_comes_to_the_same_days(
    account_dir: list[Manifest], keep: int
) -> None:
    """Row 35: pruning day by day, as it really happens, keeps what the two rules promise of the
    whole history."""
    account_dir = [one for one in account_dir if one.verdict == "verified"]
    staying: list[Manifest] = []
    for one in account_dir:
        staying = kept_snapshots([*staying, one], keep)
    assert sequences(unlabelled(account_dir)[:keep]) <= sequences(staying)
    for last in list(dict.fromkeys(day(one) for one in unlabelled(account_dir)))[:keep]:
        assert next(one for one in unlabelled(account_dir) if day(one) == last) in staying


@given(histories(), KEEPS)
def test_a_larger_keep_never_keeps_less(account_dir: list[Manifest], keep: int) -> None:
    """Row 13."""
    assert kept_sequences(account_dir, keep) <= kept_sequences(account_dir, keep + 1)


@given(histories(), KEEPS)
def test_the_names_of_the_old_script_are_treated_the_same(
    account_dir: list[Manifest], keep: int
) -> None:
    """Row 13: with a manifest, they are snapshots like any other."""
    renamed = [snapshot_with_old_name(one) for one in account_dir]
    assert [one.sequence for one in kept_snapshots(renamed, keep)] == [
        one.sequence for one in kept_snapshots(account_dir, keep)
    ]


def snapshot_with_old_name(one: Manifest) -> Manifest:
    local = one.when.strftime("%Y%m%d-%H%M%S")
    return replace(one, name=f"state-{one.label}-{local}" if one.label else f"state-{local}")


def test_an_empty_account_folder_and_one_of_bad_ones_alone_are_left_as_they_are() -> None:
    """Row 13."""
    assert decide_retention([], uniform_policy(1)) == []
    bad = [make_snapshot(number, NOON, "damaged") for number in (1, 2, 3)]
    assert kept_snapshots(bad, 1) == newest_first(bad)


# Times of runs, oldest first, and which of them stay with keep 2 (by their place in the list).
DAYS = [
    pytest.param(
        # Berlin springs forward on the 29th at 01:00 UTC; in local time 23:30 UTC is the next day
        # already.
        [
            "2026-03-28T23:30:00",
            "2026-03-29T00:30:00",
            "2026-03-29T23:30:00",
            "2026-03-30T00:10:00",
            "2026-03-30T00:20:00",
        ],
        {2, 3, 4},
        id="the day that has 23 hours",
    ),
    pytest.param(
        [
            "2026-10-24T23:59:59",
            "2026-10-25T00:00:00",
            "2026-10-25T00:30:00",
            "2026-10-25T01:30:00",
            "2026-10-25T23:59:59",
            "2026-10-26T00:00:00",
        ],
        {4, 5},
        id="the day that has 25 hours",
    ),
    pytest.param(
        [
            "2026-12-30T12:00:00",
            "2026-12-31T23:59:59",
            "2027-01-01T00:00:00",
            "2027-01-01T00:00:01",
        ],
        {1, 2, 3},
        id="the end of a year",
    ),
    pytest.param(
        [
            "2028-02-28T12:00:00",
            "2028-02-29T01:00:00",
            "2028-02-29T02:00:00",
            "2028-03-01T12:00:00",
        ],
        {2, 3},
        id="a leap day",
    ),
    pytest.param(
        [
            "2027-02-27T12:00:00",
            "2027-02-28T12:00:00",
            "2027-03-01T12:00:00",
            "2027-03-01T13:00:00",
        ],
        {1, 2, 3},
        id="no leap day",
    ),
    pytest.param(
        [
            "2026-12-28T12:00:00",
            "2027-01-04T12:00:00",
            "2027-01-04T13:00:00",
            "2027-01-04T14:00:00",
        ],
        {0, 2, 3},
        id="days without a run don't count",
    ),
]


@pytest.mark.parametrize(("times", "staying"), DAYS)
def test_days_are_those_of_utc(times: list[str], staying: set[int]) -> None:
    """Row 14."""
    account_dir = [
        make_snapshot(number, datetime.fromisoformat(time).replace(tzinfo=UTC))
        for number, time in enumerate(times)
    ]
    assert {one.sequence for one in kept_snapshots(account_dir, 2)} == staying


def test_fourteen_days_and_a_day_of_fifty_runs_are_all_there() -> None:
    """Row 35, in the numbers of the default."""
    month = [make_snapshot(number, NOON + timedelta(days=number)) for number in range(30)]
    burst = [
        make_snapshot(30 + number, NOON + timedelta(days=30, minutes=number))
        for number in range(50)
    ]
    staying = kept_snapshots([*month, *burst], 14)
    assert {day(one) for one in staying} == {day(one) for one in [*month[-13:], burst[0]]}
    assert len(staying) == 14 + 13


def test_a_clock_that_was_ten_years_ahead_takes_no_day_away_for_good() -> None:
    """Row 15 and Row 35: once right again, fifty runs push no earlier day out."""
    month = [make_snapshot(number, NOON + timedelta(days=number)) for number in range(10)]
    ahead = [
        make_snapshot(10 + number, NOON + timedelta(days=3650 + number)) for number in range(3)
    ]
    week = [make_snapshot(20 + number, NOON + timedelta(days=10 + number)) for number in range(3)]
    burst = [
        make_snapshot(30 + number, NOON + timedelta(days=13, minutes=number))
        for number in range(50)
    ]
    staying = kept_snapshots([*month, *ahead, *week, *burst], 3)
    assert sequences([*week[1:], burst[-1], *ahead]) <= sequences(staying)


@given(histories(jumps=False), histories(jumps=False), KEEPS)
def test_unproven_ones_take_no_place_of_others_and_no_more_than_theirs(
    account_dir: list[Manifest], others: list[Manifest], keep: int
) -> None:
    """Row 13: what SQLite can't judge neither pushes out a verified one nor holds anything."""
    unproven = [
        replace(one, sequence=10_000 + one.sequence, verdict="unproven", accepted_at=None)
        for one in others
    ]
    alone = kept_sequences(account_dir, keep)
    staying = kept_sequences([*account_dir, *unproven], keep)
    assert alone <= staying
    if not any(one.holds for one in account_dir):
        proven = [replace(one, verdict="verified") for one in unproven]
        assert {one for one in staying if one > 10_000} <= kept_sequences(proven, keep)
