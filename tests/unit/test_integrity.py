"""Proving a file: what one integrity_check finds, the shares find together, and each alone finds
less."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from t3_backup.errors import SourceError
from t3_backup.worker.child.integrity import check_integrity
from t3_backup.worker.child.vfs import Destination, register_vfs
from t3_backup.worker.operations.proof import Proven

PAGE = 4096


def problems(path: Path, shares: int) -> list[tuple[str, ...]]:
    """What each share finds; one share is the whole integrity_check."""
    return [proven.problems for proven in prove(path, shares)]


def prove(path: Path, shares: int) -> list[Proven]:
    register_vfs()
    fd = os.open(path, os.O_RDONLY)
    try:
        with Destination(fd) as destination:
            return [
                check_integrity(destination, share=share, shares=shares) for share in range(shares)
            ]
    finally:
        os.close(fd)


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """A T3 database of 4 MiB to be harmed, not in WAL mode."""
    path = tmp_path / "copy.sqlite"
    shutil.copyfile(small, path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=delete")
    return path


@pytest.mark.parametrize("shares", [1, 2, 3])
def test_a_sound_file_proves(copy: Path, shares: int) -> None:
    assert problems(copy, shares) == [()] * shares


def an_index_without_its_newest_entries(path: Path) -> None:
    """A row that its index doesn't know: only the look at each entry finds it, not the look at the
    structure."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema=on")
        [(sql,)] = database.execute(
            "SELECT sql FROM sqlite_schema WHERE name = 'idx_orch_events_command_id'"
        ).fetchall()
        database.execute("UPDATE sqlite_schema SET type='table', sql='CREATE TABLE idx_orch_events_command_id(a)', tbl_name=name"
                         " WHERE name = 'idx_orch_events_command_id'")  # fmt: skip
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE orchestration_events SET command_id = 'moved' WHERE sequence = 3")
        database.execute("PRAGMA writable_schema=on")
        database.execute(
            "UPDATE sqlite_schema SET type='index', tbl_name='orchestration_events', sql=? WHERE "
            "name = 'idx_orch_events_command_id'",
            (sql,),
        )


def a_page_that_nobody_knows(path: Path) -> None:
    """One page more than the header's count of pages needs: only the look at the whole file finds
    it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE forgotten(a)")
        database.execute("PRAGMA writable_schema=on")
        database.execute("DELETE FROM sqlite_schema WHERE name = 'forgotten'")


def a_column_that_must_not_be_null(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema=on")
        database.execute("UPDATE sqlite_schema SET sql = replace(sql, 'causation_event_id TEXT', 'causation_event_id TEXT NOT NULL')"
                         " WHERE name = 'orchestration_events'")  # fmt: skip
        database.execute("PRAGMA writable_schema=off")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute("SELECT count(*) FROM orchestration_events").fetchone()[0] > 0


@pytest.mark.parametrize(
    "harm",
    [an_index_without_its_newest_entries, a_page_that_nobody_knows, a_column_that_must_not_be_null],
)
def test_the_shares_together_find_what_the_whole_finds(copy: Path, harm) -> None:
    """Row 12."""
    harm(copy)
    [whole] = problems(copy, 1)
    assert whole
    for shares in (2, 3):
        found = problems(copy, shares)
        assert any(found)
        assert {line for share in found for line in share} >= set(whole[:1])


def test_rows_without_a_parent_are_found(copy: Path) -> None:
    with closing(sqlite3.connect(copy, isolation_level=None)) as database:
        database.executescript(
            "CREATE TABLE child(p REFERENCES projection_threads(thread_id)); "
            "INSERT INTO child VALUES ('no such');"
        )
    for shares in (1, 2):
        found = prove(copy, shares)
        assert found[0].orphans == "foreign_key_check: rows without a parent in child"
        assert not any(proven.orphans for proven in found[1:])
        assert not any(proven.problems for proven in found), "the rows are what the source has"


def test_where_the_whole_finds_damage_the_shares_do_too(copy: Path) -> None:
    """Row 12: 120 files with harmed pages, seeded."""
    sound = copy.read_bytes()
    pages = len(sound) // PAGE
    damaged = 0
    for seed in range(120):
        chance = random.Random(seed)
        content = bytearray(sound)
        at = chance.randrange(1, pages) * PAGE
        for _ in range(chance.choice((1, 8, 400))):
            content[at + chance.randrange(PAGE if seed % 2 else 60)] = chance.randrange(256)
        copy.write_bytes(content)
        try:
            [whole] = problems(copy, 1)
        except SourceError:
            with pytest.raises(SourceError):
                problems(copy, 2)
            continue
        assert bool(whole) == any(problems(copy, 2)), f"seed {seed}: {whole}"
        damaged += bool(whole)
    assert damaged > 40
