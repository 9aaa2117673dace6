"""Which snapshots stay, in tables: the edges of days, weeks, months and years, and what is said of
each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.manifests import NOON
from support.snapshot_histories import kept_snapshots, make_snapshot, sequences

from t3_backup.history.retention import Policy, decide_retention
from t3_backup.settings import load

JUST_ONE = Policy(1, 0, 0, 0, 0, 0)

# What the policy asks for, times of runs (the oldest first), and which of them stay, by their
# place.
PERIODS = [
    pytest.param(
        # Berlin springs forward on the 29th at 01:00 UTC; in local time 23:30 UTC is the next day
        # already.
        {"daily": 2},
        ["2026-03-28T23:30", "2026-03-29T00:30", "2026-03-29T23:30", "2026-03-30T00:10", "2026-03-30T00:20"],
        {2, 4},
        id="the day that has 23 hours",
    ),
    pytest.param(
        {"daily": 3},
        ["2026-10-24T23:59", "2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T23:59", "2026-10-26T00:00"],
        {0, 4, 5},
        id="the day that has 25 hours",
    ),
    pytest.param({"daily": 2}, ["2028-02-28T12:00", "2028-02-29T01:00", "2028-02-29T02:00", "2028-03-01T12:00"], {2, 3}, id="a leap day"),
    pytest.param({"daily": 2}, ["2027-02-28T23:59", "2027-03-01T00:00", "2027-03-01T12:00"], {0, 2}, id="no leap day"),
    pytest.param({"daily": 2}, ["2026-12-31T23:59", "2027-01-01T00:00", "2027-01-01T00:01"], {0, 2}, id="days at the end of a year"),
    pytest.param({"daily": 3}, ["2026-11-01T12:00", "2026-11-11T12:00", "2026-11-21T12:00"], {0, 1, 2}, id="days without a run don't count"),
    pytest.param({"weekly": 2}, ["2026-11-15T23:59", "2026-11-16T00:00", "2026-11-22T23:59", "2026-11-23T00:00"], {2, 3}, id="a week begins on Monday"),
    pytest.param(
        # 2026 has 53 weeks: the last one ends on the 3rd of January.
        {"weekly": 2},
        ["2026-12-27T23:59", "2026-12-28T00:00", "2026-12-31T12:00", "2027-01-01T12:00", "2027-01-03T23:59", "2027-01-04T00:00"],
        {4, 5},
        id="week 53 goes on in the next year",
    ),
    pytest.param(
        # The 30th of December 2024 is in week 1 of 2025, and so is no week of 2024's beginning.
        {"weekly": 3},
        ["2024-01-02T12:00", "2024-12-29T12:00", "2024-12-30T12:00", "2025-01-01T12:00", "2025-01-06T12:00"],
        {1, 3, 4},
        id="week 1 begins in the year before",
    ),
    pytest.param({"monthly": 2}, ["2028-01-31T23:59", "2028-02-01T00:00", "2028-02-29T23:59", "2028-03-01T00:00"], {2, 3}, id="a month that ends on a leap day"),
    pytest.param({"monthly": 4}, ["2025-12-31T12:00", "2026-11-30T12:00", "2026-12-01T12:00", "2026-12-31T12:00", "2027-01-01T12:00"], {0, 1, 3, 4}, id="the same month of another year is another"),
    pytest.param({"keep": 2, "daily": 1}, ["2026-11-23T12:00", "2026-11-24T11:00", "2026-11-24T12:00", "2026-11-24T13:00"], {0, 2, 3}, id="fewer days than KEEP take none of its own"),
    pytest.param({"yearly": 2}, ["2025-06-01T12:00", "2025-12-31T23:59", "2026-01-01T00:00", "2026-06-01T00:00"], {1, 3}, id="years"),
    pytest.param(
        {"daily": 2, "weekly": 2, "monthly": 2, "yearly": 2},
        ["2025-12-31T12:00", "2026-10-31T12:00", "2026-11-14T12:00", "2026-11-22T12:00", "2026-11-23T12:00", "2026-11-24T12:00"],
        {0, 1, 3, 4, 5},
        id="all of them",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "times", "staying"), PERIODS)
def test_days_weeks_months_and_years_are_those_of_utc(
    asked: dict[str, int], times: list[str], staying: set[int]
) -> None:
    """Row 14."""
    account_dir = [
        make_snapshot(number, datetime.fromisoformat(time).replace(tzinfo=UTC))
        for number, time in enumerate(times)
    ]
    assert sequences(kept_snapshots(account_dir, replace(JUST_ONE, **asked))) == staying


def test_a_time_in_another_zone_is_in_its_period_of_utc() -> None:
    """Row 14."""
    times = ["2026-12-31T23:30:00Z", "2027-01-01T00:30:00+01:00", "2027-01-01T00:30:00Z"]
    account_dir = [
        replace(make_snapshot(number, NOON), taken_at=time) for number, time in enumerate(times)
    ]
    assert sequences(kept_snapshots(account_dir, replace(JUST_ONE, yearly=2))) == {1, 2}


DAILY_FOR_YEARS = [
    make_snapshot(number, datetime(2024, 1, 1, 3, 30, tzinfo=UTC) + timedelta(days=number))
    for number in range(1059)
]


def test_years_of_nights_come_down_to_what_is_asked_for() -> None:
    """The 24th of November 2026, after a run on each night since 2024."""
    days = [
        one.when.date().isoformat()
        for one in kept_snapshots(DAILY_FOR_YEARS, Policy(14, 0, 8, 12, 5, 14))
    ]
    assert days[:14] == [f"2026-11-{day}" for day in range(24, 10, -1)]
    weeks = ["2026-11-08", "2026-11-01", "2026-10-25", "2026-10-18", "2026-10-11"]
    months = [
        "2026-10-31",
        "2026-09-30",
        "2026-08-31",
        "2026-07-31",
        "2026-06-30",
        "2026-05-31",
        "2026-04-30",
        "2026-03-31",
    ]
    months += ["2026-02-28", "2026-01-31", "2025-12-31"]
    assert days[14:] == sorted([*weeks, *months, "2024-12-31"], reverse=True)


def test_fifty_runs_in_an_hour_push_no_day_week_month_or_year_out() -> None:
    """Row 35, with the default KEEP."""
    policy = Policy(14, 14, 8, 12, 5, 14)
    before = kept_snapshots(DAILY_FOR_YEARS, policy)
    burst = [
        make_snapshot(2000 + number, DAILY_FOR_YEARS[-1].when + timedelta(minutes=number + 1))
        for number in range(50)
    ]
    staying = kept_snapshots([*DAILY_FOR_YEARS, *burst], policy)
    # Today's newest is another one now; all the others are there.
    assert sequences(staying) == sequences(before[1:]) | sequences(burst[-14:])


def test_labelled_ones_are_counted_by_their_kind_and_apart_from_keep() -> None:
    """Row 13."""
    labels = [
        "prebump-0.0.1",
        "manual",
        "prebump-0.0.2",
        "prebump",
        "manual-2",
        "prebump-0.0.3",
        None,
        None,
    ]
    account_dir = [
        make_snapshot(number, NOON + timedelta(days=number), label=label)
        for number, label in enumerate(labels)
    ]
    assert sequences(kept_snapshots(account_dir, replace(JUST_ONE, labelled=2))) == {1, 3, 4, 5, 7}
    assert sequences(kept_snapshots(account_dir, JUST_ONE)) == {7}
    assert sequences(kept_snapshots(account_dir[:6], JUST_ONE)) == {5}, (
        "labelled or not, the newest verified one stays"
    )


def reasons(account_dir: list, policy: Policy) -> dict[int, tuple[str, ...]]:
    return {
        decision.snapshot.sequence: decision.reasons
        for decision in decide_retention(account_dir, policy)
    }


def test_each_decision_names_its_rules() -> None:
    account_dir = [
        make_snapshot(1, NOON - timedelta(days=40)),
        make_snapshot(2, NOON - timedelta(days=39), "accepted damaged"),
        make_snapshot(3, NOON - timedelta(days=38), "accepted suspect"),
        make_snapshot(4, NOON - timedelta(days=37), label="prebump-1"),
        make_snapshot(5, NOON - timedelta(days=36), label="prebump-2"),
        make_snapshot(6, NOON - timedelta(hours=2), pinned=True),
        make_snapshot(7, NOON - timedelta(hours=1)),
        make_snapshot(8, NOON),
    ]
    assert reasons(account_dir, Policy(1, 2, 1, 0, 1, 1)) == {
        8: (
            "the newest verified one",
            "recent 1 of 1",
            "day 2026-11-24, 1 of 2",
            "week 2026-W48, 1 of 1",
            "year 2026, 1 of 1",
        ),
        7: ("outside: recent 1, days 2, weeks 1, years 1",),
        6: ("pinned at 2026-11-24T10:00:00Z",),
        5: ("label prebump 1 of 1",),
        4: ("outside: label prebump 1",),
        3: ("evidence 1 of 1",),
        2: ("outside: evidence 1",),
        1: ("day 2026-10-15, 2 of 2",),
    }


def test_what_holds_is_named_and_so_is_a_clock_that_leapt() -> None:
    """Row 15 and Row 34."""
    account_dir = [
        make_snapshot(1, NOON),
        make_snapshot(2, NOON + timedelta(minutes=1)),
        make_snapshot(3, NOON, "suspect"),
    ]
    assert reasons(account_dir, JUST_ONE)[1] == (
        "held by state-20261124T120000Z, which is suspect",
    )
    ahead = [*account_dir[:2], make_snapshot(3, NOON + timedelta(days=3650))]
    assert reasons(ahead, JUST_ONE)[1] == (
        "the clock may have leapt: state-20361121T120000Z is more than a year after the one before it",
    )


def test_a_pause_of_a_year_holds_pruning_for_as_many_runs_as_are_kept_and_no_longer() -> None:
    """Row 15: it can't be told from a clock that leapt."""
    account_dir = [make_snapshot(number, NOON + timedelta(days=number)) for number in range(10)]
    back = NOON + timedelta(days=400)
    for number in range(3):
        account_dir.append(make_snapshot(10 + number, back + timedelta(days=number)))
        assert len(kept_snapshots(account_dir, Policy(3, 0, 0, 0, 0, 0))) == len(account_dir)
    account_dir.append(make_snapshot(13, back + timedelta(days=3)))
    assert sequences(kept_snapshots(account_dir, Policy(3, 0, 0, 0, 0, 0))) == {11, 12, 13}


def test_a_pin_under_a_clock_that_was_behind_keeps_nothing_else() -> None:
    """Row 15: nothing before it would ever go."""
    account_dir = [make_snapshot(number, NOON + timedelta(days=number)) for number in range(5)]
    account_dir.append(make_snapshot(5, NOON - timedelta(days=200), pinned=True))
    account_dir += [
        make_snapshot(6 + number, NOON + timedelta(days=6 + number)) for number in range(3)
    ]
    assert sequences(kept_snapshots(account_dir, Policy(2, 0, 0, 0, 0, 0))) == {5, 7, 8}


def test_the_policy_is_what_the_settings_say() -> None:
    values = load({"keep": "3"}, {}, Path("/nonexistent"))
    assert Policy.of(values) == Policy(3, 0, 0, 0, 0, 14)
    values = replace(
        values, keep_daily=4, keep_weekly=5, keep_monthly=6, keep_yearly=7, keep_labelled=8
    )
    assert Policy.of(values) == Policy(3, 4, 5, 6, 7, 8)
