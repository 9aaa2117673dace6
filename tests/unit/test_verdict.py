"""What a proven copy is worth. Row 12 and Row 34: damage, and a loss that no check of SQLite's
sees.

What counts as loss in a database of T3's is in test_content.py; that of most censuses here has no
ledger, so that its rows and pages count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.manifests import CENSUS, beside, make_manifest

from t3_backup.backup.verdict import (
    Judgement,
    choose_yardstick,
    find_disagreements,
    find_previous,
    judge_copy,
    judge_databases,
)
from t3_backup.store.census import Census
from t3_backup.store.manifest import Manifest, Missing
from t3_backup.t3.ledger import LEDGER_TABLE
from t3_backup.worker.operations.backup import Copied
from t3_backup.worker.operations.proof import Proven

GOOD = Judgement("verified")
BEFORE = make_manifest()  # 1000 rows, 100 pages, level 30


def verdict(
    previous: Manifest | None = BEFORE,
    method: str = "online",
    rows: int = 1000,
    pages: int = 100,
    level: int | None = 30,
) -> Judgement:
    census = replace(CENSUS, rows={"events": rows}, page_count=pages, t3_level=level)
    return judge_copy((), census, method, previous.live_image if previous else None)


def test_the_first_sound_copy_is_verified() -> None:
    assert verdict(previous=None) == GOOD


def test_one_that_grew_or_stayed_is_verified() -> None:
    assert verdict() == GOOD
    assert verdict(rows=5000, pages=900, level=31) == GOOD


def test_whatever_a_check_finds_makes_it_damaged_and_is_the_reason() -> None:
    """Row 12."""
    found = ("row 3 missing from index x", "foreign_key_check: rows without a parent in y")
    for previous in (None, BEFORE):
        image = previous.live_image if previous else None
        assert judge_copy(found, CENSUS, "online", image) == Judgement("damaged", found)


def test_damage_outweighs_loss() -> None:
    """Row 12."""
    assert (
        judge_copy(("broken",), replace(CENSUS, rows={}), "online", BEFORE.live_image).verdict
        == "damaged"
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(0, "suspect"), (1, "suspect"), (499, "suspect"), (500, "verified"), (999, "verified")],
)
def test_more_than_half_of_the_rows_of_an_unknown_database_gone_is_suspect(
    rows: int, expected: str
) -> None:
    """Row 34."""
    found = verdict(rows=rows)
    assert found.verdict == expected
    assert found.reasons == (
        (f"{rows} rows, 1000 in {BEFORE.name}",) if expected == "suspect" else ()
    )


@pytest.mark.parametrize(
    ("pages", "expected"), [(1, "suspect"), (49, "suspect"), (50, "verified"), (99, "verified")]
)
def test_more_than_half_of_the_pages_of_an_unknown_database_gone_is_suspect(
    pages: int, expected: str
) -> None:
    """Row 34."""
    found = verdict(pages=pages)
    assert found.verdict == expected
    assert found.reasons == (
        (f"{pages} pages, 100 in {BEFORE.name}",) if expected == "suspect" else ()
    )


def test_pages_of_another_size_are_compared_by_their_bytes() -> None:
    census = replace(CENSUS, page_size=65536, page_count=7)
    assert judge_copy((), census, "online", BEFORE.live_image) == GOOD


def test_a_vacuum_may_have_fewer_pages_than_an_online_copy_but_not_fewer_rows() -> None:
    assert verdict(method="vacuum", pages=10) == GOOD
    assert verdict(method="vacuum", rows=10).verdict == "suspect"
    assert (
        verdict(previous=make_manifest(method="vacuum"), method="vacuum", pages=10).verdict
        == "suspect"
    )


@pytest.mark.parametrize(
    ("level", "expected"), [(29, "suspect"), (0, "suspect"), (30, "verified"), (31, "verified")]
)
def test_a_migration_level_that_fell_is_suspect(level: int, expected: str) -> None:
    """Row 34."""
    assert verdict(level=level).verdict == expected


@pytest.mark.parametrize(
    "previous", [None, BEFORE, make_manifest(census=replace(CENSUS, t3_level=None))]
)
def test_what_is_no_t3_database_is_never_verified(previous: Manifest | None) -> None:
    """Row 24."""
    found = verdict(previous=previous, level=None)
    assert found.verdict == "suspect"
    assert found.reasons == ("no T3 migration level in it",)


def test_every_reason_is_told() -> None:
    found = verdict(rows=1, pages=1, level=1)
    assert [reason.split(",")[0] for reason in found.reasons] == ["1 rows", "1 pages", "T3 level 1"]


def test_tables_that_could_not_be_counted_count_nothing() -> None:
    census = replace(CENSUS, rows={"events": -1, "others": 600})
    assert census.total_rows == 600
    assert judge_copy((), census, "online", BEFORE.live_image) == GOOD
    assert (
        judge_copy((), replace(CENSUS, rows={"events": -1}), "online", BEFORE.live_image).verdict
        == "suspect"
    )


HELD = Census(
    4096, 10, 0, 0, "a", 30, {"orchestration_events": 5, "effect_sql_migrations": 30, "t": 3}
)


def copied(**censuses: Census | None) -> Copied:
    """A copy with what it must agree with."""
    return Copied(
        "online", 40960, 0, 0, 0.1, **({"pinned": None, "before": None, "after": None} | censuses)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"page_count": 11},
        {"user_version": 1},
        {"application_id": 1},
        {"schema_sha256": "b"},
        {"t3_level": 31},
        {"ends": HELD.ends | {"t": 4}},
        {"ends": HELD.ends | {"u": 0}},
        {"ends": {}},
    ],
)
def test_a_pinned_copy_must_hold_what_the_source_held(changes: dict[str, object]) -> None:
    """Row 24: a wrong database passes every check but this one."""
    assert find_disagreements(copied(pinned=HELD), HELD) == []
    assert len(find_disagreements(copied(pinned=HELD), replace(HELD, **changes))) >= 1


def test_a_vacuumed_copy_lies_between_two_moments() -> None:
    """Its pages and the rowids of most tables are its own; what T3 only adds to must lie in
    between."""
    later = replace(HELD, page_count=12, ends=HELD.ends | {"orchestration_events": 9, "t": 99})
    between = replace(HELD, page_count=7, ends=HELD.ends | {"orchestration_events": 7, "t": 1})
    assert find_disagreements(copied(before=HELD, after=later), between) == []
    for wrong in (4, 10):
        outside = replace(between, ends=between.ends | {"orchestration_events": wrong})
        assert find_disagreements(copied(before=HELD, after=later), outside) == [
            f"end of orchestration_events {wrong}, not from 5 to 9"
        ]
    for changes in (
        {"t3_level": 31},
        {"schema_sha256": "b"},
        {"user_version": 1},
        {"application_id": 1},
    ):
        assert (
            len(find_disagreements(copied(before=HELD, after=later), replace(between, **changes)))
            == 1
        )


def test_of_v2_the_events_may_become_fewer_while_it_is_vacuumed() -> None:
    """A compaction removes those that it can do without; the ledger only grows."""
    v2 = replace(HELD, ends=HELD.ends | {"orchestration_v2_projection_threads": 1})
    fewer = replace(v2, ends=v2.ends | {"orchestration_events": 4})
    assert find_disagreements(copied(before=v2, after=v2), fewer) == []
    lower = replace(v2, ends=v2.ends | {"effect_sql_migrations": 29})
    assert find_disagreements(copied(before=v2, after=v2), lower) == [
        "end of effect_sql_migrations 29, not from 30 to 30"
    ]


def test_a_copy_without_a_pin_has_nothing_to_agree_with() -> None:
    assert find_disagreements(copied(), HELD) == []


def test_the_newest_good_one_is_the_yardstick() -> None:
    assert choose_yardstick([]) is None
    assert (
        choose_yardstick([make_manifest(2, verdict="damaged"), make_manifest(3, verdict="suspect")])
        is None
    )
    assert choose_yardstick(
        [make_manifest(3, verdict="suspect"), make_manifest(2), make_manifest(1)]
    ) == make_manifest(2)
    accepted = make_manifest(3, verdict="suspect", accepted_at="2026-11-24T12:00:00Z")
    assert choose_yardstick([make_manifest(2), accepted]) == accepted
    assert choose_yardstick(
        [make_manifest(2), accepted.with_live(method="vacuum")]
    ) == make_manifest(2)


def test_what_was_put_back_is_the_yardstick_until_something_is_taken_of_it() -> None:
    """A restore to a lower level is no loss to be alarmed of, whatever was taken in between."""
    back = make_manifest(1, restored_since=4)
    assert choose_yardstick([make_manifest(3), make_manifest(2), back]) == back
    assert choose_yardstick([make_manifest(4), make_manifest(3), back]) == make_manifest(4)
    assert choose_yardstick([make_manifest(4, verdict="suspect"), make_manifest(3), back]) == back
    assert choose_yardstick([make_manifest(3), replace(back, restored_since=3)]) == make_manifest(3)
    assert choose_yardstick(
        [make_manifest(6), back, make_manifest(5, restored_since=7)]
    ) == make_manifest(5, restored_since=7)


def test_one_that_could_not_be_copied_and_then_is_gone_is_missed_all_the_same() -> None:
    """Junk that was never copied is not."""
    v1, live = "state.sqlite", "statev2.sqlite"
    one = Copied("online", 0, 0, 0, 0.0, None, None, None)
    found = {live: (one, Proven((), CENSUS, 0.0, "3.40.1"))}
    whole = beside(make_manifest(1, file=live), v1)
    lacks = make_manifest(2, file=live, missing=(Missing(v1, "why"), Missing("junk.sqlite", "why")))
    assert judge_databases(found, lacks.missing, [lacks, whole]).reasons == ()
    judged = judge_databases(found, [], [lacks, whole])
    assert judged.reasons == (f"{v1} is gone; {whole.name} has it",)
    assert judged.of_whole(live).verdict == "suspect"


UNJUDGED = "SQLite 3.40.1 can't judge it (no such tokenizer: icu9)"
T3 = replace(CENSUS, content={"projects": 2, "threads": 10, "messages": 100})


def counted(sequence: int, verdict: str = "unproven", **content: int) -> Manifest:
    """A snapshot in which so much of the content was counted."""
    census = replace(T3, content={**(T3.content or {}), **content})
    return make_manifest(sequence, verdict=verdict, census=census)


def unproven(*before: Manifest, **content: int) -> Judgement:
    """What a copy that can't be judged is worth after these snapshots."""
    census = counted(9, **content).live.census
    image = find_previous(before, "state.sqlite")
    return judge_copy((), census, "online", image, unjudged=UNJUDGED)


