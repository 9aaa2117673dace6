"""What people are told before and after a restore: what it gains and loses, what was done, and the
command that undoes it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.manifests import CENSUS, NOON, make_manifest

from t3_backup.output import restore_messages
from t3_backup.output.restore_messages import Change
from t3_backup.restore.in_place import Restored
from t3_backup.store.companion import Companion
from t3_backup.store.manifest import Missing
from t3_backup.text import INFO, WARNING

NAME = "state-20261124T120000Z"


def plan(
    problem: str = "",
    rows: dict[str, int] | None = None,
    change: Change = Change(),  # noqa: B008 - it is frozen
    days: int = 3,
    **changes: Any,
) -> list[str]:
    live = None if problem else replace(CENSUS, rows=rows if rows is not None else {"events": 1200})
    return restore_messages.plan_lines(
        make_manifest(1, **changes), live, problem, NOON + timedelta(days=days), change
    )


V2 = replace(make_manifest(1).live, file="statev2.sqlite", live=False, t3_level=61, bytes=3 << 20)
BOTH = {"databases": (make_manifest(1).live, V2)}


def test_a_plan_says_which_snapshot_it_is_and_what_changes() -> None:
    assert plan() == [
        f"snapshot of alice: {NAME}",
        "  taken 2026-11-24 12:00:00 UTC (3d ago); T3 level 30; 400.0 KiB; verified",
        "  without files: there were none, or they were not saved",
        "  live: T3 level 30; 1,200 rows, 1,000 in the snapshot",
        "  rows that the restore adds and removes: events -200",
    ]


def test_what_people_would_miss_stands_before_the_tables() -> None:
    then = replace(CENSUS, content={"projects": 1, "threads": 28, "messages": 2600, "events": 5})
    now = {"projects": 1, "threads": 30, "messages": 1, "events": 4}
    live = replace(CENSUS, content=now, rows={"events": 1200})
    lines = restore_messages.plan_lines(make_manifest(census=then), live, "", NOON, Change())
    assert lines[-2:] == [
        "  content that the restore adds and removes: threads -2, messages +2,599, events +1",
        "  rows that the restore adds and removes: events -200",
    ]
    same = restore_messages.plan_lines(
        make_manifest(census=then), replace(live, content=then.content), "", NOON, Change()
    )
    assert same[-2] == "  content that the restore adds and removes: none"


def test_a_label_a_verdict_and_files_are_named() -> None:
    files = Companion(sha256="a" * 64, bytes=10, entries=7, content_bytes=3 << 20, fingerprint="")
    _, taken, beside, *_ = plan(
        label="prebump-0.0.25", verdict="suspect", reasons=("32 rows", "no level"), companion=files
    )
    assert taken.endswith(
        ", label prebump-0.0.25; T3 level 30; 400.0 KiB; suspect (32 rows; no level)"
    )
    assert beside == "  with 7 files and folders (3.0 MiB)"


def test_each_other_database_has_a_line_and_what_was_not_saved_has_one() -> None:
    lines = plan(**BOTH, missing=(Missing("junk.sqlite", "file is not a database"),))
    assert lines[2:4] == [
        "  with statev2.sqlite: T3 level 61; 3.0 MiB",
        "  without junk.sqlite, which was there: file is not a database",
    ]
    assert lines[-2].startswith("  live: T3 level 30;"), "the live one is compared with its like"


def test_what_the_snapshot_lacks_is_said_to_go_aside_and_to_be_kept() -> None:
    lines = plan(change=Change(lacking=["statev2.sqlite", "x\x1b[2J.sqlite"]))
    kept = "is put aside, and kept in a snapshot of the present state"
    assert lines[2:4] == [
        f"  statev2.sqlite is not in it: it {kept}",
        f"  x?[2J.sqlite is not in it: it {kept}",
    ]
    assert not [
        line for line in plan(change=Change(databases=False, lacking=["x"])) if "x" in line.split()
    ]


def test_one_database_alone_is_compared_with_its_like_and_the_others_stay() -> None:
    small = replace(V2, census=replace(CENSUS, rows={"events": 7}))
    lines = plan(
        databases=(make_manifest(1).live, small),
        change=Change(file="statev2.sqlite", lacking=["third.sqlite"]),
    )
    assert lines[2] == (
        "  statev2.sqlite alone of it: T3 level 61; 3.0 MiB; other databases stay as they are"
    )
    assert lines[-1] == "  rows that the restore adds and removes: events -1,193"
    assert not [line for line in lines if "third" in line]


ENDED = "  logins made before 2026-11-25 have ended, and so have all in it: log in again"
STAY = "; environment-id and secrets/server-signing-key.bin stay as they are"


@pytest.mark.parametrize(
    ("days", "change", "files", "said"),
    [
        (29, Change(), True, []),
        (31, Change(), True, [ENDED]),
        (31, Change(), False, [ENDED + STAY]),
        (31, Change(files=False), True, [ENDED + STAY]),
        (31, Change(databases=False), True, []),
    ],
)
def test_a_snapshot_of_logins_that_have_all_ended_says_so(
    days: int, change: Change, files: bool, said: list[str]
) -> None:
    there = Companion(sha256="a" * 64, bytes=10, entries=7, content_bytes=9, fingerprint="")
    lines = plan(days=days, change=change, companion=there if files else None)
    assert [line for line in lines if "logins" in line] == said


def test_a_level_that_is_not_known_is_a_dash() -> None:
    assert "; T3 level -; " in plan(t3_level=None)[1]


def test_a_live_database_that_can_t_be_read_is_no_reason_to_say_nothing() -> None:
    assert (
        plan("no state.sqlite")[-1]
        == "  the live database can't be compared with it: no state.sqlite"
    )


def test_where_nothing_changes_it_says_so() -> None:
    assert plan(rows={"events": 1000})[-1] == "  rows that the restore adds and removes: none"


def test_of_many_tables_the_greatest_changes_are_shown() -> None:
    rows = {f"t{number:02}": number for number in range(12)}
    line = plan(rows=rows)[-1]
    assert line == (
        "  rows that the restore adds and removes: "
        "events +1,000, t11 -11, t10 -10, t09 -9, t08 -8, t07 -7, t06 -6, t05 -5, and 4 more tables"
    )


@pytest.mark.parametrize(
    ("then", "live", "changes"),
    [
        ({"a": 3}, {"a": 1}, [("a", 2)]),
        ({"a": 1}, {"a": 3}, [("a", -2)]),
        ({"a": 1}, {"a": 1}, []),
        ({"new": 2}, {"old": 5}, [("old", -5), ("new", 2)]),
        ({"a": -1}, {"a": 4}, [("a", -4)]),  # damage made it unreadable
        ({"a": -1}, {"a": -1}, []),
        ({"b": 1, "a": 1}, {}, [("a", 1), ("b", 1)]),
        (None, {"a": 1}, [("a", -1)]),
        ({"a": 1}, None, [("a", 1)]),
    ],
)
def test_what_each_table_gains_or_loses(
    then: Any, live: Any, changes: list[tuple[str, int]]
) -> None:
    assert (
        restore_messages.row_changes(replace(CENSUS, rows=then), replace(CENSUS, rows=live))
        == changes
    )


def restored(**changes: Any) -> Restored:
    done = Restored(
        make_manifest(1),
        prerestore=make_manifest(2, NOON + timedelta(hours=1), label="prerestore"),
        seconds={"proof": 0.125, "copy": 2},
    )
    for name, value in changes.items():
        setattr(done, name, value)
    return done


def told(**changes: Any) -> list[str]:
    return [line.text for line in restore_messages.done_lines(restored(**changes), "")]


def test_what_was_done_how_long_it_took_and_how_to_undo_it() -> None:
    assert told() == [
        f"restored alice from {NAME} (proof 0.12 s, copy 2.00 s)",
        "to undo it: t3-backup-state restore alice --label prerestore",
    ]


def test_a_server_that_did_not_run_is_said_to_stay_stopped() -> None:
    assert "alice: the server did not run before the restore, so it was not started" in told(
        server="stopped"
    )
    assert len(told(server="started")) == 2


def test_warnings_come_first_and_are_warnings() -> None:
    first, second, *rest = restore_messages.done_lines(restored(warnings=["one", "two"]), "")
    assert [(first.priority, first.text), (second.priority, second.text)] == [
        (WARNING, "WARN: alice: one"),
        (WARNING, "WARN: alice: two"),
    ]
    assert {line.priority for line in rest} == {INFO}


def test_where_nothing_was_kept_there_is_nothing_to_undo_and_where_it_lies_is_said() -> None:
    aside = "/home/alice/.t3/userdata/state.sqlite.replaced-x"
    lines = told(
        prerestore=None, kept=[aside, *(f"{aside}.files/{part}" for part in ("old", "gone", "new"))]
    )
    assert lines[-5:] == [
        f"the part of the old state that no snapshot holds was kept at {aside}",
        f"the part of the old state that no snapshot holds was kept at {aside}.files/old",
        f"what could not be removed of the old state is left at {aside}.files/gone",
        f"what could not be put in place is left at {aside}.files/new",
        f"once nobody needs it: rm -rf {aside} {aside}.files",
    ]
    assert not [line for line in lines if "undo" in line]


def test_what_went_aside_is_named() -> None:
    lines = told(put_back=("state.sqlite",), put_aside=("statev2.sqlite",))
    assert lines[1] == "alice: statev2.sqlite: not in the snapshot, so put aside"


@pytest.mark.parametrize("verdict", ["verified", "suspect", "damaged"])
def test_it_is_undone_by_its_label_whatever_it_is_worth_and_with_the_options_it_was_done_with(
    verdict: str,
) -> None:
    kept = make_manifest(
        2, NOON + timedelta(hours=1), label="prerestore", verdict=verdict, reasons=("why",)
    )
    line = restore_messages.undo_command(
        restored(prerestore=kept), "--dest /srv/store --no-service"
    )
    assert line == "t3-backup-state restore alice --label prerestore --dest /srv/store --no-service"
