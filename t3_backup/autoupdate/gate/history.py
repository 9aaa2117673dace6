"""Read what is in a database that a candidate is given, and look whether it still is afterwards.

What counts is what people would miss. A V2 program works with a database of its own, into which it
brings over what was in that of V1, so there the two are compared word by word.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from t3_backup.autoupdate.gate.steps import TurnedAway
from t3_backup.t3 import content, databases
from t3_backup.t3.content import Brought, Counted, Part, Said
from t3_backup.t3.databases import Candidate
from t3_backup.t3.ledger import Ledger, level_of
from t3_backup.worker.child.census import columns_of, take_census
from t3_backup.worker.child.checks import Checks
from t3_backup.worker.child.connection import execute, prepare

_BUSY_MS = 5000


@dataclass(frozen=True)
class History:
    """What counts in a database, and what of it was looked for."""

    ledger: Ledger = ()
    is_v2: bool = False
    content: dict[Counted, int] = field(default_factory=dict)
    said: dict[Said, int] = field(default_factory=dict)
    brought: dict[Brought, int] = field(default_factory=dict)

    @property
    def level(self) -> int | None:
        """Give the newest migration; None where there is none."""
        return level_of(self.ledger)


def find_database(userdata: Path, held: Collection[str]) -> str:
    """Name the database that a server works with which has those open that are `held`.

    Empty where there is none. Raises OSError.
    """
    folder = os.open(userdata, os.O_PATH | os.O_DIRECTORY)
    try:
        names, _ = databases.find_names(folder)
    finally:
        os.close(folder)
    found = [Candidate(name, name in held, _changed_ns(userdata / name)) for name in names]
    return databases.choose_live(found) if found else ""


def _changed_ns(database: Path) -> int:
    beside = database.with_name(f"{database.name}-wal")
    there = [one.stat() for one in (database, beside) if one.exists()]
    return max((one.st_mtime_ns for one in there if one.st_size), default=0)


def read_history(database: Path, before: History | None = None) -> History:
    """Count what is in a database, and check the whole file. Raises apsw.Error where it is damaged.

    What the SQLite of this machine is too old to judge is not. What counts is what counted
    `before`: a migration may leave tables behind.
    """
    if not database.is_file():
        return History()
    with closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.setbusytimeout(_BUSY_MS)
        unparsed = prepare(connection, "PRAGMA query_only=1")
        execute(connection, "BEGIN")  # all of it is of one moment
        taken = take_census(connection, count_rows=False)
        cursor, tables = connection.cursor(), taken.ends.keys()
        kept = {
            one: _ask_number(cursor, one.query(columns_of(connection, one.table)))
            for one in (content.counted_in(tables) if before is None else before.content)
            if one.table in tables
        }
        said = {
            one: _ask_number(cursor, f'SELECT {one.measure} FROM "{one.table}"')  # noqa: S608 - of constants alone
            for one in (content.said_in(tables) if before is None else before.said)
            if one.column in columns_of(connection, one.table)
        }
        is_v2 = content.is_v2(tables)
        parts = {one: one.v2 if is_v2 else one.v1 for one in content.BROUGHT_OVER}
        brought = {one: _ask_part(cursor, part, tables) for one, part in parts.items()}
        checks = Checks(connection, taken, unparsed)
        checks.check_all()
        checks.settle()
        if checks.problems:
            raise apsw.CorruptError(checks.problems[0])
    return History(taken.ledger or (), is_v2, kept, said, brought)


def check_ledger(before: History, after: History) -> None:
    """Raise TurnedAway unless each migration of before is there, under its name."""
    if after.level is None or (before.level or 0) > after.level:
        text = f"the database went from level {before.level} to {after.level}"
        raise TurnedAway("migration", text)
    there = dict(after.ledger)
    for number, name in before.ledger:
        if there.get(number) != name:
            other = f"is {there[number]}" if number in there else "is gone"
            raise TurnedAway("migration", f"its migration {number} {name} {other} afterwards")


def check_content(before: History, after: History) -> None:
    """Raise TurnedAway unless all that was there before still is."""
    if after.is_v2 and not before.is_v2:
        for brought, count in before.brought.items():
            _check_left(brought.word, count, after.brought.get(brought, 0))
        return
    for counted, count in before.content.items():
        _check_left(counted.word, count, after.content.get(counted, 0))
    for said, count in before.said.items():
        # of a column that has gone, the rows still are compared
        _check_left(f"{said.what} in {said.table}", count, after.said.get(said, count))


def _check_left(what: str, before: int, after: int) -> None:
    if after < before:
        raise TurnedAway("data", f"there were {before} {what}, and there are {after}")


def _ask_part(cursor: apsw.Cursor, part: Part, tables: Collection[str]) -> int:
    """Ask for a number; 0 where its table, or a column that it needs, is not there."""
    with suppress(apsw.SQLError):
        return _ask_number(cursor, part.query) if part.table in tables else 0
    return 0


def _ask_number(cursor: apsw.Cursor, query: str) -> int:
    ((value,),) = cursor.execute(query).fetchall()
    return value if isinstance(value, int) else 0
