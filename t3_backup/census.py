"""What a database holds, small enough to compare: schema, T3's migration level, and where each table ends.

A census of the source is taken inside the pin and must equal the census of the copy: `integrity_check` is content
with an empty database, with another one, and with one that lost its tail. The same census is in the manifest, so that
a snapshot can be proven again.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import apsw

from t3_backup.t3.ledger import LEDGER_TABLE

# Where SQLite cannot read what is asked for: the database is damaged, and the checks will say where.
_UNREADABLE = -1

# Every name by which SQLite gives a table's rowid, as long as no column has taken it (sqlite.org/rowidtable.html).
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


@dataclass(frozen=True)
class Census:
    """What is in a database at one moment."""

    page_size: int  # bytes
    page_count: int
    user_version: int
    application_id: int
    schema_sha256: str  # over the SQL of every object, in the order of their names
    t3_level: int | None  # the newest migration; None: not a T3 database
    ends: dict[str, int]  # table -> greatest rowid, or the count of rows where there is none; -1: unreadable
    rows: dict[str, int] | None = None  # table -> count of rows; -1: unreadable; None: not counted

    @property
    def total_rows(self) -> int:
        """Rows of all tables; 0 where they were not counted."""
        return sum(count for count in (self.rows or {}).values() if count != _UNREADABLE)

    def as_json(self) -> dict[str, Any]:
        """For the manifest and for the pipe."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> Census:
        """The inverse of `as_json`, from an untrusted value. Raises ValueError."""
        if not isinstance(value, dict) or set(value) != set(Census.__dataclass_fields__):
            raise ValueError("a census has other fields")
        whole = ("page_size", "page_count", "user_version", "application_id")
        level = value["t3_level"]
        tables = [value["ends"]] + ([value["rows"]] if value["rows"] is not None else [])
        if (
            any(not _is_whole(value[name]) for name in whole)
            or type(value["schema_sha256"]) is not str
            or not (level is None or _is_whole(level))
            or any(type(t) is not dict or not all(_is_whole(n) for n in t.values()) for t in tables)
        ):
            raise ValueError("a census has fields of another type")
        return Census(**value)

    def differences(self, other: Census) -> list[str]:
        """What is not the same in `other`, in words; row counts only where both have them."""
        mine, theirs = asdict(self), asdict(other)
        ignored = {"ends", "rows"}
        found = [f"{k} {mine[k]} against {theirs[k]}" for k in mine if k not in ignored and mine[k] != theirs[k]]
        pairs = [("end of", self.ends, other.ends)]
        if self.rows is not None and other.rows is not None:
            pairs.append(("rows of", self.rows, other.rows))
        for what, left, right in pairs:
            found += [
                f"{what} {table} {left.get(table)} against {right.get(table)}"
                for table in sorted(left.keys() | right.keys())
                if left.get(table) != right.get(table)
            ]
        return found


def _is_whole(value: Any) -> bool:
    """Whether it is a number that SQLite could have given; a longer one can be neither printed nor compared with a float."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def take(connection: apsw.Connection, *, count_rows: bool) -> Census:
    """The census of `connection`'s main database, in whatever transaction is open.

    Without `count_rows` it costs a few pages a table. What damage makes unreadable is said to be so; any other trouble
    raises apsw.Error.
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


def _tables(connection: apsw.Connection) -> dict[str, bool]:
    """The ordinary tables, and whether each is WITHOUT ROWID. Virtual ones hold nothing of their own."""
    names = {name for (name,) in connection.cursor().execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    rows = connection.cursor().execute("PRAGMA main.table_list").fetchall()
    return {str(row[1]): bool(row[4]) for row in rows if row[1] in names and row[2] in ("table", "shadow")}


def _end(connection: apsw.Connection, table: str, *, without_rowid: bool) -> int:
    columns = {str(row[1]).lower() for row in connection.cursor().execute(f"PRAGMA main.table_xinfo({quoted(table)})")}
    rowid = next((name for name in _ROWID_NAMES if name not in columns), None)
    if without_rowid or rowid is None:
        return _count(connection, table)
    return _or_unreadable(connection, f"SELECT ifnull(max({rowid}), 0) FROM main.{quoted(table)}")


def _count(connection: apsw.Connection, table: str) -> int:
    return _or_unreadable(connection, f"SELECT count(*) FROM main.{quoted(table)}")


def _or_unreadable(connection: apsw.Connection, query: str) -> int:
    try:
        return _one(connection, query)
    except apsw.CorruptError:
        return _UNREADABLE


def _level(connection: apsw.Connection, tables: list[str]) -> int | None:
    if LEDGER_TABLE not in tables:
        return None
    columns = {row[1] for row in connection.cursor().execute(f"PRAGMA main.table_info({LEDGER_TABLE})")}
    if "migration_id" not in columns:
        return None
    with contextlib.suppress(apsw.CorruptError):
        [(level,)] = connection.cursor().execute(f"SELECT max(migration_id) FROM main.{LEDGER_TABLE}").fetchall()
        return level if isinstance(level, int) else None
    return None


def _schema(connection: apsw.Connection) -> str:
    digest = hashlib.sha256()
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
    for row in connection.cursor().execute(query):
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _pragma(connection: apsw.Connection, name: str) -> int:
    return _one(connection, f"PRAGMA main.{name}")


def _one(connection: apsw.Connection, query: str) -> int:
    value: Any
    [(value,)] = connection.cursor().execute(query).fetchall()
    return int(value)


def quoted(name: str) -> str:
    """`name` as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
