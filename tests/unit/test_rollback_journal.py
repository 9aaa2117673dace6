"""A database with a rollback journal that stays: what is done with is told from a writer at work."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from t3_backup.worker.child.copy import copy_database
from t3_backup.worker.child.pinned_read import Budget
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.vfs import Destination, register_vfs
from t3_backup.worker.operations.backup import Copied

LONG_AGO = 1_700_000_000


@pytest.fixture
def server() -> Iterator[sqlite3.Connection]:
    """A server that has the database of the test open."""
    with closing(sqlite3.connect("state.sqlite", isolation_level=None)) as database:
        yield database


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commit(server: sqlite3.Connection, mode: str) -> None:
    """Commit something in that journal mode, long ago."""
    server.executescript(
        f"PRAGMA journal_mode={mode}; CREATE TABLE a(b); INSERT INTO a VALUES (1);"
    )
    for path in Path().iterdir():
        os.utime(path, (LONG_AGO, LONG_AGO))


def found(folder: Path) -> LiveDatabase:
    path = folder / "state.sqlite"
    return LiveDatabase(os.open(folder, os.O_PATH | os.O_DIRECTORY), str(path), path.stat().st_size)


def copied(source: LiveDatabase, to: Path) -> Copied:
    register_vfs()
    fd = os.open(to, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with Destination(fd) as destination:
            return copy_database(source, destination, Budget(source, 30, 1 << 20))
    finally:
        os.close(fd)


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_a_journal_that_is_done_with_is_none(
    folder: Path, server: sqlite3.Connection, mode: str
) -> None:
    commit(server, mode)
    left = folder / "state.sqlite-journal"
    assert (left.exists(), left.exists() and left.stat().st_size > 0) == (
        mode != "delete",
        mode == "persist",
    )
    source = found(folder)
    assert not source.has_journal()
    assert source.is_quiet(1)
    done = copied(source, folder / "copy")
    assert (done.pinned, done.restarts) == (None, 0), "in short steps, which cost nobody anything"


def test_a_writer_shows_in_a_journal_that_stays(folder: Path, server: sqlite3.Connection) -> None:
    commit(server, "persist")
    source = found(folder)
    before = source.journal_state()
    server.execute("BEGIN")
    server.execute("INSERT INTO a VALUES (2)")
    assert source.journal_state() != before
    assert not source.is_quiet(1)
    server.execute("ROLLBACK")


def test_a_journal_with_something_in_it_counts(folder: Path, server: sqlite3.Connection) -> None:
    commit(server, "persist")
    with (folder / "state.sqlite-journal").open("r+b") as file:
        file.write(bytes.fromhex("d9d505f920a163d7"))
    source = found(folder)
    assert source.has_journal()
    assert not source.is_quiet(0)
