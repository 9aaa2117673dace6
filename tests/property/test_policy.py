"""Retention by periods, labels and pins over random histories, policies and clocks."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manifests import NOON
from support.snapshot_histories import (
    COUNTS,
    GOOD,
    KEEPS,
    POLICIES,
    YEARS,
    histories,
    kept_sequences,
    kept_snapshots,
    make_snapshot,
    newest_first,
    sequences,
    unlabelled,
    verified,
)

from t3_backup.history.retention import Policy, decide_retention, label_kind
from t3_backup.store.manifest import Manifest
from t3_backup.text import format_time

PERIODS = {
    "daily": lambda when: when.date(),
    "weekly": lambda when: when.isocalendar()[:2],
    "monthly": lambda when: (when.year, when.month),
    "yearly": lambda when: when.year,
}
NOTHING = Policy(0, 0, 0, 0, 0, 0)


@given(histories(pins=True), POLICIES)
def test_the_newest_verified_one_stays_whatever_the_policy(
    account_dir: list[Manifest], policy: Policy
) -> None:
    """Row 13: by a rule of its own, so never is there less than one of an account that had one."""
    for newest in verified(account_dir)[:1]:
        assert newest in kept_snapshots(account_dir, policy)
        assert newest in kept_snapshots(account_dir, NOTHING)


@given(histories(pins=True), POLICIES)
def test_a_pinned_one_stays_whatever_the_policy(
    account_dir: list[Manifest], policy: Policy
) -> None:
    """Row 13: verified or not, labelled or not."""
    pinned = sequences(one for one in account_dir if one.pinned_at is not None)
    assert pinned <= kept_sequences(account_dir, policy)
    assert pinned <= kept_sequences(account_dir, NOTHING)


@given(histories(GOOD, pins=True), POLICIES)
def test_a_pin_keeps_that_one_and_changes_nothing_else(
    account_dir: list[Manifest], policy: Policy
) -> None:
    """Row 13: it pushes none out, and keeps no other, whatever the clock did."""
    loose = [replace(one, pinned_at=None) for one in account_dir]
    pinned = sequences(one for one in account_dir if one.pinned_at is not None)
    assert kept_sequences(account_dir, policy) == kept_sequences(loose, policy) | pinned


@given(histories(pins=True), POLICIES)
def test_a_labelled_one_stays_until_as_many_newer_of_its_kind_are_there(
    account_dir: list[Manifest], policy: Policy
) -> None:
    """Row 13."""
    labelled = [one for one in verified(account_dir) if one.label is not None]
    for kind in {label_kind(str(one.label)) for one in labelled}:
        of_kind = [one for one in labelled if label_kind(str(one.label)) == kind]
        assert sequences(of_kind[: policy.labelled]) <= kept_sequences(account_dir, policy)


@given(histories(GOOD, jumps=False), POLICIES)
def test_of_labelled_ones_no_more_stay_than_the_policy_says(
    account_dir: list[Manifest], policy: Policy
) -> None:
    labelled = [one for one in verified(account_dir) if one.label is not None]
    for kind in {label_kind(str(one.label)) for one in labelled}:
        beyond = [one for one in labelled if label_kind(str(one.label)) == kind][policy.labelled :]
        assert not sequences(beyond) - sequences(verified(account_dir)[:1]) & kept_sequences(
            account_dir, policy
        )


@given(histories(pins=True), POLICIES)
def test_while_one_is_held_all_stay(account_dir: list[Manifest], policy: Policy) -> None:
    """Row 12 and Row 34."""
    if any(one.verdict != "verified" and one.accepted_at is None for one in account_dir):
        assert kept_snapshots(account_dir, policy) == newest_first(account_dir)


@pytest.mark.parametrize("rule", PERIODS)
@given(account_dir=histories(), keep=KEEPS, count=COUNTS)
def test_the_newest_verified_one_of_each_of_the_last_periods_stays(
    rule: str, account_dir: list[Manifest], keep: int, count: int
) -> None:
    """Row 13: whatever the clock did in between."""
    staying = kept_snapshots(account_dir, replace(Policy(keep, 0, 0, 0, 0, 0), **{rule: count}))
    period = PERIODS[rule]
    for last in list(dict.fromkeys(period(one.when) for one in unlabelled(account_dir)))[:count]:
        assert next(one for one in unlabelled(account_dir) if period(one.when) == last) in staying


@given(histories(GOOD, jumps=False), POLICIES)
def test_with_a_clock_that_is_right_nothing_else_stays(
    account_dir: list[Manifest], policy: Policy
) -> None:
    """What a policy asks for is all that it costs: rules of its own are met by this reckoning from
    the calendar."""
    account_dir = [one for one in account_dir if one.verdict == "verified" and one.label is None]
    expected = sequences(newest_first(account_dir)[: policy.keep])
    for rule, period in PERIODS.items():
        count = max(policy.keep, policy.daily) if rule == "daily" else getattr(policy, rule)
        for last in sorted({period(one.when) for one in account_dir}, reverse=True)[:count]:
            expected.add(max(one.sequence for one in account_dir if period(one.when) == last))
    assert kept_sequences(account_dir, policy) == expected


@settings(max_examples=300)
@given(histories(pins=True), POLICIES)
def test_deciding_again_after_what_goes_is_gone_deletes_nothing_more(
    account_dir: list[Manifest], policy: Policy
) -> None:
    """Row 13."""
    once = kept_snapshots(account_dir, policy)
    assert kept_snapshots(once, policy) == once


@given(histories(pins=True), POLICIES, st.sampled_from([*PERIODS, "keep", "labelled"]))
def test_a_policy_that_asks_for_more_keeps_no_less(
    account_dir: list[Manifest], policy: Policy, rule: str
) -> None:
    """Row 13."""
    assert kept_sequences(account_dir, policy) <= kept_sequences(
        account_dir, replace(policy, **{rule: getattr(policy, rule) + 1})
    )


@given(histories(pins=True), POLICIES)
def test_every_decision_says_why(account_dir: list[Manifest], policy: Policy) -> None:
    """Row 13: by which rules it stays, or outside of which it is."""
    for decision in decide_retention(account_dir, policy):
        assert decision.reasons
        assert decision.keep != any(reason.startswith("outside: ") for reason in decision.reasons)
        assert decision.keep or len(decision.reasons) == 1


def pruned_after_each(account_dir: list[Manifest], policy: Policy) -> set[int]:
    """What stays where each run prunes, as it really happens."""
    staying: list[Manifest] = []
    for one in account_dir:
        staying = kept_snapshots([*staying, one], policy)
    return sequences(staying)


def nights(gaps: list[int]) -> list[datetime]:
    return [NOON + timedelta(seconds=seconds) for seconds in accumulate(gaps, initial=0)]


@settings(max_examples=200)
@given(st.data(), POLICIES, st.sampled_from([YEARS, -YEARS]))
def test_a_clock_that_is_ten_years_off_for_a_while_prunes_nothing(
    data: st.DataObject, policy: Policy, jump: int
) -> None:
    """Row 15: for as many runs as are kept, wherever in the history: what would be there without the jump is there.

    While it is wrong, when it is right again, and whenever after that. Those taken under it alone
    go by days that never were.
    """
    gaps = data.draw(
        st.lists(st.integers(0, 3 * 86400) | st.integers(0, 60 * 86400), min_size=1, max_size=60)
    )
    right = [make_snapshot(number, when) for number, when in enumerate(nights(gaps), 1)]
    first = data.draw(st.integers(1, len(right) - 1))
    under_it = set(range(first, first + policy.keep))
    wrong = [
        replace(one, taken_at=format_time(one.when + timedelta(seconds=jump)))
        if one.sequence in under_it
        else one
        for one in right
    ]
    for end in range(first, len(right) + 1):
        assert pruned_after_each(right[:end], policy) - under_it <= pruned_after_each(
            wrong[:end], policy
        )


@given(
    st.lists(st.integers(0, 60 * 86400), max_size=40), POLICIES, st.sampled_from([YEARS, -YEARS])
)
def test_a_jump_alone_deletes_nothing_at_all(gaps: list[int], policy: Policy, jump: int) -> None:
    """Row 15: whatever had stayed until then, stays."""
    account_dir = kept_snapshots(
        [make_snapshot(number, when) for number, when in enumerate(nights(gaps), 1)], policy
    )
    jumped = make_snapshot(len(gaps) + 2, account_dir[0].when + timedelta(seconds=jump))
    assert kept_snapshots([*account_dir, jumped], policy) == newest_first([*account_dir, jumped])
