"""Real databases of T3, and who works with them in tests: the files are what their names say, and
what grows, writes, compacts and imports does as T3 does."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.processes import until
from support.t3_data import REAL, import_line, is_v2, level_of, real_database
from support.t3_growth import grow

MIB = 1 << 20
V1 = [name for name in REAL if not is_v2(name)]
V2 = [name for name in REAL if is_v2(name)]

MESSAGES = {
    False: "SELECT message_id, thread_id, text FROM projection_thread_messages",
    True: "SELECT message_id, thread_id, json_extract(payload_json, '$.text')"
    " FROM orchestration_v2_projection_messages",
}
THREADS = {
    False: "SELECT thread_id, title FROM projection_threads",
    True: "SELECT thread_id, title FROM orchestration_v2_projection_threads",
}
EVENTS = "SELECT sequence, event_id FROM orchestration_events"


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query finds, read so that SQLite 3.40 trusts an index over an expression."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA trusted_schema=ON")
        return database.execute(query).fetchall()


def assert_sound(path: Path) -> None:
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows(path, "PRAGMA foreign_key_check") == []
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


@contextmanager
def writer(path: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    line = programs.line("write_t3.py", str(path), *words)
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str]) -> dict[str, int]:
    """What a writer counted, once its input has ended."""
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def end_by_itself(process: subprocess.Popen[str]) -> dict[str, int]:
    """What a writer counted, once its time is over."""
    assert process.stdout is not None
    return json.loads(process.stdout.readlines()[-1])


@pytest.mark.parametrize("name", REAL)
def test_a_real_database_is_sound_and_of_the_level_that_it_is_said_to_be(
    name: str, tmp_path: Path
) -> None:
    path = real_database(name, tmp_path / "database")
    assert_sound(path)
    ledger = rows(path, "SELECT migration_id FROM effect_sql_migrations ORDER BY 1")
    assert ledger == [(number,) for number in range(1, level_of(name) + 1)]
    tables = {table for (table,) in rows(path, "SELECT name FROM sqlite_schema")}
    assert ("orchestration_v2_projection_threads" in tables) == is_v2(name)


@pytest.mark.parametrize("name", REAL)
def test_a_grown_one_is_sound_and_has_its_size_and_the_schema_that_it_had(
    name: str, tmp_path: Path
) -> None:
    path = real_database(name, tmp_path / "database")
    schema = rows(path, "SELECT type, name, sql FROM sqlite_schema")
    threads = rows(path, THREADS[is_v2(name)])
    grow(path, 5 * MIB)
    assert 5 * MIB <= path.stat().st_size < 8 * MIB
    assert_sound(path)
    assert rows(path, "SELECT type, name, sql FROM sqlite_schema") == schema
    assert {*rows(path, THREADS[is_v2(name)])} > {*threads}
    messages = rows(path, MESSAGES[is_v2(name)])
    assert len({text for *_, text in messages}) == len(messages) > 100
    assert [found.name for found in tmp_path.iterdir()] == ["database"]


@pytest.mark.parametrize("name", ["state-0.0.24", "v2-from-real-0.0.42-61"])
def test_growing_is_repeatable_and_another_seed_gives_other_rows(name: str, tmp_path: Path) -> None:
    contents = []
    for number, seed in enumerate([0, 0, 1]):
        path = real_database(name, tmp_path / f"{number}")
        grow(path, 3 * MIB, seed=seed)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_a_database_grows_twice_with_one_seed(tmp_path: Path) -> None:
    path = real_database("v2-from26-55", tmp_path / "database")
    grow(path, 3 * MIB)
    grow(path, 5 * MIB)
    assert path.stat().st_size >= 5 * MIB
    assert_sound(path)


@pytest.mark.parametrize("name", REAL)
def test_a_writer_counts_its_commits(name: str, tmp_path: Path) -> None:
    path = real_database(name, tmp_path / "database")
    before = {query: rows(path, query) for query in (MESSAGES[is_v2(name)], EVENTS)}
    with writer(path, "-") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        counted = end(process)
    assert counted["commits"] >= 1
    assert counted["busy"] == 0
    for query, found in before.items():
        after = rows(path, query)
        assert {*after} > {*found}
        assert len(after) == len(found) + counted["commits"]
    assert_sound(path)


@pytest.mark.parametrize("name", ["state-0.0.25", "v1-from26-34"])
def test_a_lock_from_outside_fails_the_writes_of_an_early_server_at_once(
    name: str, tmp_path: Path
) -> None:
    path = real_database(name, tmp_path / "database")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with writer(path, "0.3") as process:
            counted = end_by_itself(process)
    assert counted["commits"] == 0
    assert counted["busy"] > 1, "it has waited"


@pytest.mark.parametrize("name", ["v1-real-0.0.42-from26-52", "v2-from26-55"])
def test_a_later_server_waits_for_a_lock(name: str, tmp_path: Path) -> None:
    path = real_database(name, tmp_path / "database")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with writer(path, "-") as process:
            held = Path(f"/proc/{process.pid}/fd")
            until(
                lambda: any(path.samefile(link) for link in held.iterdir() if link.exists()),
                "writer that has it open",
            )
            other.execute("COMMIT")
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert end(process)["busy"] == 0


def test_the_wait_for_a_lock_can_be_told(tmp_path: Path) -> None:
    path = real_database("v2-grown-61", tmp_path / "database")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with writer(path, "0.3", "--busy-ms", "0") as process:
            assert end_by_itself(process)["busy"] > 1


@pytest.mark.parametrize("name", V2)
def test_a_compaction_takes_events_and_rowids_but_no_thread_and_no_message(
    name: str, tmp_path: Path
) -> None:
    path = real_database(name, tmp_path / "database")
    grow(path, 4 * MIB)
    numbered = "SELECT rowid, message_id FROM orchestration_v2_projection_messages"
    kept = [THREADS[True], MESSAGES[True], "SELECT * FROM projection_projects"]
    before = {query: sorted(rows(path, query)) for query in kept}
    events, rowids = rows(path, EVENTS), rows(path, numbered)
    subprocess.run(programs.line("compact_v2.py", str(path)), check=True)
    assert {query: sorted(rows(path, query)) for query in kept} == before
    after = rows(path, EVENTS)
    assert {*after} < {*events}
    assert len(after) == len(events) - len(events) // 2
    assert len({*rows(path, numbered)} & {*rowids}) < len(rowids) / 10
    assert_sound(path)


@pytest.mark.parametrize("name", V1)
def test_an_import_brings_every_thread_and_message_over(name: str, tmp_path: Path) -> None:
    old = real_database(name, tmp_path / "state.sqlite")
    grow(old, 2 * MIB)
    content = old.read_bytes()
    subprocess.run(import_line(tmp_path), check=True)
    new = tmp_path / "statev2.sqlite"
    assert new.stat().st_nlink == 1
    assert not [*tmp_path.glob(".v2-import-*")]
    assert (tmp_path / "state.sqlite-wal").stat().st_size == 0
    assert old.read_bytes() == content
    assert_sound(new)
    assert sorted(rows(new, THREADS[True])) == sorted(rows(old, THREADS[False]))
    assert sorted(rows(new, MESSAGES[True])) == sorted(rows(old, MESSAGES[False]))
    real = real_database("v2-from-real-0.0.42-61", tmp_path / "real")
    for query in (
        "SELECT type, name FROM sqlite_schema ORDER BY 1, 2",
        "SELECT migration_id, name FROM effect_sql_migrations",
    ):
        assert rows(new, query) == rows(real, query)


def test_an_import_that_is_killed_leaves_two_names(tmp_path: Path) -> None:
    real_database("v1-from26-54", tmp_path / "state.sqlite")
    done = subprocess.run(import_line(tmp_path, "--kill-after-link"), check=False)
    assert done.returncode == -9
    [snapshot] = tmp_path.glob(".v2-import-*/snapshot.sqlite")
    assert snapshot.samefile(tmp_path / "statev2.sqlite")
    assert snapshot.stat().st_nlink == 2
    assert [found.name for found in snapshot.parent.iterdir()] == ["snapshot.sqlite"]


def test_an_import_is_done_once(tmp_path: Path) -> None:
    real_database("v1-from26-54", tmp_path / "state.sqlite")
    subprocess.run(import_line(tmp_path), check=True)
    content = (tmp_path / "statev2.sqlite").read_bytes()
    shutil.copyfile(real_database("v1-from26-34", tmp_path / "other"), tmp_path / "state.sqlite")
    subprocess.run(import_line(tmp_path), check=True)
    assert (tmp_path / "statev2.sqlite").read_bytes() == content
