"""Grow a T3-shaped database of any size from a real one.

`grow` makes a new file as a stopped T3 server leaves it: WAL in the header, no -wal, no -shm.
`add_day` adds a day's work to one. Neither is durable (nothing is synced: the data is made up), and
neither may be used on a live database.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from demo.turns import INSERTS, Author, Rows, Thread, stamp

DATA = Path(__file__).parent / "data"
PAGE_BYTES = 4096
_CACHE_LIMIT_BYTES = 3 << 30
_TURN_BYTES = 65_000  # about what one turn takes, indexes included
_RECENT_THREADS = 40  # how many threads a day of work touches again


def parse_size(text: str) -> int:
    """Read `1200M`, `60k`, `4G` or a plain number as bytes (powers of 1000)."""
    factor = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:].upper())
    return int(text) if factor is None else int(float(text[:-1]) * factor)


def grow(path: Path, size: int, version: str = "0.0.24", seed: int = 1) -> None:
    """Make `path` (must not exist) a database of T3 `version`, of about `size` bytes.

    The same arguments give the same bytes. Raises FileExistsError, or FileNotFoundError for a
    version without data.
    """
    if path.exists():
        raise FileExistsError(path)
    shutil.copyfile(DATA / f"state-{version}.sqlite", path)
    grow_further(path, size, seed)


def grow_further(path: Path, size: int, seed: int = 1) -> None:
    """Grow a database of any T3 before V2 to about `size` bytes, where it is."""
    database = _open(path, size)
    try:
        # No journal: a crash while growing spoils a file that nobody has used yet.
        database.execute("PRAGMA journal_mode=OFF")
        author = _author(database, seed, size)
        threads = _threads(database)
        batch = min(100, max(1, size // _TURN_BYTES // 20))
        turns = author.turns(threads, _project(database), batch)
        database.execute("BEGIN")
        while _size(database) < size:
            _insert(database, next(turns))
        _close_books(database, author)
        database.execute("COMMIT")
    finally:
        database.close()
    _as_the_server_leaves_it(path)


def add_day(path: Path, fraction: float = 0.01, seed: int = 2) -> None:
    """Add about `fraction` of the rows, as a day of work does, to recent threads."""
    database = _open(path, path.stat().st_size)
    try:
        present = int(database.execute("SELECT count(*) FROM projection_turns").fetchone()[0])
        wanted = max(1, round(present * fraction))
        author = _author(database, seed, wanted * _TURN_BYTES)
        turns = author.turns(_threads(database, _RECENT_THREADS), _project(database), batch=1)
        for _ in range(wanted):
            database.execute("BEGIN")
            _insert(database, next(turns))
            _close_books(database, author)
            database.execute("COMMIT")
    finally:
        database.close()


def _open(path: Path, size: int) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous=OFF")
    # Random ids touch pages all over the indexes: a cache smaller than those is ten times slower.
    database.execute(f"PRAGMA cache_size=-{min(size, _CACHE_LIMIT_BYTES) // 1024 + 8192}")
    return database


def _author(database: sqlite3.Connection, seed: int, size: int) -> Author:
    sequence = int(database.execute("SELECT max(sequence) FROM orchestration_events").fetchone()[0])
    query = "SELECT max(created_at) FROM projection_thread_messages"
    last = database.execute(query).fetchone()[0]
    began = datetime.fromisoformat(last) if last else datetime(2026, 6, 4, 13, tzinfo=UTC)
    text_bytes = min(24 << 20, max(256 << 10, size // 24))
    # The sequence is part of the seed: else two days with one seed would make the same ids.
    return Author(seed * 1_000_003 + sequence, sequence, began + timedelta(hours=8), text_bytes)


def _threads(database: sqlite3.Connection, limit: int = -1) -> list[Thread]:
    """List the last `limit` threads (-1: all), each with its next version and turn."""
    found = database.execute(
        "SELECT thread_id,"
        " (SELECT coalesce(max(stream_version), -1) + 1 FROM orchestration_events"
        "   WHERE aggregate_kind = 'thread' AND stream_id = thread_id),"
        " (SELECT coalesce(max(checkpoint_turn_count), 0) + 1 FROM projection_turns AS t"
        "   WHERE t.thread_id = projection_threads.thread_id)"
        " FROM projection_threads ORDER BY rowid DESC LIMIT ?",
        (limit,),
    ).fetchall()
    return [Thread(*row) for row in reversed(found)]


def _project(database: sqlite3.Connection) -> str:
    return str(database.execute("SELECT project_id FROM projection_projects LIMIT 1").fetchone()[0])


def _size(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA page_count").fetchone()[0]) * PAGE_BYTES


def _insert(database: sqlite3.Connection, rows: Rows) -> None:
    for table in fields(rows):
        database.executemany(INSERTS[table.name], getattr(rows, table.name))


def _close_books(database: sqlite3.Connection, author: Author) -> None:
    """Let every projector have seen every event, as `demo.writer.moment` expects."""
    database.execute(
        "UPDATE projection_state SET last_applied_sequence = ?, updated_at = ?",
        (author.sequence, stamp(author.now)),
    )


def _as_the_server_leaves_it(path: Path) -> None:
    """Have WAL in the header; closing the last connection removes the sidecars."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        mode = database.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise OSError(f"{path}: journal mode is {mode}, not wal")
    finally:
        database.close()


def main() -> None:
    """`python3 -m demo.grow PATH --size 1200M --version 0.0.24`."""
    about = "Grow a T3-shaped database from a real one."
    parser = argparse.ArgumentParser(prog="demo.grow", description=about)
    parser.add_argument("path", type=Path)
    size = "about so many bytes, e.g. 1200M"
    parser.add_argument("--size", type=parse_size, default=parse_size("60M"), help=size)
    parser.add_argument("--version", default="0.0.24", help="T3 version: 0.0.24 or 0.0.25")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--add-day", action="store_true", help="add one day's work to PATH instead")
    given = parser.parse_args()
    if given.add_day:
        add_day(given.path, seed=given.seed)
    else:
        grow(given.path, given.size, given.version, given.seed)
    print(f"{given.path}: {given.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
