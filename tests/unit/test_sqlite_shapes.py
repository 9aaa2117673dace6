"""Databases of every make that SQLite has: what is sound proves, what this SQLite can't judge is
said to be so, and damage is found beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from support.t3_data import REAL, level_of, real_database

from t3_backup.autoupdate.gate.history import read_history
from t3_backup.backup import verdict
from t3_backup.store.census import UNREADABLE
from t3_backup.worker.child import source as sources
from t3_backup.worker.child.connection import prepare
from t3_backup.worker.child.copy import copy_database
from t3_backup.worker.child.integrity import check_integrity
from t3_backup.worker.child.pinned_read import Budget
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.vfs import Destination, register_vfs
from t3_backup.worker.operations.proof import Proven
from t3_backup.worker.proof import _merge_proofs

Make = Callable[[sqlite3.Connection], object]
_TABLE = "CREATE TABLE ev(id INTEGER PRIMARY KEY, p TEXT);"
_ROWS = """INSERT INTO ev(p) VALUES ('{"type":"a"}'), ('{"type":"b"}'), ('{"type":null}');"""


def sql(text: str) -> Make:
    return lambda database: database.executescript(text)


def edited(text: str, name: str, old: str, new: str) -> Make:
    """A schema of another SQLite: what this one has made, with its SQL changed afterwards."""

    def make(database: sqlite3.Connection) -> None:
        database.executescript(f"{text} PRAGMA writable_schema=on;")
        changed = "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE name = ? AND sql LIKE ?"
        assert database.execute(changed, (old, new, name, f"%{old}%")).rowcount == 1

    return make


def utf16(kind: str) -> Make:
    return sql(
        f'PRAGMA encoding=\'{kind}\'; CREATE TABLE "ü ñ"("ß" TEXT); CREATE INDEX i ON "ü ñ"("ß");'
        "INSERT INTO \"ü ñ\" VALUES ('日本'), ('🙂');"
    )


def pages_of(size: int) -> Make:
    return sql(f"PRAGMA page_size={size}; {_TABLE} {_ROWS * 50}")


SOUND = {
    "index over JSON": sql(f"{_TABLE} CREATE INDEX i ON ev(json_extract(p, '$.type')); {_ROWS}"),
    "partial index over JSON": sql(
        f"{_TABLE} CREATE INDEX i ON ev(id) WHERE json_valid(p); {_ROWS}"
    ),
    "generated": sql(
        "CREATE TABLE ev(id INTEGER PRIMARY KEY, p TEXT, t TEXT AS (p ->> 'type') VIRTUAL,"
        f" s TEXT AS (json_extract(p, '$.type')) STORED); CREATE INDEX i ON ev(t, s); {_ROWS}"
    ),
    "CHECK": sql(f"CREATE TABLE ev(id INTEGER PRIMARY KEY, p TEXT CHECK (json_valid(p))); {_ROWS}"),
    "default": sql("CREATE TABLE ev(a, p DEFAULT (json_array(1))); INSERT INTO ev(a) VALUES (1);"),
    "view": sql(f"{_TABLE} CREATE VIEW v AS SELECT json_extract(p, '$.type') FROM ev; {_ROWS}"),
    "broken view": sql(f"{_TABLE} CREATE VIEW v AS SELECT * FROM nowhere;"),
    "views that multiply": sql(
        f"{_TABLE} CREATE VIEW v0 AS SELECT id FROM ev;"
        + "".join(
            f"CREATE VIEW v{n + 1} AS SELECT id FROM v{n} UNION ALL SELECT id FROM v{n};"
            for n in range(40)
        )
    ),
    "view of a virtual table": sql(
        f"{_TABLE} CREATE VIEW v AS SELECT * FROM pragma_table_info('ev');"
    ),
    "trigger": sql(
        f"{_TABLE} CREATE TABLE log(a); CREATE TRIGGER t AFTER INSERT ON ev BEGIN "
        f"INSERT INTO log VALUES (json_extract(new.p, '$.type')); END; {_ROWS}"
    ),
    "FTS5": sql(
        "CREATE VIRTUAL TABLE f USING fts5(t, tokenize='trigram'); INSERT INTO f VALUES ('grüße');"
    ),
    "R*Tree": sql("CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r VALUES (1, 2, 3);"),
    "STRICT": sql(
        "CREATE TABLE s(a INT, b TEXT, c ANY) STRICT; INSERT INTO s VALUES (1, 'x', x'00ff');"
    ),
    "WITHOUT ROWID": sql(
        "CREATE TABLE k(a TEXT PRIMARY KEY, b INT) WITHOUT ROWID, STRICT; INSERT INTO k VALUES ('a', 1);"
    ),
    "no parent table": sql(
        "CREATE TABLE kid(x REFERENCES gone(id)); INSERT INTO kid VALUES (NULL);"
    ),
    "names": sql(
        'CREATE TABLE "a""b;--"(x); CREATE TABLE "0"(x); CREATE TABLE "5"(rowid, oid, _rowid_);'
        'INSERT INTO "5" VALUES (1, 2, 3); CREATE TABLE "two\nlines"(x); CREATE TABLE "🙂"(y);'
    ),
    "auto_vacuum": sql(f"PRAGMA auto_vacuum=full; {_TABLE} {_ROWS}"),
    "a module that is gone": edited(
        "CREATE VIRTUAL TABLE v USING fts5(t); INSERT INTO v VALUES ('x');", "v", "fts5", "vec9"
    ),
    "UTF-16le": utf16("UTF-16le"),
    "UTF-16be": utf16("UTF-16be"),
    **{f"pages of {1 << power}": pages_of(1 << power) for power in range(9, 17)},
}


def unknown_collation(database: sqlite3.Connection) -> None:
    database.create_collation("people", lambda one, other: (one > other) - (one < other))
    database.executescript(
        "CREATE TABLE names(n TEXT COLLATE people); CREATE INDEX i ON names(n);"
        "INSERT INTO names VALUES ('b'), ('a'), ('c');"
    )


def unknown_collation_of_a_key(database: sqlite3.Connection) -> None:
    database.create_collation("people", lambda one, other: (other > one) - (other < one))
    database.executescript(
        "CREATE TABLE names(n TEXT COLLATE people PRIMARY KEY) WITHOUT ROWID;"
        "INSERT INTO names VALUES ('b'), ('a'), ('c');"
    )


def unknown_function(database: sqlite3.Connection) -> None:
    database.create_function("mine", 1, lambda value: value, deterministic=True)
    database.executescript(f"{_TABLE} CREATE INDEX i ON ev(mine(p)); {_ROWS}")


def a_name_that_is_not_utf8(database: sqlite3.Connection) -> None:
    database.executescript(f"{_TABLE} {_ROWS} CREATE TABLE bad(x); PRAGMA writable_schema=on;")
    name, statement = b"b\xffd", b"CREATE TABLE b\xffd(x)"
    database.execute(
        "UPDATE sqlite_schema SET name = CAST(?1 AS TEXT), tbl_name = CAST(?1 AS TEXT),"
        " sql = CAST(?2 AS TEXT) WHERE name = 'bad'",
        (name, statement),
    )


def a_nul_in_indexed_json(database: sqlite3.Connection) -> None:
    r"""An index as a SQLite fills it to which a text in JSON doesn't end at a \u0000, or where this
    one doesn't, as the others do."""
    with closing(apsw.Connection(":memory:")) as judge:
        picked = f"SELECT hex(json_extract('{NUL}', '$.a'))"
        [(of_this_one,)] = judge.cursor().execute(picked).fetchall()
    other = "'a'" if of_this_one == "610062" else "'a' || char(0) || 'b'"
    database.executescript(f"{_TABLE} CREATE INDEX i ON ev({other} || substr('', id));")
    database.execute("INSERT INTO ev(p) VALUES (?)", (NUL,))
    database.executescript(
        "PRAGMA writable_schema=on; UPDATE sqlite_schema SET"
        " sql = 'CREATE INDEX i ON ev(json_extract(p, ''$.a''))' WHERE name = 'i';"
    )


