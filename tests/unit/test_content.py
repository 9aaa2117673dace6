"""What a person would miss, counted in real databases of T3: what T3 deletes or rebuilds by itself
is no loss, and what somebody would look for is. Row 34."""

from __future__ import annotations

import json
import secrets
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest
from support.manifests import make_manifest
from support.t3_data import REAL, is_v2, level_of, real_database

from t3_backup.autoupdate.snapshots import describe_loss
from t3_backup.backup.verdict import Judgement, judge_copy
from t3_backup.store.census import Census, comparable_content
from t3_backup.t3 import content
from t3_backup.t3.ledger import MOST_MIGRATIONS
from t3_backup.t3.sessions import USER_AGENT
from t3_backup.worker.child.census import take_census

THREADS = "orchestration_v2_projection_threads"
MESSAGES = "orchestration_v2_projection_messages"


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A V2 database of level 61, with 28 threads."""
    return real_database("v2-grown-61", tmp_path / "statev2.sqlite")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A V1 database of level 30, with 1 project and 3 threads."""
    return real_database("state-0.0.24", tmp_path / "state.sqlite")


def changed(database: Path, *statements: str) -> Census:
    """The census of a database, once these were run in it."""
    with closing(apsw.Connection(str(database))) as connection:
        for statement in statements:
            connection.cursor().execute(statement).fetchall()
        return take_census(connection, count_rows=True)


def judged(before: Census, after: Census) -> Judgement:
    return judge_copy((), after, "online", make_manifest(census=before).live_image)


def suspect(*reasons: str) -> Judgement:
    return Judgement("suspect", tuple(f"{one} in {make_manifest().name}" for one in reasons))


def test_v2_counts_its_own_tables_and_not_those_that_v1_left_in_it(grown: Path) -> None:
    found = changed(grown)
    assert found.content == {"projects": 3, "threads": 28, "messages": 260}
    assert (found.rows or {})["projection_threads"] == 3
    emptied = changed(grown, "DELETE FROM projection_threads", "DELETE FROM auth_sessions")
    assert emptied.content == found.content


def test_v1_counts_its_events_too(first: Path) -> None:
    expected = {"projects": 1, "threads": 3, "messages": 0, "events": 4}
    assert changed(first).content == expected


@pytest.mark.parametrize("name", REAL)
def test_every_real_database_has_its_words_and_its_ledger(tmp_path: Path, name: str) -> None:
    found = changed(real_database(name, tmp_path / "x.sqlite"))
    words = ["projects", "threads", "messages"] + ([] if is_v2(name) else ["events"])
    assert found.content is not None
    assert list(found.content) == words
    assert found.content["projects"] >= 1
    assert found.ledger is not None
    assert [number for number, _ in found.ledger] == list(range(1, level_of(name) + 1))
    assert found.ledger[0] == (1, "OrchestrationEvents")


def test_a_project_that_was_deleted_does_not_count(grown: Path) -> None:
    one = "SELECT project_id FROM projection_projects LIMIT 1"
    gone = f"UPDATE projection_projects SET deleted_at = 'x' WHERE project_id IN ({one})"
    assert (changed(grown, gone).content or {})["projects"] == 2


def test_where_no_column_says_what_was_deleted_all_of_it_counts(first: Path) -> None:
    index = "DROP INDEX idx_projection_projects_workspace_root_deleted_at"
    column = "ALTER TABLE projection_projects DROP COLUMN deleted_at"
    assert (changed(first, index, column).content or {})["projects"] == 1


def test_of_a_table_that_is_gone_people_have_nothing(first: Path) -> None:
    before = changed(first)
    after = changed(first, "DROP TABLE projection_threads")
    assert (after.content or {})["threads"] == 0
    assert judged(before, after) == suspect("0 threads, 3")


def test_what_has_no_ledger_is_not_t3s(grown: Path) -> None:
    found = changed(grown, "DROP TABLE effect_sql_migrations")
    assert (found.content, found.ledger) == (None, None)


def test_content_is_counted_only_with_the_rows(grown: Path) -> None:
    with closing(apsw.Connection(str(grown))) as connection:
        bare = take_census(connection, count_rows=False)
    assert bare.content is None
    assert bare == replace(changed(grown), rows=None, content=None, logins=None)


