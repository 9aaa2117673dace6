"""Know the table in which T3 Code notes its migrations, and tell whose database it is by that.

Pure. Some ids of migrations were used twice, under another name each: so a database is compared
with a program by its list of (id, name), and not by the greatest id alone, its level.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from t3_backup.text import printable

LEDGER_TABLE = "effect_sql_migrations"
LEDGER_COLUMNS = ("migration_id", "name")
LEVEL_QUERY = f"SELECT max(migration_id) FROM {LEDGER_TABLE}"  # noqa: S608 - of constants alone
MOST_MIGRATIONS = 1000  # that are read of a database
_NAME = 100  # characters of a migration's name; T3's are shorter
_SHOWN = 2

Migration = tuple[int, str]  # id and name
Ledger = tuple[Migration, ...]  # by id


def check_ledger(ledger: Ledger) -> Ledger:
    """Check a ledger, and make its names printable. Raises ValueError."""
    if len(ledger) > MOST_MIGRATIONS:
        raise ValueError("it names too many migrations")
    return tuple((number, printable(name, _NAME)) for number, name in ledger)


def make_ledger(rows: Iterable[tuple[Any, ...]]) -> Ledger:
    """Make a ledger of ids and names; a row of other types is none of T3's.

    Raises ValueError.
    """
    return check_ledger(
        tuple((row[0], row[1]) for row in rows if (type(row[0]), type(row[1])) == (int, str))
    )


def level_of(ledger: Ledger) -> int | None:
    """Return the greatest id of a migration; None without one."""
    return max((number for number, _ in ledger), default=None)


def why_unfit(database: Ledger, program: Ledger) -> str:
    """Say why a program that has made `program` can't work with `database`; empty: it can.

    Each migration that the database has seen must be one of the program's, by id and name. Those
    that it has not seen, the program makes up for.
    """
    names = dict(program)
    others = [one for one in database if names.get(one[0]) != one[1]]
    if not others:
        return ""
    shown = ", ".join(
        f"{number} {name}" + (f" (there {names[number]})" if number in names else "")
        for number, name in others[:_SHOWN]
    )
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return f"it has seen migration{'s' * (len(others) > 1)} {shown}{more}"