NUL = '{"a":"a\\u0000b"}'


def fts(options: str) -> str:
    return f"CREATE VIRTUAL TABLE v USING fts5(t, {options}); {_TABLE} {_ROWS}"


UNJUDGED = {
    "collation": (unknown_collation, "no such collation sequence: people"),
    "collation of a key": (unknown_collation_of_a_key, "no such collation sequence: people"),
    "function": (unknown_function, "unknown function: mine()"),
    "view of newer SQL": (
        edited(f"{_TABLE} {_ROWS} CREATE VIEW v AS SELECT group_concat(p, ',') FROM ev;", "v", "',')", "',' frobnicate by id)"),
        'near "frobnicate"',
    ),
    "trigger of newer SQL": (
        edited(f"{_TABLE} CREATE TRIGGER t AFTER INSERT ON ev BEGIN SELECT 1; END; {_ROWS}", "t", "SELECT 1", "SELECT 1 FROBNICATE BY id"),
        'near "BY"',
    ),
    "table of newer SQL": (
        edited(f"{_TABLE} {_ROWS} CREATE TABLE n(a, b); INSERT INTO n VALUES (1, 2);", "n", "b", "b FROB (1 2)"),
        "syntax error",
    ),
    "table option": (
        edited(f"{_TABLE} {_ROWS} CREATE TABLE n(a INT) STRICT;", "n", "STRICT", "FROB"),
        "unknown table option: FROB",
    ),
    "FTS5 option": (edited(fts("content=''"), "v", "content=''", "content='', frobnicate=1"), "unrecognized option"),
    "tokenizer": (edited(fts("tokenize='unicode61'"), "v", "unicode61", "icu9"), "no such tokenizer: icu9"),
    "foreign key": (
        sql("CREATE TABLE par(a, b); CREATE TABLE kid(x REFERENCES par(a)); INSERT INTO kid VALUES (1);"),
        'foreign key mismatch - "kid" referencing "par"',
    ),
    "a value that is too big": (
        edited(f"{_TABLE} CREATE INDEX i ON ev(length(p)); {_ROWS}", "i", "length(p)", "length(zeroblob(2000000000))"),
        "string or blob too big",
    ),
    "view of newer SQL, with odd characters": (
        edited(f"{_TABLE} CREATE VIEW v AS SELECT 1; {_ROWS}", "v", "1", "1 /* \u200b\xa0\u2060 */ FROBNICATE BY id"),
        'near "BY"',
    ),
    "a name that is not UTF-8": (a_name_that_is_not_utf8, "is not UTF-8"),
    "a NUL in indexed JSON": (a_nul_in_indexed_json, "a NUL in JSON"),
}  # fmt: skip


