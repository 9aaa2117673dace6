"""Take the census of a database: schema, T3's migration level, and where each table ends.

A census of the source is taken inside the pin and must equal the census of the copy:
`integrity_check` is content with an empty database, with another one, and with one that lost its
tail. The same census is in the manifest, so that a snapshot can be proven again.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import apsw

from t3_backup.errors import SourceError
from t3_backup.store.census import UNREADABLE, Census
from t3_backup.t3.ledger import LEDGER_TABLE
from t3_backup.worker.child.digest import sha256

# Every name by which SQLite gives a table's rowid, as long as no column has taken it
# (sqlite.org/rowidtable.html).
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


def take_census(connection: apsw.Connection, *, count_rows: bool) -> Census:
    """Take the census of the main database, in whatever transaction is open.

    Without `count_rows` it costs a few pages a table. What damage makes unreadable is said to be
    so; any other trouble raises apsw.Error.
    """
    without_rowid = _tables(connection)
    tables = sorted(without_rowid)
    ends = {table: _end(connection, table, without_rowid=without_rowid[table]) for table in tables}
    census = Census(
        page_size=_pragma(connection, "page_size"),
        page_count=_pragma(connection, "page_count"),
        user_version=_pragma(connection, "user_version"),
        application_id=_pragma(connection, "application_id"),
        schema_sha256=_schema(connection),
        t3_level=_level(connection, tables),
        ends=ends,
    )
    if not count_rows:
        return census
    return replace(census, rows={table: _count(connection, table) for table in tables})


def require_tables(taken: Census) -> None:
    """Raise SourceError for a database without any table."""
    if not taken.ends:
        raise SourceError(
            "the database is empty: it has no table at all; "
            "an earlier snapshot can be put in its place"
        )


def _tables(connection: apsw.Connection) -> dict[str, bool]:
    """The ordinary tables, and whether each is WITHOUT ROWID.

    Virtual ones hold nothing of their own.
    """
    names = {
        name
        for (name,) in connection.cursor().execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
        )
    }
    rows = connection.cursor().execute("PRAGMA main.table_list").fetchall()
    return {
        str(row[1]): bool(row[4])
        for row in rows
        if row[1] in names and row[2] in ("table", "shadow")
    }


def _end(connection: apsw.Connection, table: str, *, without_rowid: bool) -> int:
    columns = {
        str(row[1]).lower()
        for row in connection.cursor().execute(f"PRAGMA main.table_xinfo({quote_name(table)})")
    }
    rowid = next((name for name in _ROWID_NAMES if name not in columns), None)
    if without_rowid or rowid is None:
        return _count(connection, table)
    return _or_unreadable(
        connection, f"SELECT ifnull(max({rowid}), 0) FROM main.{quote_name(table)}"
    )


def _count(connection: apsw.Connection, table: str) -> int:
    return _or_unreadable(connection, f"SELECT count(*) FROM main.{quote_name(table)}")


def _or_unreadable(connection: apsw.Connection, query: str) -> int:
    try:
        return _one(connection, query)
    except apsw.CorruptError:
        return UNREADABLE


def _level(connection: apsw.Connection, tables: list[str]) -> int | None:
    if LEDGER_TABLE not in tables:
        return None
    columns = {
        row[1] for row in connection.cursor().execute(f"PRAGMA main.table_info({LEDGER_TABLE})")
    }
    if "migration_id" not in columns:
        return None
    with contextlib.suppress(apsw.CorruptError):
        [(level,)] = (
            connection.cursor()
            .execute(f"SELECT max(migration_id) FROM main.{LEDGER_TABLE}")
            .fetchall()
        )
        return level if isinstance(level, int) else None
    return None


def _schema(connection: apsw.Connection) -> str:
    digest = sha256()
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
    for row in connection.cursor().execute(query):
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return str(digest.hexdigest())


def _pragma(connection: apsw.Connection, name: str) -> int:
    return _one(connection, f"PRAGMA main.{name}")


def _one(connection: apsw.Connection, query: str) -> int:
    value: Any
    [(value,)] = connection.cursor().execute(query).fetchall()
    return int(value)


def quote_name(name: str) -> str:
    """Quote `name` as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
