"""A database that is read as it is, under a lease: nobody who opens it waits, and nothing is
believed that was read beside them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from t3_backup.errors import TryLater
from t3_backup.worker.child import copy as copying
from t3_backup.worker.child.copy import copy_database
from t3_backup.worker.child.count import count_rows
from t3_backup.worker.child.leased_read import open_leased
from t3_backup.worker.child.pinned_read import Budget
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.vfs import Destination, register_vfs

_OPEN = "import sys; open(sys.argv[1], 'r+b').close()"
_WAIT_S = 20  # the kernel itself takes the lease away after 45


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LiveDatabase]:
    """A database in WAL mode that nobody has open."""
    path = tmp_path / "state.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(
            "PRAGMA journal_mode=wal; CREATE TABLE a(b); INSERT INTO a VALUES (1);"
        )
    yield from found(path)


def found(path: Path) -> Iterator[LiveDatabase]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield LiveDatabase(folder, str(path), path.stat().st_size)
    finally:
        os.close(folder)


def open_it(source: LiveDatabase) -> None:
    subprocess.run([sys.executable, "-c", _OPEN, source.path], check=True, timeout=_WAIT_S)


def count(source: LiveDatabase) -> object:
    with open_leased(source) as connection:
        assert connection is not None
        return connection.cursor().execute("SELECT count(*) FROM a").fetchall()


def test_it_is_read_as_it_is_and_nothing_is_made_beside_it(source: LiveDatabase) -> None:
    assert count(source) == [(1,)]
    assert os.listdir(os.path.dirname(source.path)) == ["state.sqlite"]


def test_what_is_only_in_its_wal_is_read_and_stays_there(source: LiveDatabase) -> None:
    """Row 7."""
    beside = Path(source.path).parent / "beside"
    beside.mkdir()
    with closing(sqlite3.connect(source.path, isolation_level=None)) as database:
        database.execute("INSERT INTO a VALUES (2)")
        for path in (source.path, f"{source.path}-wal"):
            shutil.copy(path, beside)
    [left] = found(beside / "state.sqlite")
    before = {path.name: path.read_bytes() for path in beside.iterdir()}
    for one in found(beside / "state.sqlite"):
        assert count(one) == [(2,)]
    assert {path.name: path.read_bytes() for path in beside.iterdir()} == before
    assert left.name == "state.sqlite"


def test_whoever_opens_it_is_not_kept_waiting_and_what_was_read_is_worth_nothing(
    source: LiveDatabase,
) -> None:
    """Row 59."""
    with (
        pytest.raises(TryLater, match="was opened by another process while it was read"),
        open_leased(source) as connection,
    ):
        assert connection is not None
        open_it(source)


def test_a_copy_that_is_interrupted_so_ends_at_once(
    source: LiveDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 59: as that of a home that is full, into which somebody comes."""
    register_vfs()
    os.symlink("nowhere", f"{source.path}-shm")  # which SQLite doesn't follow
    pinned = copying.copy_pin

    def interrupted(*given: object) -> object:
        open_it(source)
        return pinned(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "copy_pin", interrupted)
    fd = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with Destination(fd) as destination:
            with pytest.raises(TryLater, match="try again later"):
                copy_database(source, destination, Budget(source, 30, 1 << 20))
            monkeypatch.undo()
            destination.reset()
            done = copy_database(source, destination, Budget(source, 30, 1 << 20))
        assert (done.method, os.fstat(fd).st_size) == ("online", source.size)
    finally:
        os.close(fd)


def test_what_a_restore_tells_of_the_live_one_is_read_so_too(source: LiveDatabase) -> None:
    """Row 59."""
    os.symlink("nowhere", f"{source.path}-shm")  # which SQLite doesn't follow
    assert count_rows(source).rows == {"a": 1}


def test_what_somebody_has_open_for_writing_is_not_read_so(source: LiveDatabase) -> None:
    with open(source.path, "r+b"), open_leased(source) as connection:
        assert connection is None


def test_what_has_a_journal_to_be_rolled_back_is_not_read_so(source: LiveDatabase) -> None:
    Path(f"{source.path}-journal").write_bytes(bytes.fromhex("d9d505f920a163d7"))
    with open_leased(source) as connection:
        assert connection is None
