"""Tell what this SQLite can't judge from what is damaged.

A database may use what this SQLite lacks: a collation or function of its program's own, an option
of a newer FTS5, SQL of a later version. Then a check ends with an error, or with findings that say
nothing of the data. Here it is said which, and which SQLite would do where that is known.
"""

from __future__ import annotations

import re

import apsw

# What a check ends with that this SQLite can't run to its end, for what it lacks, or for memory.
UNJUDGED = (apsw.SQLError, apsw.NoMemError, apsw.TooBigError, MemoryError)

_UNPARSED = re.compile(r"malformed database schema \((.*)\) - (.+)", re.DOTALL)
# what no SQL, of whatever version, comes to: these are about the rows of the schema themselves
_BROKEN_ROWS = ("invalid rootpage", "orphan index")
# Since which SQLite there is what a message speaks of (sqlite.org/changes.html).
_SINCE = (
    ("contentless_unindexed", "3.47"),
    ("contentless_delete", "3.43"),
    ("json_pretty()", "3.46"),
    ("jsonb", "3.45"),
    ("json_error_position()", "3.42"),
    ("concat()", "3.44"),
    ("concat_ws()", "3.44"),
    ("octet_length()", "3.43"),
    ("timediff()", "3.43"),
    ("unhex()", "3.41"),
    ('near "order": syntax error', "3.44"),
)
_TRIGRAM = "3.45"  # knows remove_diacritics
# What a bit that flipped makes of text. Not by what is none: that takes 2 ms to compile.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_MISSING_ENTRY = re.compile(r"row \d+ missing from index (.+)")
_NUL = r"\u0000"  # as JSON writes it


def unparsed_object(connection: apsw.Connection, error: apsw.Error) -> str:
    """Say what in the schema this SQLite can't parse, though it is whole; empty: it is damage.

    SQLite goes on with the rest of the schema from here on. Raises apsw.Error.
    """
    match = _UNPARSED.fullmatch(_message(error))
    if match is None or match[2].startswith(_BROKEN_ROWS):
        return ""
    cursor = connection.cursor()
    cursor.execute("PRAGMA writable_schema=on").fetchall()
    query = "SELECT sql FROM main.sqlite_schema WHERE name = ?"
    try:
        found = cursor.execute(query, (match[1],)).fetchall()
    except UnicodeDecodeError:  # what is no text was never SQL
        return ""
    return match[2] if found and all(_is_sql(sql) for (sql,) in found) else ""


def _is_sql(text: object) -> bool:
    """Tell whether a statement came to the schema as it is, and not by a bit that flipped."""
    return (
        isinstance(text, str)
        and text[:7].upper() == "CREATE "
        and not _CONTROL.search(text)
        and "\N{REPLACEMENT CHARACTER}" not in text
    )


def explain(error: Exception | str, sql: str = "") -> str:
    """Say why it could not be judged, for people, with the SQLite that would do.

    `sql` is the statement that it is about, where the error does not tell.
    """
    if isinstance(error, UnicodeDecodeError):
        return "a name in its schema is not UTF-8"
    if isinstance(error, apsw.NoMemError | MemoryError):
        return "it takes more memory than a check may have"
    why = error if isinstance(error, str) else _message(error)
    since = next((version for what, version in _SINCE if what in why.lower()), "")
    if "tokenizer constructor" in why and "remove_diacritics" in sql and "trigram" in sql:
        since = _TRIGRAM
    return f"{why}: SQLite {since} or newer would do" if since else why


def explains_missing_entries(connection: apsw.Connection, problems: list[str]) -> str:
    """Say which index differs only since SQLite computes its values otherwise now.

    Empty: the problems are others, and damage. To some versions of SQLite a text in JSON ends where
    a NUL is. So an index over such values has other entries. Raises apsw.Error.
    """
    found = [_MISSING_ENTRY.fullmatch(problem) for problem in problems]
    indexes = {match[1] for match in found if match is not None}
    if not indexes or None in found:
        return ""
    try:
        if not all(_has_json_nul(connection, index) for index in indexes):
            return ""
    except UnicodeDecodeError:  # what the index is over can't be named
        return ""
    names = ", ".join(sorted(indexes))
    return f"values with a NUL in JSON, indexed by {names}, differ between versions"


def _has_json_nul(connection: apsw.Connection, index: str) -> bool:
    """Tell whether an index is over JSON in which there is a NUL."""
    query = (
        "SELECT tbl_name, max(instr(lower(sql), 'json') OR instr(sql, '->'))"
        " FROM main.sqlite_schema WHERE tbl_name ="
        " (SELECT tbl_name FROM main.sqlite_schema WHERE type = 'index' AND name = ?)"
    )
    [(table, json)] = connection.cursor().execute(query, (index,)).fetchall()
    if not json:
        return False
    quoted = '"' + str(table).replace('"', '""') + '"'
    columns = connection.cursor().execute(f"PRAGMA main.table_info({quoted})").fetchall()
    nul = " OR ".join(
        'instr("' + str(row[1]).replace('"', '""') + f"\", '{_NUL}')" for row in columns
    )
    select = f"SELECT 1 FROM main.{quoted} NOT INDEXED WHERE {nul} LIMIT 1"  # noqa: S608 - quoted
    return bool(connection.cursor().execute(select).fetchall())


def _message(error: Exception) -> str:
    """Return SQLite's own words, without the name of apsw's class before them."""
    return str(error).removeprefix(f"{type(error).__name__}: ")
