"""Which doubtful copies go where they take too much, over random histories: no good one, and of the
evidence neither where it began nor the newest."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from support.manifests import NOON
from support.snapshot_histories import make_snapshot

from t3_backup.history.doubtful import find_excess
from t3_backup.history.retention import label_kind
from t3_backup.store.manifest import Manifest

VERDICTS = st.sampled_from(
    [*["verified", "unproven", "suspect", "damaged"] * 2, "accepted suspect", "accepted damaged"]
)
LABELS = st.sampled_from([None, None, None, "prerestore", "prebump-0.0.25"])
HISTORIES = st.lists(st.tuples(VERDICTS, LABELS, st.booleans()), max_size=20).map(
    lambda rows: [
        make_snapshot(number, NOON + timedelta(days=number), verdict, label, pinned=pinned)
        for number, (verdict, label, pinned) in enumerate(rows, 1)
    ]
)
DOUBTFUL = ("damaged", "suspect", "unproven")


def left(history: list[Manifest], most: int) -> list[Manifest]:
    """What stays, the oldest first, where each takes as many bytes as its number."""
    gone = find_excess(history, {one.name: one.sequence for one in history}, most)
    assert [one.sequence for one in gone] == sorted((one.sequence for one in gone), reverse=True)
    return [one for one in history if one not in gone]


@given(HISTORIES, st.integers(0, 60))
def test_no_verified_one_goes_nor_one_that_is_pinned(history: list[Manifest], most: int) -> None:
    there = left(history, most)
    assert all(one in there for one in history if one.verdict == "verified" or one.pinned_at)


@given(HISTORIES, st.integers(0, 60))
def test_where_the_evidence_began_and_the_newest_of_it_stay(
    history: list[Manifest], most: int
) -> None:
    """Row 46."""
    there = left(history, most)
    waiting = [one for one in history if one.holds]
    assert not waiting or waiting[0] in there
    for verdict in DOUBTFUL:
        of_it = [one for one in history if one.verdict == verdict]
        assert not of_it or of_it[-1] in there
    newest = {label_kind(one.label): one for one in history if one.label is not None}
    assert all(one in there for one in newest.values())
    if sum(one.verdict == "verified" for one in history) < 2:
        assert all(one in there for one in [o for o in history if o.verdict == "unproven"][-2:])


@given(HISTORIES, st.integers(0, 60))
def test_no_more_goes_than_has_to_and_the_oldest_first(history: list[Manifest], most: int) -> None:
    there = left(history, most)
    gone = [one for one in history if one not in there]
    taken = sum(one.sequence for one in there if one.verdict in DOUBTFUL)
    if gone:
        assert taken + gone[-1].sequence > most
    if taken > most:  # all that may go has gone
        assert left(there, most) == there


@given(HISTORIES)
def test_where_there_is_room_nothing_goes(history: list[Manifest]) -> None:
    assert left(history, sum(one.sequence for one in history)) == history