def test_what_damage_makes_unreadable_is_said_to_be_so(grown: Path) -> None:
    with closing(apsw.Connection(str(grown))) as connection:
        query = "SELECT name, rootpage FROM sqlite_schema WHERE tbl_name = ?"
        roots = connection.cursor().execute(query, ("projection_projects",)).fetchall()
    with grown.open("r+b") as file:
        for _, root in roots:
            file.seek((root - 1) * 4096)
            file.write(b"\xff" * 4096)
    found = changed(grown)
    assert found.content == {"projects": -1, "threads": 28, "messages": 260}


COMPACTED = "DELETE FROM orchestration_events WHERE sequence <= 240"
REBUILT = (  # another count of rows, and other rowids
    "DELETE FROM orchestration_v2_projection_turn_items WHERE rowid % 4 <> 0",
    "DELETE FROM orchestration_v2_turn_item_positions",
    "UPDATE orchestration_v2_projection_messages SET rowid = rowid + 100000",
    "DELETE FROM orchestration_v2_projection_run_attempts",
    "DELETE FROM orchestration_v2_projection_nodes",
)


def test_v2s_own_compaction_and_a_rebuild_of_projections_are_no_loss(grown: Path) -> None:
    """The rule of before, over all rows, calls it suspect."""
    before = changed(grown)
    after = changed(grown, COMPACTED, *REBUILT)
    events = [(found.rows or {})["orchestration_events"] for found in (before, after)]
    assert events[1] <= events[0] / 2
    assert after.total_rows < before.total_rows / 2
    assert judged(before, after) == Judgement("verified")


def test_half_of_the_threads_lost_is_suspect_though_all_else_stays(grown: Path) -> None:
    before = changed(grown)
    after = changed(grown, f"DELETE FROM {THREADS} WHERE rowid % 2 = 0")
    assert after.total_rows > before.total_rows * 0.98
    assert judged(before, after) == suspect("14 threads, 28")


def test_other_tables_that_grow_hide_no_loss_of_messages(grown: Path) -> None:
    before = changed(grown)
    after = changed(
        grown,
        f"DELETE FROM {MESSAGES} WHERE rowid % 5 <> 0",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
        "INSERT INTO orchestration_command_receipts (command_id, aggregate_kind, aggregate_id, "
        "accepted_at, result_sequence, status) SELECT 'new ' || i, '', '', '', i, '' FROM n",
    )
    assert after.total_rows > before.total_rows
    assert judged(before, after) == suspect("52 messages, 260")


ROWS = {  # by word: what is inserted into its table, and what else a row of it needs
    "projects": ("projection_projects", "project_id"),
    "threads": ("projection_threads", "thread_id"),
    "messages": ("projection_thread_messages", "message_id"),
    "events": ("orchestration_events", "event_id"),
}
ROWS_V2 = ROWS | {"threads": (THREADS, "thread_id"), "messages": (MESSAGES, "message_id")}


def grow(connection: apsw.Connection, table: str, key: str, rows: int) -> None:
    """Give a table of T3's more rows, whatever columns its version has."""
    cursor, values = connection.cursor(), []
    for _, name, kind, not_null, default, _ in cursor.execute(f"PRAGMA table_info({table})"):
        if name == key:
            values.append((name, "'grown ' || i"))
        elif not_null and default is None and name != "sequence":
            number = "i" if kind == "INTEGER" else "'grown ' || i"
            values.append((name, "'{}'" if str(name).endswith("_json") else number))
    names, texts = (", ".join(map(str, part)) for part in zip(*values, strict=True))
    cursor.execute(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "
        f"INSERT INTO {table} ({names}) SELECT {texts} FROM n"
    ).fetchall()


@pytest.mark.parametrize("name", REAL)
def test_most_of_one_thing_lost_is_suspect_in_every_real_database(
    tmp_path: Path, name: str
) -> None:
    """Row 41: each alone, while whatever else there is grows."""
    tables = ROWS_V2 if is_v2(name) else ROWS
    for word, (table, _) in tables.items():
        path = real_database(name, tmp_path / f"{word}.sqlite")
        with closing(apsw.Connection(str(path))) as connection:
            for other, of in tables.values():
                grow(connection, other, of, 40)
            before = take_census(connection, count_rows=True)
            assert before.content is not None
            if word not in before.content:
                continue  # events, in V2
            connection.cursor().execute(f"DELETE FROM {table} WHERE rowid % 5 <> 0").fetchall()
            for other, of in tables.values():
                if other != table:
                    connection.cursor().execute(f"DELETE FROM {other} WHERE {of} LIKE 'grown %'")
                    grow(connection, other, of, 500)
            after = take_census(connection, count_rows=True)
        assert after.total_rows > before.total_rows
        left = (after.content or {})[word]
        assert judged(before, after) == suspect(f"{left} {word}, {before.content[word]}")


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (0, 0, False),
        (0, 5, False),
        (1, 1, False),
        (1, 0, True),
        (2, 1, True),
        (3, 2, False),
        (3, 1, True),
        (28, 15, False),
        (28, 14, True),
        (28, -1, True),
        (-1, 0, False),
    ],
)
def test_half_or_more_of_one_word_is_much(before: int, after: int, lost: bool) -> None:
    found = content.lost_words({"threads": before}, {"threads": after})
    assert found == (["threads"] if lost else [])