def made(path: Path, make: Make) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        make(database)
    return path


def _version() -> tuple[int, ...]:
    return tuple(map(int, apsw.sqlitelibversion().split(".")))


def prove(path: Path, shares: int = 1) -> Proven:
    """What all shares together come to."""
    register_vfs()
    fd = os.open(path, os.O_RDONLY)
    try:
        with Destination(fd) as destination:
            return _merge_proofs(
                [check_integrity(destination, share=n, shares=shares) for n in range(shares)]
            )
    finally:
        os.close(fd)


def copied(path: Path, to: Path) -> None:
    """A copy as a worker makes it of a live database, and the same by every byte but the mode's."""
    register_vfs()
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    fd = os.open(to, os.O_RDWR | os.O_CREAT)
    try:
        source = LiveDatabase(folder, str(path), path.stat().st_size)
        with Destination(fd) as destination:
            done = copy_database(source, destination, Budget(source, 30, 1 << 20))
        assert done.method == "online"
        assert verdict.find_disagreements(done, prove(to).census) == []
    finally:
        os.close(fd)
        os.close(folder)
    one, other = path.read_bytes(), to.read_bytes()
    changing = {18, 19, *range(24, 28), *range(40, 44), *range(92, 100)}  # mode, counters
    assert len(one) == len(other)
    assert {at for at in range(100) if one[at] != other[at]} <= changing
    assert one[100:] == other[100:]


@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize("make", SOUND.values(), ids=SOUND)
def test_what_is_sound_proves(tmp_path: Path, make: Make, shares: int) -> None:
    found = prove(made(tmp_path / "one.sqlite", make), shares)
    assert (found.problems, found.unjudged, found.orphans) == ((), "", "")
    assert UNREADABLE not in found.census.ends.values()
    assert UNREADABLE not in (found.census.rows or {}).values()


@pytest.mark.parametrize("make", [make for make, _ in UNJUDGED.values()] + [*SOUND.values()], ids=[*UNJUDGED, *SOUND])  # fmt: skip
def test_every_make_is_copied_and_the_copy_agrees(tmp_path: Path, make: Make) -> None:
    path = made(tmp_path / "one.sqlite", make)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema=on")
        database.execute("PRAGMA journal_mode=wal")
    copied(path, tmp_path / "copy.sqlite")


@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize(("make", "why"), UNJUDGED.values(), ids=UNJUDGED)
def test_what_this_sqlite_cannot_judge_is_said_and_is_no_damage(
    tmp_path: Path, make: Make, why: str, shares: int
) -> None:
    if "tokenizer" in why and _version() >= (3, 47):
        pytest.skip("this SQLite asks for a tokenizer once it has text to take apart")
    found = prove(made(tmp_path / "one.sqlite", make), shares)
    assert found.problems == ()
    assert found.unjudged.startswith(f"SQLite {apsw.sqlitelibversion()} can't judge it (")
    assert why in found.unjudged
    judged = verdict.judge_copy((), found.census, "online", None, unjudged=found.unjudged)
    assert (judged.verdict, judged.reasons) == ("unproven", (found.unjudged,))


