"""Grow real databases of T3 to any size, in their own schema.

V1 gets the turns that `demo.turns` makes up. V2 gets whole threads: each is one of the threads of
`v2-grown-61`, in every table that has rows of it, with new ids and texts. Columns that a schema
doesn't have are left out, and what it does not let be NULL is filled by the type of its column.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from demo.grow import grow_further
from support.t3_data import real_database

Row = dict[str, Any]

_EVENTS = "orchestration_events"
_RECEIPTS = "orchestration_command_receipts"
_THREADS = "orchestration_v2_projection_threads"
_RUNS = "orchestration_v2_projection_runs"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# The ids of rows, and the one word of each text that no other text has.
_OWN = re.compile(rf"({_UUID}|(?<=provider-thread:)\d+|(?<=session:)\d+|needle\d+x\d+x\d+)")
_BATCH = 20  # threads between two looks at the size
_CACHE_KIB = 256 << 10


@dataclass(frozen=True)
class _Model:
    """One thread in all tables: the text of its rows, cut where something is its own."""

    parts: tuple[str, ...]

    def copy(self, random: Random, same: dict[str, str]) -> dict[str, list[Row]]:
        """The rows of another thread, which is the same but for its ids and its texts."""
        known = dict(same)
        parts = list(self.parts)
        for at in range(1, len(parts), 2):
            word = parts[at]
            if word not in known:
                h = f"{random.getrandbits(256):064x}"
                uuid = f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:32]}"
                known[word] = f"needle{h}" if word.startswith("needle") else uuid
            parts[at] = known[word]
        rows: dict[str, list[Row]] = json.loads("".join(parts))
        return rows


def grow(path: Path, size_bytes: int, *, seed: int = 0) -> None:
    """Grow the database at `path`, which nobody has open, to about so many bytes.

    It is as a stopped server leaves it: WAL in the header, no -wal and no -shm. The same file and
    arguments give the same bytes.
    """
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (_THREADS,))
        is_v2 = found.fetchone() is not None
    if not is_v2:
        grow_further(path, size_bytes, seed)
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        # No journal: nobody has used it yet.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("BEGIN")
        _add_threads(database, size_bytes, seed)
        database.execute("COMMIT")
        assert database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)


def _add_threads(database: sqlite3.Connection, size_bytes: int, seed: int) -> None:
    tables = _tables(database)
    [project] = database.execute("SELECT project_id FROM projection_projects LIMIT 1").fetchone()
    models = _models(project)
    same = {word: word for word in _OWN.findall(project)}
    [sequence] = database.execute(f"SELECT coalesce(max(sequence), 0) FROM {_EVENTS}").fetchone()
    random = Random(f"{seed} {sequence}")
    [page_bytes] = database.execute("PRAGMA page_size").fetchone()
    while database.execute("PRAGMA page_count").fetchone()[0] * page_bytes < size_bytes:
        batch: dict[str, list[Row]] = {}
        for _ in range(_BATCH):
            rows = random.choice(models).copy(random, same)
            numbers: dict[int, int] = {}
            for event in rows[_EVENTS]:
                sequence += 1
                numbers[event["sequence"]] = sequence
                event["sequence"] = sequence
            for receipt in rows[_RECEIPTS]:
                receipt["result_sequence"] = numbers[receipt["result_sequence"]]
            for table, more in rows.items():
                batch.setdefault(table, []).extend(more)
        for table, rows_of_table in batch.items():
            if table in tables:
                _insert(database, table, tables[table], rows_of_table)
    database.execute(
        "UPDATE orchestration_v2_projection_metadata SET last_sequence = ?", (sequence,)
    )


def _tables(database: sqlite3.Connection) -> dict[str, Row]:
    """The columns of each table that are written, with what an empty one holds."""
    names = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return {
        table: {
            name: (0 if kind.upper().startswith("INT") else "")
            if notnull and default is None
            else None
            for _, name, kind, notnull, default, _, hidden in database.execute(
                f'PRAGMA table_xinfo("{table}")'
            )
            if not hidden
        }
        for (table,) in names
    }


def _insert(database: sqlite3.Connection, table: str, columns: Row, rows: list[Row]) -> None:
    # What a row doesn't name is left to the default of its column.
    named = [name for name in columns if name in rows[0] or columns[name] is not None]
    values = [[row.get(name, columns[name]) for name in named] for row in rows]
    names, marks = ", ".join(f'"{name}"' for name in named), ", ".join("?" * len(named))
    database.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', values)


def _models(project: str) -> list[_Model]:
    """The threads of `v2-grown-61` in which nothing runs, as threads of that project."""
    with tempfile.TemporaryDirectory() as folder:
        path = real_database("v2-grown-61", Path(folder) / "statev2.sqlite")
        with closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(
                f"SELECT thread_id FROM {_RUNS} GROUP BY thread_id"
                " HAVING min(status) = 'completed' AND max(status) = 'completed'"
            )
            threads = [row[0] for row in found.fetchall()]
            texts = [json.dumps(_rows_of(database, thread)) for thread in threads]
            found = database.execute("SELECT project_id FROM projection_projects")
            projects = "|".join(re.escape(row[0]) for row in found)
    return [_Model(tuple(_OWN.split(re.sub(projects, project, text)))) for text in texts]


def _rows_of(database: sqlite3.Connection, thread: str) -> dict[str, list[Row]]:
    """All rows of a thread, by table."""
    rows: dict[str, list[Row]] = {}
    for table, columns in _tables(database).items():
        key = {_EVENTS: "stream_id", _RECEIPTS: "aggregate_id"}.get(table, "thread_id")
        if key in columns:
            query = f'SELECT * FROM "{table}" WHERE "{key}" = ?'
            found = [dict(row) for row in database.execute(query, (thread,))]
            if found:
                rows[table] = found
    return rows