def test_a_word_that_one_side_does_not_know_is_no_change() -> None:
    """V1 counts events, and V2 does not."""
    assert content.lost_words({"events": 9}, {"threads": 1}) == []
    assert content.changes({"events": 9, "threads": 1}, {"threads": 3, "x": 1}) == {"threads": 2}


def login(connection: apsw.Connection, agent: str | None, address: str, days: int = 29) -> None:
    """Log somebody in whose login ends after so many days."""
    known = [row[1] for row in connection.cursor().execute("PRAGMA table_info(auth_sessions)")]
    ends = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="milliseconds")
    row = {
        "session_id": secrets.token_hex(8),
        "subject": "one-time-token",
        "method": "browser-session-cookie",
        "issued_at": "2026-01-01T00:00:00.000Z",
        "expires_at": ends.replace("+00:00", "Z"),
        "client_user_agent": agent,
        "client_ip_address": address,
        "client_device_type": "desktop",
        "role" if "role" in known else "scopes": "client",
    }
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.cursor().execute(
        f"INSERT INTO auth_sessions ({names}) VALUES ({marks})", tuple(row.values())
    )


FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.mark.parametrize("name", REAL)
def test_logins_of_people_count_that_stand_in_every_real_database(
    tmp_path: Path, name: str
) -> None:
    path = real_database(name, tmp_path / "x.sqlite")
    with closing(apsw.Connection(str(path))) as connection:
        connection.cursor().execute("DELETE FROM auth_sessions")
        login(connection, FIREFOX, "192.0.2.7")
        login(connection, None, "127.0.0.1")
        login(connection, "Python/3.11 aiohttp/3.8.4", "192.0.2.7")
        login(connection, USER_AGENT, "127.0.0.1")  # ours, now
        login(connection, "Python/3.11 aiohttp/3.8.4", "127.0.0.1")  # ours, before
        login(connection, FIREFOX, "192.0.2.7", days=-1)
        login(connection, "revoked", "192.0.2.7")
        connection.cursor().execute(
            "UPDATE auth_sessions SET revoked_at = issued_at WHERE client_user_agent = 'revoked'"
        )
        assert take_census(connection, count_rows=True).logins == 3
        assert take_census(connection, count_rows=False).logins is None


def test_a_database_of_another_kind_has_no_logins() -> None:
    with closing(apsw.Connection(":memory:")) as connection:
        connection.cursor().execute("CREATE TABLE a (b)")
        assert take_census(connection, count_rows=True).logins is None
        connection.cursor().execute("CREATE TABLE auth_sessions (expires_at)")
        assert take_census(connection, count_rows=True).logins == 0
        connection.cursor().execute("INSERT INTO auth_sessions VALUES (NULL), (7), ('x')")
        assert take_census(connection, count_rows=True).logins == 3, "what no version writes stands"


def test_logins_that_end_make_no_difference_and_no_snapshot_suspect(grown: Path) -> None:
    taken = replace(changed(grown), logins=9)
    later = replace(taken, logins=0)
    assert taken.differences(later) == []
    assert judged(taken, later).verdict == judged(taken, taken).verdict


def test_a_rollback_names_what_is_lost_and_logins_too(grown: Path) -> None:
    with closing(apsw.Connection(str(grown))) as connection:
        connection.cursor().execute("DELETE FROM auth_sessions")
        for n in range(15):
            login(connection, USER_AGENT if n else FIREFOX, "127.0.0.1")
    before = changed(grown)
    after = changed(
        grown, f"DELETE FROM {MESSAGES} WHERE rowid <= 3", "DELETE FROM auth_sessions", COMPACTED
    )
    assert describe_loss(before, after) == "3 messages, 1 logins"
    assert describe_loss(after, before) == "nothing"


