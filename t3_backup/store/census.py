"""Describe what a database holds, small enough to compare.

That is its schema, T3's level, where each table ends, and what a person would miss.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from t3_backup.records import GROWING, decode_record
from t3_backup.t3 import content
from t3_backup.t3.ledger import Ledger, check_ledger
from t3_backup.t3.tables import LOGINS_TABLE

# Where SQLite cannot read what is asked for: the database is damaged, and the checks will say
# where.
UNREADABLE = -1


def _check_content(counts: dict[str, int]) -> dict[str, int]:
    """Leave out what this version has no word for: whoever wrote it, people get to see the rest.

    In the order in which it is told, whatever the order of the keys was in a file.
    """
    return {word: counts[word] for word in content.WORDS if word in counts}


@dataclass(frozen=True)
class Census:
    """What is in a database at one moment."""

    page_size: int  # bytes
    page_count: int
    user_version: int
    application_id: int
    schema_sha256: str  # over the SQL of every object, in the order of their names
    t3_level: int | None  # the newest migration; None: not a T3 database
    # table -> greatest rowid, or the count of rows where there is none; -1: unreadable
    ends: dict[str, int]
    rows: dict[str, int] | None = None  # table -> count of rows; -1: unreadable; None: not counted
    # what a person would miss: word -> count; -1: unreadable; None: not counted, or not T3's
    content: Annotated[dict[str, int], _check_content] | None = None
    # T3's migrations, by id; None: not a T3 database, or a census of before
    ledger: Annotated[Ledger, check_ledger] | None = None
    # of people, that stood when they were counted: they end by themselves; -1: unreadable; None:
    # not counted, or there is no table of them
    logins: int | None = None

    @property
    def total_rows(self) -> int:
        """Rows of all tables; 0 where they were not counted."""
        return sum(count for count in (self.rows or {}).values() if count != UNREADABLE)

    @property
    def unreadable(self) -> frozenset[str]:
        """The tables of which something could not be read."""
        counts = (*self.ends.items(), *(self.rows or {}).items())
        return frozenset(table for table, count in counts if count == UNREADABLE)

    def as_json(self) -> dict[str, Any]:
        """For the manifest and for the pipe."""
        ledger = None if self.ledger is None else [list(one) for one in self.ledger]
        return asdict(self) | {"ledger": ledger}

    @staticmethod
    def from_json(value: Any) -> Census:
        """Decode what `as_json` of whatever version gave. Raises ValueError."""
        return decode_record(Census, value, GROWING)

    def differences(self, other: Census, *, known_only: bool = False) -> list[str]:
        """What is not the same in `other`, in words; what was counted only where both have it.

        `known_only`: what one of them could not read is passed over.
        """
        mine, theirs = asdict(self), asdict(other)
        ignored = {"ends", "rows", "content", "ledger", "logins"}
        found = [
            f"{k} {mine[k]} against {theirs[k]}"
            for k in mine
            if k not in ignored
            and mine[k] != theirs[k]
            and not (known_only and None in (mine[k], theirs[k]))
        ]
        pairs: list[tuple[str, dict[Any, Any], dict[Any, Any]]] = [
            ("end of", self.ends, other.ends)
        ]
        if self.rows is not None and other.rows is not None:
            pairs.append(("rows of", self.rows, other.rows))
        if self.content is not None and other.content is not None:
            # a version that has another word does not find fault with what was sealed before it
            words = self.content.keys() & other.content.keys()
            left, right = (
                {word: one[word] for word in words} for one in (self.content, other.content)
            )
            pairs.append(("count of", left, right))
        if self.ledger is not None and other.ledger is not None:
            pairs.append(("migration", dict(self.ledger), dict(other.ledger)))
        for what, left, right in pairs:
            found += [
                f"{what} {key} {left.get(key)} against {right.get(key)}"
                for key in sorted(left.keys() | right.keys())
                if left.get(key) != right.get(key)
                and not (known_only and UNREADABLE in (left.get(key), right.get(key)))
            ]
        return found


def comparable_content(one: Census, other: Census) -> tuple[dict[str, int], dict[str, int]] | None:
    """Give the content of both, counted in the same way; None where one of them is not T3's.

    An earlier version counted rows alone, also of what was deleted: then so it is for both.
    """
    if one.content is not None and other.content is not None:
        return one.content, other.content
    left, right = content.content_of_rows(one.rows or {}), content.content_of_rows(other.rows or {})
    return None if left is None or right is None else (left, right)


def comparable_logins(one: Census, other: Census) -> tuple[dict[str, int], dict[str, int]]:
    """Give the logins of both, in the form of a content, and counted in the same way.

    An earlier version counted rows alone, also of what had ended: then so it is for both.
    """
    if one.logins is not None and other.logins is not None:
        return {"logins": one.logins}, {"logins": other.logins}
    left, right = ((taken.rows or {}).get(LOGINS_TABLE, 0) for taken in (one, other))
    return {"logins": left}, {"logins": right}
