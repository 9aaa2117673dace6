"""A deadline: what is left of a time, whatever clock it is measured by, is never less than nothing
and never more than before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3_backup.system.deadline import Deadline

SECONDS = st.floats(0, 1e9)
STEPS = st.lists(st.floats(0, 1e6), max_size=20)


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@given(st.floats(-1e9, 1e9), SECONDS, STEPS)
def test_what_is_left_only_shrinks_and_ends_at_nothing(
    start: float, seconds: float, steps: list[float]
) -> None:
    clock = Clock(start)
    deadline = Deadline.after(seconds, clock)
    before = deadline.left()
    assert before == pytest.approx(seconds, abs=1e-6)
    for step in steps:
        clock.now += step
        assert 0 <= deadline.left() <= before
        assert deadline.passed() == (deadline.left() == 0) == (clock.now >= deadline.at)
        before = deadline.left()
    clock.now = deadline.at + 1
    assert (deadline.left(), deadline.passed()) == (0, True)


@given(SECONDS, st.floats(0, 1), st.floats(0, 1e9))
def test_a_share_is_that_part_of_what_is_left_and_never_later_than_the_whole(
    seconds: float, part: float, gone: float
) -> None:
    clock = Clock(1000.0)
    whole = Deadline.after(seconds, clock)
    clock.now += gone
    share = whole.share(part)
    assert share.left() == pytest.approx(whole.left() * part, abs=1e-5)
    assert share.left() <= whole.left() + 1e-6
    clock.now += whole.left() * part / 2
    assert share.left() <= whole.left() + 1e-6
    assert share.clock is whole.clock


@given(SECONDS)
def test_it_is_a_value(seconds: float) -> None:
    deadline = Deadline(seconds)
    assert deadline == Deadline(seconds)
    with pytest.raises(AttributeError):
        deadline.at = 0  # type: ignore[misc]


def test_the_clock_of_the_machine_is_the_one_that_is_meant_where_none_is_named() -> None:
    assert Deadline.after(0).passed()
    assert not Deadline.after(3600).passed()
    assert 3500 < Deadline.after(3600).left() <= 3600
