"""A database is told from another by its list of migrations, and not by the greatest of their
ids."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.t3_data import level_of as real_level
from support.t3_data import real_database

from t3_backup.t3.ledger import LEDGER_TABLE, Ledger, level_of, make_ledger, why_unfit
from t3_backup.t3.versions import KNOWN_LEVELS, known_ledger

PROGRAM = ((1, "Events"), (2, "Projections"), (3, "Sessions"))


@pytest.mark.parametrize(
    ("database", "told"),
    [
        ((), ""),
        (PROGRAM[:2], ""),
        (PROGRAM, ""),
        ((*PROGRAM, (4, "Scopes")), "it has seen migration 4 Scopes"),
        (((1, "Events"), (2, "Fork")), "it has seen migration 2 Fork (there Projections)"),
        (
            (*PROGRAM, (4, "Scopes"), (5, "A"), (6, "B"), (7, "C")),
            "it has seen migrations 4 Scopes, 5 A and 2 more",
        ),
    ],
)
def test_a_program_works_with_what_has_seen_only_its_own_migrations(
    database: Ledger, told: str
) -> None:
    assert why_unfit(database, PROGRAM) == told


def test_the_level_is_the_greatest_id_wherever_it_stands() -> None:
    assert level_of(((3, "c"), (1, "a"))) == 3
    assert level_of(()) is None


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("0.0.24", "state-0.0.24"),
        ("0.0.25", "state-0.0.25"),
        ("0.0.31", "v1-from26-34"),
        ("0.0.42", "v1-real-0.0.42-from26-52"),
        ("0.0.44", "v1-from26-54"),
    ],
)
def test_what_is_known_of_a_version_is_the_ledger_of_a_real_database(
    version: str, name: str, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(real_database(name, tmp_path / "real"))) as connection:
        rows = connection.execute(f"SELECT migration_id, name FROM {LEDGER_TABLE} ORDER BY 1")
        found = make_ledger(rows.fetchall())
    assert known_ledger(version) == found
    assert KNOWN_LEVELS[version] == level_of(found) == real_level(name)


def test_nothing_is_known_of_a_version_that_nobody_has_seen() -> None:
    assert known_ledger("0.1.8") is None
