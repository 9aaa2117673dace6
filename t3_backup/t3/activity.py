"""Read from a live database, as its owner, its level and the turns of agents.

`python3 -m t3_backup.t3.activity DATABASE` prints them as one JSON object, or null where there is
no database: that is said, and never taken from a failure. Nothing is written, and no lock is taken
that a commit waits for.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from t3_backup.system.sqlite import NOFOLLOW
from t3_backup.t3.ledger import LEVEL_QUERY
from t3_backup.t3.tables import TURNS_IN_FLIGHT_QUERY

_BUSY_MS = 2000


def read_activity(database: Path) -> dict[str, Any] | None:
    """Read `level` and `turns` of a database; None where there is no file.

    `level` is None where it is no database of T3's. Raises apsw.Error and OSError.
    """
    try:
        database.lstat()
    except FileNotFoundError:
        return None
    uri = f"file:{quote(bytes(database))}?mode=ro"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | NOFOLLOW
    with closing(apsw.Connection(uri, flags=flags)) as connection:
        connection.setbusytimeout(_BUSY_MS)
        for statement in ("PRAGMA trusted_schema=0", "PRAGMA query_only=1"):
            connection.cursor().execute(statement)
        return {
            "level": _query_number(connection, LEVEL_QUERY),
            "turns": _query_number(connection, TURNS_IN_FLIGHT_QUERY) or 0,
        }


def _query_number(connection: apsw.Connection, query: str) -> int | None:
    """Ask for one number of a table that may not be there, or be another's."""
    try:
        ((value,),) = connection.cursor().execute(query)
    except apsw.SQLError:
        return None
    return value if isinstance(value, int) else None


def main() -> int:
    """Run the command, and return its exit status."""
    try:
        print(json.dumps(read_activity(Path(sys.argv[1]))))
    except (apsw.Error, OSError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
