"""Take the census of a database: schema, T3's migrations, where each table ends, what is in it.

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
from t3_backup.t3.content import counted_in
from t3_backup.t3.ledger import (
    LEDGER_COLUMNS,
    LEDGER_TABLE,
    MOST_MIGRATIONS,
    Ledger,
    make_ledger,
)
from t3_backup.t3.tables import LOGINS_TABLE, standing_logins_query
from t3_backup.worker.child.connection import read_schema
from t3_backup.worker.child.digest import sha256
from t3_backup.worker.child.unjudged import UNJUDGED

# Every name by which SQLite gives a table's rowid, as long as no column has taken it
# (sqlite.org/rowidtable.html).
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


def take_census(connection: apsw.Connection, *, count_rows: bool) -> Census:
    """Take the census of the main database, in whatever transaction is open.

    Without `count_rows` it costs a few pages a table. What damage makes unreadable is said to be
    so; any other trouble raises apsw.Error.
    """
    read_schema(connection)
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
        ledger=read_ledger(connection),
    )
    if not count_rows:
        return census
    rows = {
        table: UNREADABLE if without_rowid[table] is None else _count(connection, table)
        for table in tables
    }
    logins = _logins(connection, rows)
    return replace(census, rows=rows, content=_content(connection, rows), logins=logins)


def require_tables(taken: Census) -> None:
    """Raise SourceError for a database without any table."""
    if not taken.ends:
        raise SourceError(
            "the database is empty: it has no table at all; "
            "an earlier snapshot can be put in its place"
        )


def _tables(connection: apsw.Connection) -> dict[str, bool | None]:
    """The ordinary tables, and whether each is WITHOUT ROWID.

    None: it can't be asked, since this SQLite does not have it, or its name is not UTF-8. Virtual
    ones hold nothing of their own: they have no root.
    """
    cursor = connection.cursor()
    query = "SELECT CAST(name AS BLOB) FROM sqlite_schema WHERE type = 'table' AND rootpage > 0"
    names: Any = cursor.execute(query).fetchall()
    encoding = _encoding(cursor)
    found: dict[str, bool | None] = {}
    for (raw,) in names:
        try:
            name = raw.decode(encoding)
        except UnicodeDecodeError:
            found[raw.decode(encoding, "backslashreplace")] = None
        else:
            found[name] = _is_without_rowid(cursor, name) if is_loaded(cursor, name) else None
    return found


def _encoding(cursor: apsw.Cursor) -> str:
    """Return the encoding of the database's texts, by a name that Python has, too."""
    [(encoding,)] = cursor.execute("PRAGMA encoding").fetchall()
    return str(encoding)


def is_loaded(cursor: apsw.Cursor, table: str) -> bool:
    """Tell whether SQLite has parsed a table. No view is looked at, which might take for ever."""
    query = "SELECT 1 FROM pragma_table_xinfo(?, 'main') LIMIT 1"
    return bool(cursor.execute(query, (table,)).fetchall())


def _is_without_rowid(cursor: apsw.Cursor, table: str) -> bool:
    """Tell whether its rows are in the index of its key (sqlite.org/pragma.html, index_info)."""
    query = "SELECT 1 FROM pragma_index_info(?, 'main') LIMIT 1"
    return bool(cursor.execute(query, (table,)).fetchall())


def _end(connection: apsw.Connection, table: str, *, without_rowid: bool | None) -> int:
    if without_rowid is None:
        return UNREADABLE
    columns = {name.lower() for name in columns_of(connection, table)}
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
    except (apsw.CorruptError, *UNJUDGED):  # where it needs what SQLite lacks, or has no room for
        return UNREADABLE


def _content(connection: apsw.Connection, rows: dict[str, int]) -> dict[str, int] | None:
    """Count what a person would miss; where all rows of a table do, they are counted already."""
    found = {}
    for one in counted_in(rows):
        found[one.word] = rows.get(one.table, 0)
        if found[one.word] > 0 and one.deleted in columns_of(connection, one.table):
            found[one.word] = _or_unreadable(connection, one.query((one.deleted,)))
    return found or None


def _logins(connection: apsw.Connection, rows: dict[str, int]) -> int | None:
    """Count the logins of people that stand; None where there is no table of them."""
    if rows.get(LOGINS_TABLE, 0) <= 0:
        return rows.get(LOGINS_TABLE)
    columns = columns_of(connection, LOGINS_TABLE)
    return _or_unreadable(connection, standing_logins_query(columns))


def columns_of(connection: apsw.Connection, table: str) -> set[str]:
    """Name the columns of a table; what of a name is not UTF-8 is replaced."""
    cursor = connection.cursor()
    query = "SELECT CAST(name AS BLOB) FROM pragma_table_xinfo(?, 'main')"
    names: Any = cursor.execute(query, (table,)).fetchall()
    encoding = _encoding(cursor)
    return {name.decode(encoding, "replace") for (name,) in names}


def read_ledger(connection: apsw.Connection) -> Ledger | None:
    """Read which migrations a database has seen, the newest of too many.

    None where it is not T3's, or can't be read. Raises apsw.Error of any other trouble.
    """
    cursor = connection.cursor()
    is_table = "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?"
    if not cursor.execute(is_table, (LEDGER_TABLE,)).fetchall():
        return None  # a view would have to be looked into, which might take for ever
    if not columns_of(connection, LEDGER_TABLE) >= {*LEDGER_COLUMNS}:
        return None
    number, name = LEDGER_COLUMNS
    newest = f"SELECT {{}} FROM main.{LEDGER_TABLE} ORDER BY {number} DESC LIMIT {MOST_MIGRATIONS}"
    try:
        try:
            rows: Any = cursor.execute(newest.format(f"{number}, {name}")).fetchall()
        except UnicodeDecodeError:
            bare: Any = cursor.execute(newest.format(f"{number}, CAST({name} AS BLOB)")).fetchall()
            encoding = _encoding(cursor)
            rows = [(one, (raw or b"").decode(encoding, "replace")) for one, raw in bare]
        return make_ledger(rows[::-1])
    except (apsw.CorruptError, *UNJUDGED):
        return None


def _level(connection: apsw.Connection, tables: list[str]) -> int | None:
    if LEDGER_TABLE not in tables or LEDGER_COLUMNS[0] not in columns_of(connection, LEDGER_TABLE):
        return None
    with contextlib.suppress(apsw.CorruptError, *UNJUDGED, UnicodeDecodeError):
        [(level,)] = (
            connection.cursor()
            .execute(f"SELECT max({LEDGER_COLUMNS[0]}) FROM main.{LEDGER_TABLE}")
            .fetchall()
        )
        return level if isinstance(level, int) else None
    return None


def _schema(connection: apsw.Connection) -> str:
    columns = ("type", "name", "tbl_name", "sql")
    query = "SELECT {} FROM sqlite_schema ORDER BY type, name"
    try:
        return _digest(connection, query.format(", ".join(columns)))
    except UnicodeDecodeError:
        bare = ", ".join(f"CAST({column} AS BLOB)" for column in columns)
        return _digest(connection, query.format(bare))


def _digest(connection: apsw.Connection, query: str) -> str:
    digest = sha256()
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
