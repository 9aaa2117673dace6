"""How backups are judged, and the line that a monitor gets of it: each situation by its state, its
words and its exit code."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.manifests import NOON, beside, make_manifest

from t3_backup.monitor import health
from t3_backup.monitor import status as monitor_status
from t3_backup.monitor.attempts import Attempt
from t3_backup.monitor.collect import AccountView, Overview
from t3_backup.monitor.database_states import database_states
from t3_backup.monitor.health import Thresholds, format_span, judge_health, trend_text
from t3_backup.store.catalog import Catalog, Entry, Proof
from t3_backup.store.manifest import Manifest, Missing
from t3_backup.text import format_time

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MIB = 1 << 20
LIMITS = Thresholds()
GOOD = make_manifest(1, NOON - 9 * HOUR)


def tried(
    outcome: str = "backed_up", ago: timedelta = 9 * HOUR, reason: str = "", **changes: Any
) -> Attempt:
    verdict = "verified" if outcome == "backed_up" else None
    return replace(
        Attempt(format_time(NOON - ago), "run", outcome, verdict, reason, 0.5, 409_600, 0),
        **changes,
    )


def alice(*snapshots: Any, attempts: tuple[Attempt, ...] = (), **changes: Any) -> AccountView:
    return AccountView(
        "alice", **{"in_map": True, "snapshots": snapshots, "attempts": attempts} | changes
    )


def status(
    *views: AccountView, limits: Thresholds = LIMITS, warnings: tuple[str, ...] = ()
) -> monitor_status.Status:
    return monitor_status.status_of(
        Overview(Path("/store"), 10 << 30, views, warnings), NOON, limits
    )


SUSPECT = make_manifest(2, NOON - HOUR, verdict="suspect", reasons=("lost most of its rows",))
DAMAGED = make_manifest(2, NOON - HOUR, verdict="damaged", reasons=("integrity_check: a|b",))
UNPROVEN = make_manifest(2, NOON - HOUR, verdict="unproven", reasons=("SQLite can't judge it",))
ACCEPTED = replace(SUSPECT, accepted_at=format_time(NOON))
OLD = make_manifest(1, NOON - 27 * HOUR)
FRESH = make_manifest(2, NOON - HOUR)  # of a run that was done a second later
BARE = tried("failed", HOUR, "statev2.sqlite is ...", uncovered=("statev2.sqlite",))
LACKING = make_manifest(
    2, NOON - HOUR, missing=(Missing("junk.sqlite", "it is not a SQLite database"),)
)
JUNK = "alice: junk.sqlite is not in the newest snapshot: it is not a SQLite database"
FUTURE = make_manifest(2, NOON + 3 * DAY)

# What there is, and the thresholds; the state, and what the line has of it.
SITUATIONS = {
    "restore": (
        alice(GOOD, restore="a restore of alice was interrupted; next"),
        {},
        2,
        "alice: a restore of alice was interrupted; next",
    ),
    "fresh": (alice(GOOD), {}, 0, "1 account, the oldest last good is 9h old"),
    "one minute within the limit": (alice(make_manifest(1, NOON - 26 * HOUR + HOUR / 60)), {}, 0, "26h old"),
    "old": (alice(OLD), {}, 2, "alice: the last good one is 27h old (at most 26h)"),
    "old, and failing since": (
        alice(OLD, attempts=(tried(ago=27 * HOUR), tried("failed", 3 * HOUR, "busy"))),
        {},
        2,
        "27h old (at most 26h); the last attempt failed (busy)",
    ),
    "old, but for a longer limit": (alice(OLD), {"max_age": 2 * DAY}, 0, "the oldest last good is 27h old"),
    "fresh, but for a shorter limit": (alice(GOOD), {"max_age": HOUR}, 2, "the last good one is 9h old (at most 60m)"),
    "unproven": (alice(GOOD, UNPROVEN), {}, 1, "alice: state-20261124T110000Z is unproven (SQLite can't judge it)"),
    "unproven, and unchanged since": (
        alice(OLD, UNPROVEN, attempts=(tried(ago=27 * HOUR), tried("unchanged", HOUR / 2, verdict="unproven"))),
        {},
        2,
        "the last good one is 27h old (at most 26h); state-20261124T110000Z is unproven",
    ),
    "unproven, and judged since": (alice(UNPROVEN, replace(FRESH, sequence=3)), {}, 0, "60m old"),
    "none, and never tried": (alice(), {}, 2, "alice: never backed up |"),
    "none, since it failed": (alice(attempts=(tried("failed", reason="busy"),)), {}, 2, "alice: never backed up (busy)"),
    "skipped": (alice(attempts=(tried("skipped", reason="no state.sqlite"),)), {}, 0, "no database yet"),
    "skipped long ago": (alice(attempts=(tried("skipped", 3 * DAY),)), {}, 2, "last checked at 2026-11-21T12:00:00Z"),
    "failing, but fresh": (
        alice(GOOD, attempts=(tried(), tried("failed", HOUR, "busy"))),
        {},
        1,
        "alice: the last attempt failed (busy)",
    ),
    "failed once, and well since": (alice(GOOD, attempts=(tried("failed", 20 * HOUR, "busy"), tried())), {}, 0, "9h old"),
    "the run that took it died before it was noted": (alice(GOOD, attempts=(tried("failed", 20 * HOUR, "busy"),)), {}, 0, "9h old"),
    "suspect, which holds": (
        alice(SUSPECT, GOOD),
        {},
        2,
        f"alice: {SUSPECT.name} is suspect (lost most of its rows); nothing is pruned until: t3-backup-state accept alice",
    ),
    "damaged": (alice(DAMAGED, GOOD), {}, 2, "is damaged (integrity_check: a/b)"),
    "two that hold": (alice(replace(SUSPECT, sequence=3), DAMAGED, GOOD), {}, 2, "and 1 more; nothing is pruned until"),
    "suspect and accepted, with a good one": (alice(ACCEPTED, GOOD), {}, 0, "9h old"),
    "accepted alone": (alice(ACCEPTED), {}, 2, "alice: no good snapshot among 1"),
    "fresh and accepted, but the good one is old": (alice(ACCEPTED, OLD), {}, 2, "the last good one is 27h old"),
    "of the future": (alice(FUTURE, GOOD), {}, 1, f"alice: {FUTURE.name} is dated in the future and does not count"),
    "of the future alone": (alice(FUTURE), {}, 2, "no good snapshot among 1; "),
    "of the future does not hide that the rest is old": (alice(FUTURE, OLD), {}, 2, "27h old (at most 26h); state-2026"),
    "a clock that was set by seconds": (alice(make_manifest(1, NOON + timedelta(seconds=30))), {}, 0, "the oldest last good is 0m old"),
    "unchanged since": (alice(OLD, attempts=(tried("unchanged", 2 * HOUR),)), {}, 0, "the oldest last good is 2h old"),
    "unchanged, but in the future": (alice(OLD, attempts=(tried("unchanged", -DAY),)), {}, 2, "27h old"),
    "unchanged, but what is not known": (alice(attempts=(tried("unchanged", HOUR),)), {}, 2, "never backed up"),
    "unchanged before there was a good one": (alice(OLD, attempts=(tried("unchanged", 28 * HOUR),)), {}, 2, "27h old"),
    "a database that is not copied": (
        alice(FRESH, GOOD, attempts=(tried(), BARE)),
        {},
        2,
        "alice: statev2.sqlite is not backed up: at most 16 databases of an account are copied; next: ",
    ),
    "a database that is not copied, and no other": (alice(attempts=(BARE,)), {}, 2, "alice: statev2.sqlite is not backed up"),
    "a database that is not copied, and then nobody could look": (
        alice(FRESH, GOOD, attempts=(tried(), BARE, tried("failed", HOUR / 2, "busy"))),
        {},
        2,
        "alice: statev2.sqlite is not backed up",
    ),
    "a database that was not copied, and is gone": (
        alice(FRESH, GOOD, attempts=(BARE, tried("failed", HOUR / 2, "busy"), tried(ago=HOUR / 3))),
        {},
        0,
        "1 account, the oldest last good is 60m old",
    ),
    "a database that is not copied, of who is in the map no longer": (
        alice(FRESH, attempts=(BARE,), in_map=False),
        {},
        1,
        "alice: not in the map: no new snapshots are taken",
    ),
    "a database that could not be copied": (alice(LACKING, GOOD), {}, 2, f"{JUNK} |"),
    "a database that could not be copied, and no snapshot is whole": (
        alice(LACKING),
        {},
        2,
        f"{JUNK}; no good snapshot among 1 |",
    ),
    "a database that could not be copied, and the rest of them is unchanged since": (
        alice(LACKING, OLD, attempts=(tried("unchanged", HOUR / 2, missing=("junk.sqlite",)),)),
        {},
        2,
        f"{JUNK}; the last good one is 27h old (at most 26h) |",
    ),
    "a database that could not be copied, and now is": (
        alice(make_manifest(3, NOON - HOUR / 2), LACKING, GOOD),
        {},
        0,
        "the oldest last good is 30m old",
    ),
    "a labelled one that is verified": (alice(make_manifest(1, NOON - HOUR, "before")), {}, 0, "60m old"),
    "what a restore took the place of": (alice(make_manifest(1, NOON - HOUR, "prerestore")), {}, 2, "alice: no good snapshot among 1"),
    "a labelled one that is not": (alice(replace(ACCEPTED, label="prerestore"), OLD), {}, 2, "27h old"),
    "fewer than wanted": (alice(GOOD), {"min_snapshots": 2}, 1, "alice: 1 good snapshots, not 2"),
    "as many as wanted": (alice(make_manifest(2, NOON - HOUR), GOOD), {"min_snapshots": 2}, 0, "60m old"),
    "not in the map": (alice(OLD, in_map=False), {}, 1, "alice: not in the map: no new snapshots are taken"),
    "an account folder that can't be read": (alice(problem="/store/alice is open to others"), {}, 2, "alice: /store/alice is open to others"),
}  # fmt: skip


@pytest.mark.parametrize(("view", "limits", "code", "words"), SITUATIONS.values(), ids=SITUATIONS)
def test_the_line_and_the_exit_code_say_how_it_is(
    view: AccountView, limits: dict[str, Any], code: int, words: str
) -> None:
    line, found = monitor_status.nagios(status(view, limits=Thresholds(**limits)))
    assert (found, words in line) == (code, True), line
    assert line.startswith(f"T3-BACKUP {('OK', 'WARNING', 'CRITICAL')[code]} - ")
    assert line.count("|") == 1
    assert "\n" not in line


def test_the_worst_account_counts_and_is_named_first() -> None:
    bob = replace(alice(GOOD, attempts=(tried("failed", HOUR, "busy"),)), user="bob")
    carol = replace(alice(OLD), user="carol")
    line, code = monitor_status.nagios(status(alice(GOOD), bob, carol))
    assert code == 2
    assert line.startswith(
        "T3-BACKUP CRITICAL - carol: the last good one is 27h old (at most 26h); bob: the last attempt failed"
    )
    assert "alice:" not in line


def test_perfdata_has_the_age_with_its_limit_the_count_and_the_sizes() -> None:
    line, _ = monitor_status.nagios(
        status(alice(GOOD), replace(alice(), user="b.o@b"), limits=Thresholds(2 * DAY, 3))
    )
    assert line.partition(" | ")[2].split() == [
        "'alice_age'=32400s;;172800;0",
        "'alice_snapshots'=1;3:;;0",
        "'alice_size'=409600B;;;0",
        "'b.o@b_age'=U;;172800;0",
        "'b.o@b_snapshots'=0;3:;;0",
        "'store_free'=10737418240B;;;0",
    ]
    for part in line.partition(" | ")[2].split():
        assert re.fullmatch(r"'[^'=]+'=(U|-?\d+)(s|B)?;[^;]*;[^;]*;0", part), part


def test_an_account_without_a_database_has_no_perfdata() -> None:
    line, code = monitor_status.nagios(status(alice(attempts=(tried("skipped"),))))
    assert (code, line.partition(" | ")[2]) == (0, "'store_free'=10737418240B;;;0")


def test_the_line_stays_short_however_many_and_however_long_the_troubles_are() -> None:
    views = [
        replace(alice(attempts=(tried("failed", reason="x" * 500),)), user=f"user{n}")
        for n in range(50)
    ]
    text = monitor_status.nagios(status(*views))[0].partition(" | ")[0]
    assert len(text) < 1000
    assert text.endswith("and 47 more")


def test_a_line_of_the_map_that_names_nobody_is_a_warning() -> None:
    """Who was meant is not backed up."""
    line, code = monitor_status.nagios(status(alice(GOOD), warnings=("/etc/map:3: not a line",)))
    assert (code, "/etc/map:3: not a line" in line) == (1, True)


def test_the_last_error_is_the_newest_failed_attempt_if_nothing_went_well_since() -> None:
    old, new = tried("failed", 3 * HOUR, "first"), tried("failed", HOUR, "second")
    assert judge_health(alice(GOOD, attempts=(old, new)), NOON, Thresholds()).last_error == new
    assert (
        judge_health(
            alice(GOOD, attempts=(old, new, tried(ago=timedelta()))), NOON, Thresholds()
        ).last_error
        is None
    )
    in_the_same_second = tried("failed", 9 * HOUR)
    assert (
        judge_health(alice(GOOD, attempts=(in_the_same_second,)), NOON, Thresholds()).last_error
        == in_the_same_second
    )


def test_the_trend_is_the_growth_of_a_day_over_the_good_ones() -> None:
    grown = [make_manifest(10 - n, NOON - n * DAY, bytes=(100 - 2 * n) * MIB) for n in range(10)]
    broken = make_manifest(
        11, NOON, verdict="damaged", reasons=("bad",), bytes=1, accepted_at=format_time(NOON)
    )
    assert judge_health(alice(broken, *grown), NOON, Thresholds()).trend == pytest.approx(2 * MIB)
    assert trend_text(2 * MIB) == "+2.0 MiB/d"
    assert trend_text(-1536) == "-1.5 KiB/d"
    assert trend_text(-0.2) == "+0 B/d"


@pytest.mark.parametrize("spread", [timedelta(), timedelta(minutes=2), 23 * HOUR])
def test_what_was_seen_for_less_than_a_day_tells_no_trend(spread: timedelta) -> None:
    assert (
        health.size_trend([make_manifest(2, NOON, bytes=9 * MIB), make_manifest(1, NOON - spread)])
        is None
    )
    assert health.size_trend([make_manifest(1, NOON)]) is None
    assert trend_text(None) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0m"),
        (5400, "90m"),
        (26 * 3600, "26h"),
        (26 * 3600 + 900, "26.2h"),
        (3 * 86_400, "3d"),
        (3.5 * 86_400, "3.5d"),
    ],
)
def test_a_span_tells_an_hour_from_a_day_and_a_little_more(seconds: float, text: str) -> None:
    assert format_span(seconds) == text


def test_the_table_has_a_row_for_each_account_its_last_error_the_room_and_what_is_not_copied() -> (
    None
):
    bob = replace(alice(attempts=(tried("failed", HOUR, "busy"),)), user="bob")
    lines = monitor_status.table(status(alice(GOOD, used_bytes=MIB), bob))
    assert lines == [
        "ACCOUNT  LAST GOOD (UTC)   AGE       SIZE  GOOD/ALL  ON DISK  TREND  STATE",
        "alice    2026-11-24 03:00   9h  400.0 KiB       1/1  1.0 MiB      -  ok",
        "bob      never               -          -       0/0      0 B      -  critical: never backed up (busy)",
        "bob: last error 2026-11-24 11:00: busy",
        "/store: 10.0 GiB free",
        "not copied: worktrees, logs, caches",
    ]


def test_the_document_says_the_same() -> None:
    found = monitor_status.document(
        status(alice(SUSPECT, GOOD, used_bytes=MIB, attempts=(tried(),)))
    )
    [account] = found["accounts"]
    assert (found["state"], account["state"], account["last_good"]) == (
        "critical",
        "critical",
        "2026-11-24T03:00:00Z",
    )
    assert (
        account["age_seconds"],
        account["good"],
        account["snapshots"],
        account["used_bytes"],
    ) == (9 * 3600, 1, 2, MIB)
    assert account["last_attempt"]["outcome"] == "backed_up"
    assert [trouble["state"] for trouble in account["troubles"]] == ["critical"]


OLDER, V2 = "state.sqlite", "statev2.sqlite"


def night(days: int, live: int, frozen: str | None, *, is_old: bool = False) -> Manifest:
    """A snapshot of so many days ago: its live V2 of `live` MiB, and beside it a V1."""
    when = NOON - days * DAY
    if is_old:
        return make_manifest(100 - days, when, sha256=frozen, bytes=MIB // 2)
    snapshot = make_manifest(100 - days, when, file=V2, bytes=live * MIB, t3_level=61)
    changes = {"sha256": frozen, "t3_level": 54, "bytes": MIB // 2}
    return beside(snapshot, OLDER, **changes) if frozen else snapshot


A, B = "aa" * 32, "bb" * 32


def states_of(*snapshots: Manifest) -> list[Any]:
    return database_states(judge_health(alice(*snapshots), NOON, LIMITS))


def test_each_database_is_told_with_its_own_growth_and_since_when_it_is_frozen() -> None:
    nights = [night(days, 10 - 2 * days, A) for days in range(4)]
    live, frozen = states_of(*nights, night(4, 0, B, is_old=True))
    assert (live.file, live.live, live.level, live.bytes) == (V2, True, 61, 10 * MIB)
    assert (live.bytes_per_day, live.frozen_since) == (pytest.approx(2 * MIB, abs=2), None)
    assert (frozen.file, frozen.live, frozen.level, frozen.bytes) == (OLDER, False, 54, MIB // 2)
    assert (frozen.frozen_since, frozen.bytes_per_day) == (nights[3].taken_at, 0)
    assert live.moment == nights[0].taken_at
    moment = "2026-11-24T11:59:58.250Z"
    [one] = states_of(make_manifest(moment=moment))
    assert (one.moment, one.frozen_since, one.bytes_per_day) == (moment, None, None)


@pytest.mark.parametrize(
    ("found", "days"),
    [
        ([A], 0),  # the first that is known of it
        ([A, A, A], 2),
        ([A, A, B, A], 1),  # the run is broken
        ([A, A, None, A], 1),
        ([A, B], None),  # not the live one, and it changes all the same
    ],
)
def test_what_is_frozen_is_so_since_the_oldest_in_a_row(
    found: list[str | None], days: int | None
) -> None:
    nights = [night(number, 1, sha256) for number, sha256 in enumerate(found)]
    [_, frozen] = states_of(*nights)
    assert frozen.frozen_since == (None if days is None else nights[days].taken_at)


def test_what_was_live_before_is_frozen_from_the_snapshot_that_has_another_live_one() -> None:
    for before in (A, B):
        first = night(0, 1, A)
        [_, frozen] = states_of(first, night(1, 1, before, is_old=True))
        assert frozen.frozen_since == first.taken_at


def test_the_table_has_a_line_of_each_account_with_several_databases() -> None:
    nights = [night(days, 5 - days, A) for days in range(3)]
    bob = replace(alice(GOOD), user="bob")
    lines = monitor_status.table(status(alice(*nights), bob))
    told = [line for line in lines if "frozen" in line or line.startswith("bob:")]
    assert told == [
        (
            "alice: statev2.sqlite live, level 61, 5.0 MiB, +1.0 MiB/d; "
            "state.sqlite frozen since 2026-11-22, level 54, 512.0 KiB"
        )
    ]
    lines = monitor_status.table(status(alice(night(0, 5, A), night(1, 5, B))))
    [line] = [line for line in lines if line.startswith("alice:")]
    assert line.endswith("; state.sqlite not live, level 54, 512.0 KiB, +0 B/d")


def test_the_document_lists_the_databases_and_what_is_missing() -> None:
    lacking = replace(night(0, 5, A), missing=LACKING.missing)
    [account, bare] = monitor_status.document(
        status(alice(lacking, night(1, 4, A)), replace(alice(), user="bob"))
    )["accounts"]
    assert account["databases"] == [
        {
            "file": V2,
            "live": True,
            "level": 61,
            "bytes": 5 * MIB,
            "bytes_per_day": None,
            "verdict": "verified",
            "frozen_since": None,
            "moment": lacking.taken_at,
        },
        {
            "file": OLDER,
            "live": False,
            "level": 54,
            "bytes": MIB // 2,
            "bytes_per_day": None,
            "verdict": "verified",
            "frozen_since": night(1, 4, A).taken_at,
            "moment": lacking.taken_at,
        },
    ]
    missing = [{"file": "junk.sqlite", "reason": "it is not a SQLite database"}]
    assert account["missing"] == missing
    assert (account["state"], account["good"]) == ("critical", 1)
    assert (bare["databases"], bare["missing"]) == ([], [])


def test_a_snapshot_that_lost_an_image_is_not_good() -> None:
    """Its live image is there, so that it is a snapshot still."""
    newest, older = night(0, 10, A), night(1, 8, A)
    image = newest.image_of(OLDER)
    assert image is not None
    found = judge_health(alice(newest, older, lost=(image,)), NOON, LIMITS)
    assert (found.state, found.fresh.last_good) == ("critical", older.when)
    assert found.text.startswith(f"{newest.name} has lost {OLDER}: no file holds it any more; ")


def proven(*proofs: tuple[Manifest, Proof]) -> Catalog:
    return Catalog({one.name: Entry(one.name, "sealed", proof) for one, proof in proofs})


BROKEN = Proof(NOON - HOUR, "failed", "SHA-256 x, y was sealed")


def test_a_restore_makes_nothing_fresh() -> None:
    """Row 58: what it took the place of is a copy of what somebody did not want."""
    old = make_manifest(2, NOON - HOUR, "prerestore")
    found = judge_health(alice(old, OLD), NOON, LIMITS)
    assert (found.fresh.last_good, found.state) == (OLD.when, "critical")


def test_what_is_known_to_fail_makes_nothing_fresh_nor_do_runs_that_stood_on_it() -> None:
    same = tried("unchanged", HOUR / 2, verdict="verified")
    view = alice(FRESH, OLD, attempts=(same,))
    assert judge_health(view, NOON, LIMITS).fresh.last_good == same.when
    view = replace(view, catalog=proven((FRESH, BROKEN)))
    found = judge_health(view, NOON, LIMITS)
    assert (found.fresh.last_good, found.fresh.good) == (OLD.when, (OLD,))
    assert found.text.startswith(f"the last good one is 27h old (at most 26h); {FRESH.name} does N")


def test_a_failure_that_is_accepted_alarms_no_more_and_is_still_no_good_one() -> None:
    known = proven((FRESH, BROKEN))
    accepted = replace(FRESH, accepted_at=format_time(NOON))
    found = judge_health(alice(accepted, GOOD, catalog=known), NOON, LIMITS)
    assert (found.state, found.fresh.good) == ("ok", (GOOD,))
    early = replace(FRESH, accepted_at=format_time(NOON - 2 * HOUR))
    found = judge_health(alice(early, GOOD, catalog=known), NOON, LIMITS)
    assert found.state == "critical", "what was accepted was something else"


def test_an_account_that_left_the_map_raises_no_more_than_a_warning() -> None:
    found = judge_health(alice(GOOD, in_map=False, catalog=proven((GOOD, BROKEN))), NOON, LIMITS)
    assert (found.state, "does NOT verify" in found.text) == ("warning", True)


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        (Proof(NOON - HOUR, "unchecked", "no room"), "could not be checked: no room; next: "),
        (Proof(NOON - 15 * DAY, "verified"), ""),
        (Proof(NOON + DAY, "verified"), f"the last proof of {GOOD.name} is dated in the future; "),
        (Proof(NOON - 16 * DAY, "verified"), f"the last proof of {GOOD.name} is 16d old (at most"),
    ],
)
def test_what_could_not_be_checked_or_not_for_long_is_a_warning(proof: Proof, text: str) -> None:
    found = judge_health(alice(GOOD, catalog=proven((GOOD, proof))), NOON, LIMITS)
    assert (found.state, text in found.text) == ("warning" if text else "ok", True)
    assert found.fresh.good == (GOOD,)


@pytest.mark.parametrize("changes", [{"verdict": "suspect"}, {"missing": ("other.sqlite",)}])
def test_a_run_that_found_it_unchanged_and_not_well_makes_nothing_fresh(
    changes: dict[str, Any],
) -> None:
    same = tried("unchanged", HOUR, **changes)
    assert judge_health(alice(OLD, attempts=(same,)), NOON, LIMITS).fresh.last_good == OLD.when


def test_what_was_taken_since_a_database_is_not_copied_makes_nothing_fresh() -> None:
    bare = replace(BARE, at=format_time(FRESH.when), seconds=1)
    found = judge_health(alice(FRESH, OLD, attempts=(bare,)), NOON, LIMITS)
    assert found.fresh.last_good == OLD.when


def test_a_catalog_that_cannot_be_read_is_a_warning() -> None:
    found = judge_health(alice(GOOD, catalog=Catalog(problem="it is damaged")), NOON, LIMITS)
    assert (found.state, found.text) == ("warning", "it is damaged; next: t3-backup-state run")