@pytest.mark.parametrize("make", [make for make, _ in UNJUDGED.values()], ids=UNJUDGED)
def test_no_version_is_turned_away_for_what_this_sqlite_cannot_judge(
    tmp_path: Path, make: Make
) -> None:
    """Those of T3 from 0.1.3 on have full-text search, in a form that Debian's SQLite may lack."""
    read_history(made(tmp_path / "one.sqlite", make))


@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize("kind", ["collation", "function", "view of newer SQL", "FTS5 option"])
@pytest.mark.parametrize("harm", ["an entry", "a page"])
def test_damage_is_found_beside_what_cannot_be_judged(
    tmp_path: Path, kind: str, harm: str, shares: int
) -> None:
    """Row 12."""

    def make(database: sqlite3.Connection) -> None:
        database.executescript(
            "CREATE TABLE other(a); CREATE INDEX other_a ON other(a); INSERT INTO other VALUES (1);"
            "CREATE TABLE lost(a);"
        )
        UNJUDGED[kind][0](database)
        database.execute("PRAGMA writable_schema=on")
        if harm == "an entry":  # the row's index is taken for another column's
            changed = "UPDATE sqlite_schema SET sql = 'CREATE INDEX other_a ON other(a+1)' WHERE name = 'other_a'"
        else:
            changed = "DELETE FROM sqlite_schema WHERE name = 'lost'"
        database.execute(changed)

    found = prove(made(tmp_path / "one.sqlite", make), shares)
    what = "missing from index other_a" if harm == "an entry" else "never used"
    assert any(what in problem for problem in found.problems), found
    judged = verdict.judge_copy(
        found.problems, found.census, "online", None, unjudged=found.unjudged
    )
    assert judged.verdict == "damaged"


def test_a_schema_that_a_flipped_bit_broke_is_damage(tmp_path: Path) -> None:
    """Row 12."""
    make = edited(f"{_TABLE} CREATE VIEW v AS SELECT 1;", "v", "SELECT 1", "SEL\x05CT 1")
    path = made(tmp_path / "one.sqlite", make)
    with pytest.raises(Exception, match="malformed database schema"):
        prove(path)


def test_rows_without_a_parent_are_no_damage(tmp_path: Path) -> None:
    found = prove(
        made(
            tmp_path / "one.sqlite",
            sql(
                "CREATE TABLE par(id INTEGER PRIMARY KEY); CREATE TABLE kid(x REFERENCES par(id));"
                "INSERT INTO kid VALUES (7);"
            ),
        )
    )
    assert found.problems == ()
    judged = verdict.judge_copy((), found.census, "online", None, orphans=found.orphans)
    assert judged.verdict == "suspect"
    assert judged.reasons[0] == "foreign_key_check: rows without a parent in kid"


def test_of_many_tables_with_rows_without_a_parent_three_are_named(tmp_path: Path) -> None:
    kids = "".join(
        f"CREATE TABLE kid{n:02}(x REFERENCES par(id)); INSERT INTO kid{n:02} VALUES (7), (8);"
        for n in range(30)
    )
    make = sql(f"CREATE TABLE par(id INTEGER PRIMARY KEY); {kids}")
    found = prove(made(tmp_path / "one.sqlite", make))
    which = "kid00, kid01, kid02, and 27 more"
    assert found.orphans == f"foreign_key_check: rows without a parent in {which}"


def test_which_sqlite_would_do_is_said_where_it_is_known(tmp_path: Path) -> None:
    if _version() >= (3, 43):
        pytest.skip("this SQLite knows the option")
    make = edited(fts("content=''"), "v", "content=''", "content='', contentless_delete=1")
    found = prove(made(tmp_path / "one.sqlite", make))
    assert "SQLite 3.43 or newer would do" in found.unjudged


