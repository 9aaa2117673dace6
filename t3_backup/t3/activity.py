"""What a live database says of T3, read as its owner: its migration level, and the turns that agents are at.

`python3 -m t3_backup.t3.activity DATABASE` prints it as one JSON object, or null where there is none: that is said, and never taken
from a failure. Nothing is written, and no lock is taken that a commit waits for.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from t3_backup.system.sqlite import NOFOLLOW

_BUSY_MS = 2000
# A turn that an agent is at, as T3 projects it; a session that ended badly leaves its turn behind, but not its status.
_IN_FLIGHT = (
    "SELECT count(*) FROM projection_thread_sessions WHERE active_turn_id IS NOT NULL AND status IN ('starting', 'running')"
)
_LEVEL = "SELECT max(migration_id) FROM effect_sql_migrations"


def read_activity(database: Path) -> dict[str, Any] | None:
    """`level` (None: it is no database of T3's) and `turns`; None where there is no file. Raises apsw.Error and OSError."""
    try:
        database.lstat()
    except FileNotFoundError:
        return None
    uri = f"file:{str(database).replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?mode=ro"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | NOFOLLOW
    with closing(apsw.Connection(uri, flags=flags)) as connection:
        connection.setbusytimeout(_BUSY_MS)
        for statement in ("PRAGMA trusted_schema=0", "PRAGMA query_only=1"):
            connection.cursor().execute(statement)
        return {"level": _number(connection, _LEVEL), "turns": _number(connection, _IN_FLIGHT) or 0}


def _number(connection: apsw.Connection, query: str) -> int | None:
    """Of a table that may not be there, or be another's."""
    try:
        ((value,),) = connection.cursor().execute(query)
    except apsw.SQLError:
        return None
    return value if isinstance(value, int) else None


def main() -> int:
    """The command."""
    try:
        print(json.dumps(read_activity(Path(sys.argv[1]))))
    except (apsw.Error, OSError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
