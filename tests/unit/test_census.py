"""What a database holds, counted in real SQLite databases. Row 24: what `integrity_check` calls ok
is told apart here."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from support.paths import DATA

from t3_backup.store.census import Census
from t3_backup.worker.child.census import take_census

UNREADABLE = -1


def database(*statements: str, path: str = ":memory:") -> apsw.Connection:
    connection = apsw.Connection(path)
    for statement in statements:
        connection.cursor().execute(statement).fetchall()
    return connection


def census(*statements: str) -> Census:
    return take_census(database(*statements), count_rows=True)


def immutable(path: Path) -> apsw.Connection:
    """A connection that makes no sidecars beside `path`."""
    return apsw.Connection(
        f"file:{path}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )


def ones(table: str, rows: int) -> str:
    """`rows` rows, each with the next number in the first column."""
    return f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO {table} SELECT i FROM n"


def test_an_end_is_the_greatest_rowid_and_not_the_count() -> None:
    found = census(
        "CREATE TABLE t (x)",
        ones("t", 9),
        "DELETE FROM t WHERE x IN (2, 3, 4)",
        "CREATE TABLE none (x)",
    )
    assert found.ends == {"t": 9, "none": 0}
    assert found.rows == {"t": 6, "none": 0}
    assert found.total_rows == 6


def test_without_a_rowid_the_end_is_the_count() -> None:
    found = census(
        "CREATE TABLE t (x PRIMARY KEY) WITHOUT ROWID", ones("t", 5), "DELETE FROM t WHERE x = 2"
    )
    assert found.ends == found.rows == {"t": 4}


@pytest.mark.parametrize("columns", ["rowid", "ROWID", "rowid, _rowid_", "RowId, oid"])
def test_a_column_that_took_the_name_of_the_rowid_is_not_taken_for_it(columns: str) -> None:
    more = ", ".join("NULL" for _ in columns.split(","))
    found = census(f"CREATE TABLE t (x, {columns})", *[f"INSERT INTO t VALUES (1000, {more})"] * 3)
    assert found.ends == {"t": 3}


def test_where_columns_took_all_its_names_the_end_is_the_count() -> None:
    found = census(
        "CREATE TABLE t (rowid, _rowid_, oid)",
        "INSERT INTO t VALUES (77, 88, 99)",
        "INSERT INTO t VALUES (7, 8, 9)",
    )
    assert found.ends == found.rows == {"t": 2}


@pytest.mark.parametrize(
    "name",
    [
        'a"b',
        "a'b",
        '"',
        '""',
        "a;b",
        "a b",
        "[x]",
        "`x`",
        "select",
        "tab\tle",
        "ünï",
        "-- x",
        "x\ny",
        "%_",
    ],
)
def test_a_table_may_have_any_name(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    found = census(f"CREATE TABLE {quoted} (x)", ones(quoted, 3), "CREATE TABLE other (x)")
    assert found.ends == {name: 3, "other": 0}
    assert found.rows == {name: 3, "other": 0}


def test_virtual_tables_are_counted_by_what_they_keep() -> None:
    found = census(
        "CREATE VIRTUAL TABLE f USING fts5(body)", "INSERT INTO f VALUES ('one'), ('two')"
    )
    assert "f" not in found.ends
    assert found.rows is not None
    assert found.rows["f_content"] == 2
    assert set(found.ends) == {"f_config", "f_content", "f_data", "f_docsize", "f_idx"}


def test_a_virtual_table_of_a_module_that_nobody_has_stops_nothing() -> None:
    found = census(
        "CREATE TABLE t (x)",
        ones("t", 2),
        "PRAGMA writable_schema=1",
        "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING "
        "nobody_has_this(x)')",
        "PRAGMA writable_schema=RESET",
    )
    assert found.ends == {"t": 2}


def test_views_triggers_and_indexes_are_in_the_schema_and_not_among_the_tables() -> None:
    plain = census("CREATE TABLE t (x)")
    for more in (
        "CREATE VIEW v AS SELECT x FROM t",
        "CREATE INDEX i ON t (x)",
        "CREATE TRIGGER g INSERT ON t BEGIN SELECT 1; END",
    ):
        found = census("CREATE TABLE t (x)", more)
        assert found.ends == plain.ends
        assert found.schema_sha256 != plain.schema_sha256


def test_the_schema_is_the_same_in_whatever_order_it_was_made() -> None:
    one = census("CREATE TABLE a (x)", "CREATE TABLE b (x)")
    other = census("CREATE TABLE b (x)", "CREATE TABLE a (x)")
    assert one.schema_sha256 == other.schema_sha256


def test_temporary_tables_and_other_databases_are_none_of_its_own() -> None:
    found = census(
        "CREATE TABLE t (x)",
        ones("t", 2),
        "CREATE TEMP TABLE t (x)",
        "CREATE TEMP TABLE u (x)",
        "ATTACH ':memory:' AS m",
    )
    assert found.ends == {"t": 2}


def test_the_numbers_in_the_header_are_told() -> None:
    found = census(
        "PRAGMA page_size=8192",
        "CREATE TABLE t (x)",
        "PRAGMA user_version=7",
        "PRAGMA application_id=-9",
    )
    assert (found.page_size, found.page_count, found.user_version, found.application_id) == (
        8192,
        2,
        7,
        -9,
    )


def test_a_t3_database_has_the_level_of_its_newest_migration() -> None:
    found = take_census(immutable(DATA / "state-0.0.24.sqlite"), count_rows=True)
    assert found.t3_level == 30
    assert found.rows is not None
    assert found.rows["effect_sql_migrations"] == 30


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE t (x)",),
        ("CREATE TABLE effect_sql_migrations (x)", "INSERT INTO effect_sql_migrations VALUES (30)"),
        ("CREATE TABLE effect_sql_migrations (migration_id)",),
        (
            "CREATE TABLE effect_sql_migrations (migration_id)",
            "INSERT INTO effect_sql_migrations VALUES ('thirty')",
        ),
        ("CREATE VIEW effect_sql_migrations AS SELECT 30 AS migration_id, 'x' AS name",),
    ],
)
def test_what_only_looks_like_a_t3_database_has_no_level(statements: tuple[str, ...]) -> None:
    """Row 24."""
    found = census(*statements)
    assert found.t3_level is None
    assert not found.ledger, "a view may take for ever"


def test_an_empty_database_has_nothing() -> None:
    """Row 24: to `integrity_check` it is ok."""
    empty = database()
    found = take_census(empty, count_rows=True)
    assert (found.ends, found.rows, found.total_rows, found.t3_level) == ({}, {}, 0, None)
    assert list(empty.cursor().execute("PRAGMA integrity_check")) == [("ok",)]


def test_rows_are_counted_only_where_asked() -> None:
    connection = database("CREATE TABLE t (x)", ones("t", 3))
    bare = take_census(connection, count_rows=False)
    assert (bare.rows, bare.total_rows) == (None, 0)
    assert replace(take_census(connection, count_rows=True), rows=None, content=None) == bare


def test_a_census_survives_json() -> None:
    found = census("CREATE TABLE t (x)", ones("t", 3))
    assert Census.from_json(found.as_json()) == found


def test_every_difference_is_named() -> None:
    """Row 24: a lost tail, another schema, another level."""
    full = (
        "CREATE TABLE t (x)",
        ones("t", 3),
        "CREATE TABLE u (x)",
        ones("u", 3),
        "PRAGMA user_version=1",
    )
    one = census(*full)
    assert one.differences(one) == []
    assert one.differences(census(*full, "DELETE FROM t WHERE x = 3")) == [
        "end of t 3 against 2",
        "rows of t 3 against 2",
    ]
    assert one.differences(census(*full, "DELETE FROM t WHERE x = 1")) == ["rows of t 3 against 2"]
    assert one.differences(census(*full, "PRAGMA user_version=2")) == ["user_version 1 against 2"]
    dropped = one.differences(census(*full, "DROP TABLE u"))
    assert any(text.startswith("schema_sha256 ") for text in dropped)
    assert "end of u 3 against None" in dropped


def test_content_and_migrations_are_compared_where_both_have_them() -> None:
    one = replace(census("CREATE TABLE t (x)"), content={"threads": 3}, ledger=((1, "a"), (2, "b")))
    other = replace(one, content={"threads": 2}, ledger=((1, "a"), (2, "c"), (3, "d")))
    assert one.differences(other) == [
        "count of threads 3 against 2",
        "migration 2 b against c",
        "migration 3 None against d",
    ]
    assert one.differences(replace(other, content=None, ledger=None)) == []
    more = replace(one, content={"threads": 3, "messages": 1})
    assert one.differences(more) == more.differences(one) == []
    assert replace(one, content=None, ledger=None).differences(other) == []


def test_what_was_not_known_is_passed_over_where_only_the_known_counts() -> None:
    full = ("CREATE TABLE t (x)", ones("t", 3))
    sealed = replace(census(*full), ends={"t": UNREADABLE}, rows={"t": UNREADABLE})
    assert len(sealed.differences(census(*full))) == 2
    assert sealed.differences(census(*full), known_only=True) == []
    later = census(*full, "PRAGMA user_version=2")
    assert sealed.differences(later, known_only=True) == ["user_version 0 against 2"]


def test_pages_and_rows_are_compared_only_where_it_makes_sense() -> None:
    one = census("CREATE TABLE t (x)", ones("t", 3))
    assert one.differences(replace(one, page_count=99)) == [
        f"page_count {one.page_count} against 99"
    ]
    assert one.differences(replace(one, rows=None)) == []


def overwritten(path: Path, page: int, tmp_path: Path) -> apsw.Connection:
    """A copy in which that page (from 1) is noise."""
    copy = tmp_path / f"damaged-{page}.sqlite"
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(random.Random(page).randbytes(4096))
    return immutable(copy)


def rootpage(connection: apsw.Connection, name: str) -> int:
    [(page,)] = (
        connection.cursor()
        .execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,))
        .fetchall()
    )
    return page


def test_a_damaged_table_is_said_to_be_unreadable_and_the_others_count(
    small: Path, tmp_path: Path
) -> None:
    """Row 12."""
    sound = immutable(small)
    before = take_census(sound, count_rows=True)
    found = take_census(
        overwritten(small, rootpage(sound, "orchestration_events"), tmp_path), count_rows=True
    )
    assert found.ends == before.ends | {"orchestration_events": UNREADABLE}
    assert found.t3_level == 30
    migrations = take_census(
        overwritten(small, rootpage(sound, "effect_sql_migrations"), tmp_path), count_rows=True
    )
    assert (migrations.t3_level, migrations.ends["effect_sql_migrations"]) == (None, UNREADABLE)


def test_a_damaged_schema_is_an_error_and_never_an_empty_database(
    small: Path, tmp_path: Path
) -> None:
    """Row 12."""
    copy = tmp_path / "damaged.sqlite"
    shutil.copyfile(small, copy)
    with copy.open("r+b") as file:
        file.seek(100)  # behind the header: the root page of the schema itself
        file.write(random.Random(1).randbytes(3996))
    connection = immutable(copy)
    with pytest.raises(apsw.CorruptError):
        take_census(connection, count_rows=True)


def spoil(connection: apsw.Connection, table: str) -> None:
    """Put a byte that is no UTF-8 into the name of the last column of a table."""
    cursor = connection.cursor()
    cursor.execute(f"ALTER TABLE {table} ADD COLUMN spoilt").fetchall()
    cursor.execute("PRAGMA writable_schema=on").fetchall()
    query = "SELECT CAST(sql AS BLOB) FROM sqlite_schema WHERE type = 'table' AND name = ?"
    [(text,)] = cursor.execute(query, (table,)).fetchall()
    assert isinstance(text, bytes)
    changed = "UPDATE sqlite_schema SET sql = CAST(? AS TEXT) WHERE type = 'table' AND name = ?"
    cursor.execute(changed, (text.replace(b"spoilt", b"sp\xffilt"), table)).fetchall()
    cursor.execute("PRAGMA writable_schema=reset").fetchall()


@pytest.mark.parametrize(
    "table",
    ["effect_sql_migrations", "projection_projects", "projection_threads", "auth_sessions"],
)
def test_a_table_of_t3s_is_counted_though_the_name_of_a_column_is_not_utf8(
    tmp_path: Path, table: str
) -> None:
    """Row 42."""
    path = tmp_path / "state.sqlite"
    shutil.copyfile(DATA / "state-0.0.24.sqlite", path)
    connection = apsw.Connection(str(path))
    before = take_census(connection, count_rows=True)
    spoil(connection, table)
    found = take_census(connection, count_rows=True)
    assert before.content is not None
    same = ("content", "ends", "rows", "ledger", "t3_level", "logins")
    assert [getattr(found, name) for name in same] == [getattr(before, name) for name in same]
    assert found.schema_sha256 != before.schema_sha256


def test_a_migration_whose_name_is_not_utf8_is_in_the_ledger(tmp_path: Path) -> None:
    """Row 42."""
    path = tmp_path / "state.sqlite"
    shutil.copyfile(DATA / "state-0.0.24.sqlite", path)
    connection = database(
        "UPDATE effect_sql_migrations SET name = CAST(x'41ff42' AS TEXT) WHERE migration_id = 2",
        path=str(path),
    )
    found = take_census(connection, count_rows=True)
    assert (found.ledger or ())[:2] == (
        (1, "OrchestrationEvents"),
        (2, "A\N{REPLACEMENT CHARACTER}B"),
    )
    assert found.t3_level == 30