def test_logins_of_an_earlier_snapshot_are_compared_by_their_rows(grown: Path) -> None:
    before = changed(grown)
    after = changed(grown, "DELETE FROM auth_sessions WHERE rowid = 1")
    for then, now in ((of_before(before), after), (before, of_before(after))):
        assert describe_loss(then, now) == "1 logins"
        assert describe_loss(now, then) == "nothing"


def test_a_level_that_fell_or_is_gone_is_suspect(grown: Path) -> None:
    before = changed(grown)
    fell = changed(grown, "DELETE FROM effect_sql_migrations WHERE migration_id > 60")
    assert judged(before, fell) == suspect("T3 level 60, 61")
    gone = changed(grown, "DELETE FROM effect_sql_migrations")
    assert judged(before, gone) == Judgement("suspect", ("no T3 migration level in it",))


def of_before(census: Census) -> Census:
    """As the manifest of an earlier version has it."""
    value = census.as_json()
    del value["content"], value["ledger"], value["logins"]
    return Census.from_json(value)


def test_a_census_of_before_is_compared_by_its_rows_in_both(grown: Path) -> None:
    """It counted what was deleted, too: else an upgrade would find two projects missing."""
    deleted = "UPDATE projection_projects SET deleted_at = 'x' WHERE rowid < 3"
    after = changed(grown, deleted)
    assert after.content == {"projects": 1, "threads": 28, "messages": 260}
    before = of_before(after)
    assert comparable_content(before, after) == ({**after.content, "projects": 3},) * 2
    assert judged(before, after) == Judgement("verified")
    lost = changed(grown, f"DELETE FROM {THREADS} WHERE rowid % 2 = 0")
    assert judged(before, lost) == suspect("14 threads, 28")


def test_a_ledger_is_short_and_printable_whatever_somebody_writes_into_it(grown: Path) -> None:
    found = changed(
        grown,
        "INSERT INTO effect_sql_migrations (migration_id, name) VALUES (62, 'a' || char(27) || 'b')",
        "INSERT INTO effect_sql_migrations (migration_id, name) VALUES (63, x'00')",
        "WITH RECURSIVE n(i) AS (SELECT 64 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) "
        "INSERT INTO effect_sql_migrations (migration_id, name) "
        "SELECT i, hex(zeroblob(500)) FROM n",
    )
    assert found.ledger is not None
    assert len(found.ledger) == MOST_MIGRATIONS
    assert found.ledger[-1] == (1200, "0" * 100)
    assert Census.from_json(json.loads(json.dumps(found.as_json()))) == found
    short = changed(grown, "DELETE FROM effect_sql_migrations WHERE migration_id > 63")
    assert (short.ledger or ())[-2:] == ((61, "ProjectionThreadSweepIndexes"), (62, "a?b"))


def test_a_ledger_without_names_is_none(grown: Path) -> None:
    found = changed(grown, "ALTER TABLE effect_sql_migrations DROP COLUMN name")
    assert (found.t3_level, found.ledger) == (61, None)


@pytest.mark.parametrize("name", REAL)
def test_what_was_said_can_be_measured_where_it_was_said(tmp_path: Path, name: str) -> None:
    with closing(apsw.Connection(str(real_database(name, tmp_path / "x.sqlite")))) as connection:
        query = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        tables = {str(row[0]) for row in connection.cursor().execute(query)}
        measured = content.said_in(tables)
        assert [one.what for one in measured] == ["characters", "payloads"][: 2 - is_v2(name)]
        for one in measured:
            connection.cursor().execute(f"SELECT {one.measure} FROM {one.table}").fetchall()


def test_of_v2s_messages_the_text_is_measured_and_not_its_form(grown: Path) -> None:
    [said] = content.said_in((THREADS,))

    def measure(connection: apsw.Connection) -> object:
        query = f"SELECT {said.measure} FROM {said.table}"
        return connection.cursor().execute(query).fetchall()[0][0]

    with closing(apsw.Connection(str(grown))) as connection:
        cursor = connection.cursor()
        whole = measure(connection)
        assert isinstance(whole, int)
        assert whole > 10_000
        cursor.execute(f"UPDATE {MESSAGES} SET payload_json = json_set(payload_json, '$.new', 'x')")
        assert measure(connection) == whole
        cursor.execute(f"UPDATE {MESSAGES} SET payload_json = 'no JSON' WHERE rowid % 2 = 0")
        half = measure(connection)
        assert isinstance(half, int)
        assert 0 < half < whole
        cursor.execute(f"UPDATE {MESSAGES} SET payload_json = '{{}}'")
        assert not measure(connection)
