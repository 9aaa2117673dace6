"""Describe what a database holds, small enough to compare.

That is its schema, T3's level, and where each table ends.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from t3_backup.records import decode_record

# Where SQLite cannot read what is asked for: the database is damaged, and the checks will say
# where.
UNREADABLE = -1


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

    @property
    def total_rows(self) -> int:
        """Rows of all tables; 0 where they were not counted."""
        return sum(count for count in (self.rows or {}).values() if count != UNREADABLE)

    def as_json(self) -> dict[str, Any]:
        """For the manifest and for the pipe."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> Census:
        """Decode what `as_json` gave, from an untrusted value. Raises ValueError."""
        return decode_record(Census, value)

    def differences(self, other: Census) -> list[str]:
        """What is not the same in `other`, in words; row counts only where both have them."""
        mine, theirs = asdict(self), asdict(other)
        ignored = {"ends", "rows"}
        found = [
            f"{k} {mine[k]} against {theirs[k]}"
            for k in mine
            if k not in ignored and mine[k] != theirs[k]
        ]
        pairs = [("end of", self.ends, other.ends)]
        if self.rows is not None and other.rows is not None:
            pairs.append(("rows of", self.rows, other.rows))
        for what, left, right in pairs:
            found += [
                f"{what} {table} {left.get(table)} against {right.get(table)}"
                for table in sorted(left.keys() | right.keys())
                if left.get(table) != right.get(table)
            ]
        return found