def test_only_a_schema_that_needs_it_is_trusted(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain.sqlite", SOUND["view"])
    indexed = made(tmp_path / "indexed.sqlite", SOUND["index over JSON"])
    trusted = []
    for path in (plain, indexed):
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            assert prepare(connection, "PRAGMA query_only=1") == ""
            trusted += connection.cursor().execute("PRAGMA trusted_schema").fetchall()
    assert trusted[0] == (0,)
    if apsw.sqlitelibversion() == "3.40.1":
        assert trusted[1] == (1,)


def test_a_newer_format_of_the_file_is_told_apart_from_no_database(tmp_path: Path) -> None:
    path = made(tmp_path / "one.sqlite", sql(_TABLE))
    content = bytearray(path.read_bytes())
    content[18:20] = b"\x03\x03"
    path.write_bytes(content)
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    source = LiveDatabase(folder, str(path), path.stat().st_size)
    fd = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    try:
        with (
            Destination(fd) as destination,
            pytest.raises(
                sources.SourceError, match=r"newer format \(read version 3\) than SQLite"
            ),
        ):
            copy_database(source, destination, Budget(source, 5, 1 << 20))
    finally:
        os.close(fd)
        os.close(folder)


def test_a_file_that_is_only_written_by_a_newer_format_is_copied(tmp_path: Path) -> None:
    path = made(tmp_path / "one.sqlite", sql(f"{_TABLE} {_ROWS}"))
    content = bytearray(path.read_bytes())
    content[18] = 3
    path.write_bytes(content)
    copied(path, tmp_path / "copy.sqlite")
    assert prove(tmp_path / "copy.sqlite").problems == ()


@pytest.mark.parametrize("name", REAL)
def test_databases_of_real_servers_are_copied_and_prove(tmp_path: Path, name: str) -> None:
    path = real_database(name, tmp_path / "one.sqlite")
    copied(path, tmp_path / "copy.sqlite")
    found = prove(tmp_path / "copy.sqlite")
    assert (found.problems, found.unjudged, found.orphans) == ((), "", "")
    assert found.census.t3_level == level_of(name)


# What a schema may call once it is trusted, and else not: functions that SQLite doesn't know to be
# harmless (with the number of their arguments), and modules of virtual tables. None of them writes,
# reads a file, or reaches beyond the database. A version that is not here is to be looked at.
LET_IN: dict[str, tuple[set[str], set[str]]] = {
    "3.40.1": (
        {
            *("->", "->>", "json", "json_array", "json_array_length", "json_extract"),
            *("json_group_array", "json_group_object", "json_insert", "json_object", "json_patch"),
            *("json_quote", "json_remove", "json_replace", "json_set", "json_type", "json_valid"),
            *("bm25", "fts5", "fts5_source_id", "highlight", "match", "matchinfo", "offsets"),
            *("optimize", "snippet", "rtreecheck", "rtreedepth", "rtreenode"),
        },
        {
            *("dbstat", "fts3", "fts3tokenize", "fts4", "fts4aux", "fts5", "fts5vocab"),
            *("json_each", "json_tree", "rtree", "rtree_i32", "sqlite_stmt"),
        },
    ),
    "3.46.1": (
        {
            *("bm25", "fts5", "fts5_source_id", "highlight", "match", "matchinfo", "offsets"),
            *("optimize", "snippet", "rtreecheck", "rtreedepth", "rtreenode"),
        },
        {
            *("dbstat", "fts3", "fts3tokenize", "fts4", "fts4aux", "fts5", "fts5vocab"),
            *("geopoly", "json_each", "json_tree", "rtree", "rtree_i32", "sqlite_stmt"),
            "sqlite_dbpage",  # a schema may not call it: it is for statements alone
        },
    ),
}


def let_in() -> tuple[set[str], set[str]]:
    with closing(apsw.Connection(":memory:")) as connection:
        cursor = connection.cursor()
        functions = cursor.execute(
            "SELECT DISTINCT name FROM pragma_function_list WHERE NOT flags & ?",
            (_INNOCUOUS | _DIRECTONLY,),
        ).fetchall()
        modules = cursor.execute(
            "SELECT name FROM pragma_module_list WHERE name NOT LIKE 'pragma%'"
        ).fetchall()
        return {str(name) for (name,) in functions}, {str(name) for (name,) in modules}


_INNOCUOUS, _DIRECTONLY = 0x200000, 0x80000


def test_what_trust_lets_in_was_looked_at() -> None:
    version = apsw.sqlitelibversion()
    if version not in LET_IN:
        pytest.skip(f"SQLite {version} is none of Debian's that were looked at")
    functions, modules = let_in()
    assert functions <= LET_IN[version][0]
    assert modules <= LET_IN[version][1]
    if version == "3.40.1":  # as Debian builds it; of another build, less is let in
        assert (functions, modules) == LET_IN[version]
