"""Which snapshot a person means by `--at`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manifests import make_manifest

from t3_backup.errors import Failure, UsageError
from t3_backup.store.manifest import Manifest
from t3_backup.store.selection import (
    find_next_best,
    find_passed_over,
    parse_moment,
    select_restorable,
    select_snapshot,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
# The first and the last second of two days (UTC), and one in the morning of now.
TIMES = [
    datetime(2026, 11, 22, 0, 0, 0, tzinfo=UTC),
    datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 11, 23, 0, 0, 0, tzinfo=UTC),
    datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 11, 24, 9, 0, 0, tzinfo=UTC),
]
SNAPSHOTS = [make_manifest(number, when) for number, when in enumerate(TIMES, 1)]


def chosen(when: str, account_dir: list[Manifest] = SNAPSHOTS) -> int:
    return select_snapshot(account_dir, when, NOW).sequence


def test_latest_is_the_one_that_was_taken_last_whatever_the_clock_said() -> None:
    assert chosen("latest") == 5
    assert (
        chosen("latest", [make_manifest(1, NOW), make_manifest(2, NOW - timedelta(days=3650))]) == 2
    )
    assert chosen("latest", list(reversed(SNAPSHOTS))) == 5


def test_a_name_means_that_snapshot_with_or_without_its_ending() -> None:
    assert chosen("state-20261122T235959Z") == 2
    assert chosen("state-20261122T235959Z.sqlite") == 2
    assert chosen("state-20261122T235959Z.delta") == 2
    labelled = make_manifest(9, TIMES[0], label="prebump-0.0.25")
    assert chosen("state-20261122T000000Z-prebump-0.0.25", [*SNAPSHOTS, labelled]) == 9


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
def test_a_time_means_the_newest_not_after_it_in_utc_and_a_date_its_end(
    when: str, sequence: int
) -> None:
    assert chosen(when) == sequence


@pytest.mark.parametrize(
    ("when", "sequence"),
    [
        ("0s", 5),
        ("3h", 5),
        ("10801s", 4),
        ("181m", 4),
        ("12h", 4),
        ("13h", 3),
        ("1d", 3),
        ("36h", 3),
        ("2d", 1),
        ("60h", 1),
    ],
)
def test_an_age_counts_back_from_now(when: str, sequence: int) -> None:
    assert chosen(when) == sequence


@pytest.mark.parametrize("when", ["3d", "1w", "2026-11-21", "2026-11-21T23:59:59Z", "1971-01-01"])
def test_where_nothing_is_that_old_it_is_a_failure_and_never_the_oldest(when: str) -> None:
    with pytest.raises(Failure, match=f"no snapshot at or before {when}") as caught:
        chosen(when)
    assert caught.value.exit_code == 1


def test_an_empty_account_folder_has_no_latest() -> None:
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


@given(
    st.text()
    | st.from_regex(r"[0-9]{1,6}[smhdw]", fullmatch=True)
    | st.datetimes().map(datetime.isoformat)
)
def test_any_text_is_an_instant_or_wrong_use(when: str) -> None:
    try:
        instant = parse_moment(when, NOW)
    except UsageError:
        return
    assert instant is None or instant.tzinfo is not None


@given(st.datetimes(timezones=st.timezones()))
def test_no_time_of_the_calendar_is_too_far_away(when: datetime) -> None:
    try:
        found = select_snapshot(SNAPSHOTS, when.isoformat(), NOW)
    except (UsageError, Failure):
        return
    assert found in SNAPSHOTS


# --- what a restore takes

# Oldest first: of an older T3; before an upgrade; of the newer one; emptied; what a restore took
# the place of; damaged; what a version that failed has made.
KINDS = [
    make_manifest(1, TIMES[0], t3_level=29),
    make_manifest(2, TIMES[1], t3_level=30, label="prebump-0.0.25"),
    make_manifest(3, TIMES[2], t3_level=31),
    make_manifest(4, TIMES[3], t3_level=31, verdict="suspect", reasons=("32 rows",)),
    make_manifest(5, TIMES[3] + timedelta(seconds=1), t3_level=31, label="prerestore"),
    make_manifest(6, TIMES[4], t3_level=None, verdict="damaged", reasons=("page 3",)),
    make_manifest(
        7,
        TIMES[4] + timedelta(seconds=1),
        t3_level=31,
        label="prerestore",
        verdict="suspect",
        reasons=("32 rows",),
    ),
    make_manifest(8, TIMES[4] + timedelta(seconds=2), t3_level=30, label="postbump-failed"),
]


@pytest.mark.parametrize(
    ("when", "more", "sequence"),
    [
        ("latest", {}, 3),
        ("2026-11-23", {}, 3),
        ("2026-11-22", {}, 2),
        ("2d", {}, 1),
        ("latest", {"label": "prerestore"}, 7),
        ("latest", {"label": "prebump-0.0.25"}, 2),
        ("latest", {"label": "postbump-failed"}, 8),
        ("latest", {"level": 31}, 3),
        ("latest", {"level": 30}, 2),
        ("latest", {"level": 29}, 1),
        ("latest", {"level": 99}, 3),
        ("latest", {"level": 31, "label": "prerestore"}, 7),
        ("2026-11-22T12:00", {"level": 30}, 1),
        # Whoever names one means it, whatever it is.
        ("state-20261123T235959Z", {}, 4),
        ("state-20261124T090000Z.sqlite", {}, 6),
        ("state-20261124T090001Z-prerestore", {}, 7),
        ("state-20261124T090002Z-postbump-failed", {}, 8),
        ("state-20261124T000000Z-prerestore", {"level": 31, "label": "prerestore"}, 5),
    ],
)
def test_a_restore_takes_the_newest_verified_one_that_is_asked_for_or_the_one_that_is_named(
    when: str, more: dict[str, Any], sequence: int
) -> None:
    assert select_restorable(KINDS, when, NOW, **more).sequence == sequence
    assert select_restorable(list(reversed(KINDS)), when, NOW, **more).sequence == sequence


@pytest.mark.parametrize(
    ("when", "more", "said"),
    [
        ("latest", {"level": 28}, "no verified snapshot with T3 level at most 28 among the 8"),
        ("latest", {"label": "none-such"}, "no verified snapshot with label none-such among the 8"),
        (
            "latest",
            {"label": "prerestore", "level": 30},
            "with label prerestore and T3 level at most 30 among",
        ),
        ("1w", {}, "no verified snapshot at or before 1w among the 8"),
        ("2026-11-22", {"level": 28}, "with T3 level at most 28 at or before 2026-11-22 among"),
    ],
)
def test_where_there_is_none_it_says_what_was_asked_for_and_that_any_can_be_named(
    when: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(Failure) as caught:
        select_restorable(KINDS, when, NOW, **more)
    assert said in str(caught.value)
    assert str(caught.value).endswith("any can be named by --at")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("when", "more", "said"),
    [
        ("state-20261124T000000Z-prerestore", {"level": 30}, "whose T3 level is 31, above 30"),
        ("state-20261123T000000Z", {"label": "prerestore"}, "whose label is None, not prerestore"),
        ("state-20261124T090000Z", {"level": 31}, "whose T3 level is None, above 31"),
    ],
)
def test_one_that_is_named_must_be_what_else_is_asked_for(
    when: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        select_restorable(KINDS, when, NOW, **more)


def test_a_snapshot_of_no_known_level_is_for_no_older_t3() -> None:
    with pytest.raises(Failure):
        select_restorable([make_manifest(1, t3_level=None)], "latest", NOW, level=30)
    assert select_restorable([make_manifest(1, t3_level=None)], "latest", NOW).sequence == 1


def test_a_restore_of_nonsense_is_wrong_use_even_where_nothing_is() -> None:
    with pytest.raises(UsageError):
        select_restorable([], "soon", NOW)


verdicts = st.sampled_from(["verified", "suspect", "damaged"])
labels = st.sampled_from([None, "prerestore", "postbump-failed", "prebump-1"])


@given(
    st.lists(st.tuples(verdicts, labels, st.sampled_from([None, 30, 31])), max_size=8),
    labels,
    st.none() | st.integers(29, 32),
)
def test_what_is_not_named_is_verified_of_that_label_and_no_higher_level(
    kinds: list[tuple[str, str | None, int | None]], label: str | None, level: int | None
) -> None:
    account_dir = [
        make_manifest(
            number, NOW + timedelta(hours=number), label=kind[1], verdict=kind[0], t3_level=kind[2]
        )
        for number, kind in enumerate(kinds)
    ]
    fit = [
        snapshot
        for snapshot in account_dir
        if (snapshot.verdict == "verified" or label == "prerestore")
        and (
            snapshot.label == label
            if label
            else snapshot.label not in ("prerestore", "postbump-failed")
        )
        and (
            level is None
            or (snapshot.live.t3_level is not None and snapshot.live.t3_level <= level)
        )
    ]
    try:
        assert select_restorable(account_dir, "latest", NOW, label=label, level=level) == fit[-1]
    except Failure:
        assert not fit


def test_what_is_known_to_fail_is_put_back_by_its_name_alone() -> None:
    broken = {SNAPSHOTS[4].name: "cut"}
    assert select_restorable(SNAPSHOTS, "latest", NOW, unsound=broken).sequence == 4
    named = select_restorable(SNAPSHOTS, SNAPSHOTS[4].name, NOW, unsound=broken)
    assert named.sequence == 5
    passed = find_passed_over(SNAPSHOTS, "latest", NOW, broken)
    assert passed is not None
    assert passed.sequence == 5
    assert find_passed_over(SNAPSHOTS, SNAPSHOTS[4].name, NOW, broken) is None


def test_instead_of_one_that_fails_the_next_older_good_one_is_named_or_else_a_newer_one() -> None:
    third = SNAPSHOTS[2]

    def instead(*unsound: int, level: int | None = None) -> int | None:
        names = {SNAPSHOTS[number - 1].name for number in unsound}
        found = find_next_best(SNAPSHOTS, third, names, level)
        return None if found is None else found.sequence

    assert instead() == 2
    assert instead(2) == 1
    assert instead(2, 1) == 4
    assert instead(1, 2, 4, 5) is None
    assert instead(level=29) is None, "all are of level 30"
