"""Which snapshot a person means by `--at`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import made

from t3_backup.choice import choose, moment
from t3_backup.errors import Failure, UsageError
from t3_backup.manifest import Manifest

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
# The first and the last second of two days (UTC), and one in the morning of now.
TIMES = [
    datetime(2026, 11, 22, 0, 0, 0, tzinfo=UTC),
    datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 11, 23, 0, 0, 0, tzinfo=UTC),
    datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 11, 24, 9, 0, 0, tzinfo=UTC),
]
SHELF = [made(number, when) for number, when in enumerate(TIMES, 1)]


def chosen(when: str, shelf: list[Manifest] = SHELF) -> int:
    return choose(shelf, when, NOW).sequence


def test_latest_is_the_one_that_was_taken_last_whatever_the_clock_said() -> None:
    assert chosen("latest") == 5
    assert chosen("latest", [made(1, NOW), made(2, NOW - timedelta(days=3650))]) == 2
    assert chosen("latest", list(reversed(SHELF))) == 5


def test_a_name_means_that_snapshot_with_or_without_its_ending() -> None:
    assert chosen("state-20261122T235959Z") == 2
    assert chosen("state-20261122T235959Z.sqlite") == 2
    labelled = made(9, TIMES[0], label="prebump-0.0.25")
    assert chosen("state-20261122T000000Z-prebump-0.0.25", [*SHELF, labelled]) == 9


@pytest.mark.parametrize(
    ("when", "sequence"),
    [
        ("2026-11-22", 2),
        ("20261122", 2),
        ("2026-11-23", 4),
        ("2026-11-24", 5),
        ("2027-01-01", 5),
        ("2026-11-22T00:00Z", 1),
        ("2026-11-22T00:00:00", 1),
        ("2026-11-22 23:59:58", 1),
        ("2026-11-22T23:59:59Z", 2),
        ("2026-11-23T01:00:00+02:00", 1),
        ("2026-11-22T23:30:00-01:00", 3),
        ("2026-11-23T23:59:59.5Z", 4),
        ("9999-12-31", 5),
    ],
)
def test_a_time_means_the_newest_not_after_it_in_utc_and_a_date_its_end(when: str, sequence: int) -> None:
    assert chosen(when) == sequence


@pytest.mark.parametrize(
    ("when", "sequence"),
    [("0s", 5), ("3h", 5), ("10801s", 4), ("181m", 4), ("12h", 4), ("13h", 3), ("1d", 3), ("36h", 3), ("2d", 1), ("60h", 1)],
)
def test_an_age_counts_back_from_now(when: str, sequence: int) -> None:
    assert chosen(when) == sequence


@pytest.mark.parametrize("when", ["3d", "1w", "2026-11-21", "2026-11-21T23:59:59Z", "1971-01-01"])
def test_where_nothing_is_that_old_it_is_a_failure_and_never_the_oldest(when: str) -> None:
    with pytest.raises(Failure, match=f"no snapshot at or before {when}") as caught:
        chosen(when)
    assert caught.value.exit_code == 1


def test_an_empty_shelf_has_no_latest() -> None:
    with pytest.raises(Failure, match="no snapshot"):
        chosen("latest", [])


@pytest.mark.parametrize(
    "when",
    [
        "",
        "yesterday",
        "Latest",
        "3",
        "3 d",
        "-3d",
        "3y",
        "d",
        "1.5d",
        "2026-13-01",
        "2026-11-31",
        "24.11.2026",
        "2026-11-24T25:00",
        "state-20261122T235959",
        "state-20261122T235959Z.json",
        "../state",
        "999999w",
        "999999d",
        "2026-11-24T12:00+25:00",
    ],
)
def test_nonsense_is_wrong_use(when: str) -> None:
    with pytest.raises(UsageError, match="--at") as caught:
        chosen(when)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@given(st.text() | st.from_regex(r"[0-9]{1,6}[smhdw]", fullmatch=True) | st.datetimes().map(datetime.isoformat))
def test_any_text_is_an_instant_or_wrong_use(when: str) -> None:
    try:
        instant = moment(when, NOW)
    except UsageError:
        return
    assert instant is None or instant.tzinfo is not None


@given(st.datetimes(timezones=st.timezones()))
def test_no_time_of_the_calendar_is_too_far_away(when: datetime) -> None:
    try:
        found = choose(SHELF, when.isoformat(), NOW)
    except (UsageError, Failure):
        return
    assert found in SHELF