def test_what_cannot_be_judged_is_unproven_as_long_as_nothing_is_missing() -> None:
    assert unproven() == unproven(counted(1)) == Judgement("unproven", (UNJUDGED,))


def test_a_loss_is_suspect_though_not_all_can_be_judged() -> None:
    """Row 41: where a machine's SQLite is too old for good, nothing is ever verified."""
    for before in ((counted(1, "verified"),), (counted(1),), (counted(1, messages=3), counted(2))):
        found = unproven(*before, messages=20)
        assert found.verdict == "suspect"
        assert found.reasons == (f"20 messages, 100 in {before[-1].name}", UNJUDGED)


def test_what_this_sqlite_cannot_read_is_not_lost_and_measures_nothing() -> None:
    """Row 41, row 42."""
    hidden = counted(2, messages=-1)
    assert unproven(counted(1), messages=-1) == Judgement("unproven", (UNJUDGED,))
    assert choose_yardstick([counted(1), hidden]) == counted(1)
    assert unproven(counted(1), hidden, messages=20).verdict == "suspect"


@pytest.mark.parametrize("kind", ["T3's", "any other"])
def test_a_table_that_this_sqlite_cannot_read_hides_no_loss_of_it(kind: str) -> None:
    """Row 42. Its rows may all be there; of a sound one they would be lost."""
    if kind == "T3's":
        before = make_manifest(census=replace(T3, ends={LEDGER_TABLE: 30}))
        hidden = replace(T3, ends={LEDGER_TABLE: -1}, t3_level=None, content=None)
    else:
        before, hidden = BEFORE, replace(CENSUS, rows={"events": -1})
    image = before.live_image
    found = judge_copy((), hidden, "online", image, unjudged=UNJUDGED)
    assert found == Judgement("unproven", (UNJUDGED,))
    assert judge_copy((), hidden, "online", image).verdict == "suspect"


def test_a_loss_that_was_not_accepted_measures_nothing() -> None:
    lost = counted(2, "suspect", messages=20)
    assert unproven(counted(1), lost, messages=20).verdict == "suspect"


def test_rows_without_a_parent_are_suspect_though_not_all_can_be_judged() -> None:
    orphans = "foreign_key_check: rows without a parent in kid"
    found = judge_copy((), T3, "online", None, unjudged=UNJUDGED, orphans=orphans)
    assert found == Judgement("suspect", (orphans, UNJUDGED))


def test_a_database_of_any_name_must_not_lose_its_level() -> None:
    """Row 41."""
    [before] = [make_manifest(verdict="verified", census=T3).image_of("state.sqlite")]
    for unjudged in ("", UNJUDGED):
        gone = replace(T3, t3_level=None, content=None)
        found = judge_copy((), gone, "online", before, "statev3.sqlite", unjudged=unjudged)
        assert found.verdict == "suspect"
        assert found.reasons[0] == "no T3 migration level in it"
    fresh = judge_copy((), replace(T3, t3_level=None), "online", None, "notes.sqlite")
    assert fresh.verdict == "verified"
