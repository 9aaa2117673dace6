"""Run SQLite's checks on a database, and sort what they say.

That is: damage, what this SQLite can't judge, and rows without a parent. One check that ends with
an error hides no other: what can be judged is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import apsw

from t3_backup.store.census import Census
from t3_backup.worker.child import unjudged
from t3_backup.worker.child.census import is_loaded, quote_name
from t3_backup.worker.child.unjudged import UNJUDGED

_MOST_PROBLEMS = 20
_MOST_TOLD = 3  # reasons, or tables
_WHOLE = f"PRAGMA integrity_check({_MOST_PROBLEMS})"
_STRUCTURE = f"PRAGMA quick_check({_MOST_PROBLEMS})"
_HEADING = re.compile(r"\*\*\* in database \w+ \*\*\*")
# The pages of a table that could not be parsed; and, last of all, so many lines may be of them.
_FORGOTTEN = re.compile(r"Page \d+(: | is )never used")
_MOST_FORGOTTEN = 1_000_000
# in an order that is not known here
_OUT_OF_ORDER = re.compile(r"row not in PRIMARY KEY order for .*")


class Checks:
    """The checks of one connection that nothing else uses, and what they found."""

    def __init__(self, connection: apsw.Connection, taken: Census, unparsed: str) -> None:
        """Prepare them. `taken` is the census, and `unparsed` what the schema has besides."""
        self._connection = connection
        self._tables = sorted(taken.ends)
        self._unparsed = unparsed
        self._structure_left = False  # to be checked once no other check is to come
        self._unjudged = [unparsed] if unparsed else []
        self._orphans: list[str] = []
        self.problems: list[str] = []

    @property
    def unjudged(self) -> str:
        """Why this SQLite can't judge all of it; empty: it can."""
        if not self._unjudged:
            return ""
        reasons = [
            reason
            for reason in dict.fromkeys(self._unjudged)
            if not any(other.endswith(f": {reason}") for other in self._unjudged)
        ]
        told = _shorten(reasons, "; ")
        return f"SQLite {apsw.sqlitelibversion()} can't judge it ({told})"

    @property
    def orphans(self) -> str:
        """Which tables have rows without a parent; empty: none."""
        if not self._orphans:
            return ""
        return f"foreign_key_check: rows without a parent in {_shorten(self._orphans)}"

    def check_all(self) -> None:
        """Check the whole of it."""
        if self._unparsed:
            self.check_structure()
            self.check_tables(self._tables)
            return
        if not self._run(_WHOLE):
            self._structure_left = True
            self.check_tables(self._tables)
        self._check_rest()

    def check_structure(self) -> None:
        """Check all but the entries of indexes."""
        if self._unparsed or not self._run(_STRUCTURE):
            self._structure_left = True
        self._check_rest()

    def check_tables(self, tables: Iterable[str]) -> None:
        """Check these tables, and each entry of their indexes."""
        for table in tables:
            if is_loaded(self._connection.cursor(), table):
                self._run(f"PRAGMA integrity_check({quote_name(table)})")

    def settle(self) -> None:
        """Check what is left, and sort what was found.

        It is the last one: the collations of the connection aren't its database's any more.
        """
        if self._structure_left:
            self._check_structure_alone()
        self.problems = list(dict.fromkeys(self.problems))[:_MOST_PROBLEMS]
        if self.problems and (
            why := unjudged.explains_missing_entries(self._connection, self.problems)
        ):
            self._unjudged.append(why)
            self.problems = []

    def _check_rest(self) -> None:
        self._check_names()
        self._check_virtual_tables()
        self._check_parents()

    def _run(self, check: str) -> bool:
        """Run one check; False where this SQLite can't."""
        try:
            for (line,) in self._connection.cursor().execute(check):
                self.problems += [part for part in str(line).splitlines() if part != "ok"]
        except apsw.CorruptError as error:
            self.problems.append(str(error))
        except UNJUDGED as error:
            self._unjudged.append(unjudged.explain(error))
            return False
        except UnicodeDecodeError as error:  # `ok` is ASCII
            self.problems.append(f"{check.removeprefix('PRAGMA ')}: {unjudged.explain(error)}")
        return True

    def _check_structure_alone(self) -> None:
        """Check the pages, and that each is used once, whatever collation a key has.

        What a table that can't be parsed has of pages, nobody uses.
        """
        self._connection.collationneeded(_lend_collation)
        unused = self._unparsed and self._has_unparsed_pages()
        # Since 3.44 a virtual table that can't be opened ends it. An apsw of before lacks the call.
        if (drop_modules := getattr(self._connection, "drop_modules", None)) is not None:
            drop_modules(None)
        most = _MOST_FORGOTTEN if unused else 10 * _MOST_PROBLEMS
        try:
            for (text,) in self._connection.cursor().execute(f"PRAGMA quick_check({most})"):
                for line in str(text).splitlines():
                    passed = line == "ok" or _HEADING.fullmatch(line) or _OUT_OF_ORDER.match(line)
                    if not passed and not (unused and _FORGOTTEN.match(line)):
                        self.problems.append(line)
        except apsw.CorruptError as error:
            self.problems.append(str(error))
        except (*UNJUDGED, UnicodeDecodeError) as error:
            self._unjudged.append(unjudged.explain(error))

    def _has_unparsed_pages(self) -> bool:
        """Tell whether a table or an index is in the schema which this SQLite has not loaded."""
        query = (
            "SELECT 1 FROM main.sqlite_schema AS had WHERE rootpage > 0 "
            "AND NOT EXISTS (SELECT 1 FROM pragma_table_xinfo(had.name, 'main')) "
            "AND NOT EXISTS (SELECT 1 FROM pragma_index_info(had.name, 'main')) LIMIT 1"
        )
        return bool(self._connection.cursor().execute(query).fetchall())

    def _check_names(self) -> None:
        query = "SELECT name, tbl_name, sql FROM main.sqlite_schema"
        try:
            self._connection.cursor().execute(query).fetchall()
        except UnicodeDecodeError as error:
            self._unjudged.append(unjudged.explain(error))

    def _check_virtual_tables(self) -> None:
        """Find the virtual tables whose module is here, but not what they ask of it.

        Of a module that is not here, the tables in which it keeps its data were checked.
        """
        query = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0"
        try:
            rows = self._connection.cursor().execute(query).fetchall()
        except UnicodeDecodeError:  # said by _check_names
            return
        for name, sql in ((str(name), str(sql)) for name, sql in rows):
            try:
                select = f"SELECT 1 FROM main.{quote_name(name)} LIMIT 0"  # noqa: S608 - quoted
                self._connection.cursor().execute(select).fetchall()
                if self._structure_left:  # which the check of the whole has not come to
                    self._run(f"PRAGMA integrity_check({quote_name(name)})")
            except apsw.CorruptError as error:
                self.problems.append(f"{name}: {error}")
            except UNJUDGED as error:
                if "no such module" not in str(error):
                    self._unjudged.append(f"{name}: {unjudged.explain(error, sql)}")

    def _check_parents(self) -> None:
        """Find the tables with rows that have no parent; one row of a table is enough."""
        query = "SELECT 1 FROM pragma_foreign_key_check(?) LIMIT 1"
        for table in self._tables:
            if not is_loaded(self._connection.cursor(), table):
                continue
            try:
                if self._connection.cursor().execute(query, (table,)).fetchall():
                    self._orphans.append(table)
            except apsw.CorruptError as error:
                self.problems.append(str(error))
            except UNJUDGED as error:
                self._unjudged.append(unjudged.explain(error))


def _shorten(told: Sequence[str], between: str = ", ") -> str:
    more = len(told) - _MOST_TOLD
    return between.join([*told[:_MOST_TOLD], *([f"and {more} more"] if more > 0 else [])])


def _lend_collation(connection: apsw.Connection, name: str) -> None:
    """Lend SQLite a collation for one that it lacks: nothing is believed of what it sorts."""
    connection.createcollation(name, lambda one, other: (one > other) - (one < other))
