"""Do to a V2 database what T3's own compaction does: no thread and no message is lost by it.

Usage: DATABASE. Half of the events go: those of V1, those that a later one of the same thing
supersedes, then the oldest. The projections are deleted and inserted again, in another order and so
with other rowids; idle provider sessions, which a server makes anew, are not among them.
"""

from __future__ import annotations

import sqlite3
import sys

_EVENTS = "orchestration_events"
_SESSIONS = "orchestration_v2_projection_provider_sessions"
_PROJECTIONS = r"""
    SELECT name FROM sqlite_schema
    WHERE type = 'table' AND name LIKE 'orchestration\_v2\_projection\_%' ESCAPE '\'
      AND name <> 'orchestration_v2_projection_metadata'
"""
# What makes a thread or a project stays: the server finds it by that.
_DISPENSABLE = f"""
    SELECT sequence FROM (
      SELECT sequence, application_event_version AS version, event_type,
        row_number() OVER (
          PARTITION BY stream_id, event_type, json_extract(payload_json, '$.id')
          ORDER BY sequence DESC
        ) AS age
      FROM {_EVENTS}
    )
    WHERE version = 1 OR event_type NOT LIKE '%.created'
    ORDER BY version = 1 DESC, age > 1 DESC, sequence
    LIMIT (SELECT count(*) / 2 FROM {_EVENTS})
"""


def _rebuild(database: sqlite3.Connection, table: str) -> None:
    """Delete the rows and insert them again, the last one first."""
    which = " WHERE status <> 'idle'" if table == _SESSIONS else ""
    database.execute(
        f'CREATE TEMP TABLE kept AS SELECT * FROM main."{table}"{which} ORDER BY rowid DESC'
    )
    database.execute(f'DELETE FROM main."{table}"')
    database.execute(f'INSERT INTO main."{table}" SELECT * FROM kept ORDER BY rowid')
    database.execute("DROP TABLE kept")


def compact(database: sqlite3.Connection) -> None:
    """Do it, all or nothing."""
    database.execute("BEGIN IMMEDIATE")
    database.execute(f"DELETE FROM {_EVENTS} WHERE sequence IN ({_DISPENSABLE})")
    for (table,) in database.execute(_PROJECTIONS).fetchall():
        _rebuild(database, table)
    database.execute("COMMIT")


def main() -> None:
    database = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
    database.execute("PRAGMA foreign_keys=ON")
    compact(database)
    database.close()


if __name__ == "__main__":
    main()
