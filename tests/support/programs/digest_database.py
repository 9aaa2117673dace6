"""Print what counts in a T3 database as JSON: its level, and a digest of each table that matters.

Usage: DATABASE.
"""

import hashlib
import json
import sqlite3
import sys

_TABLES = (
    "projection_projects",
    "projection_threads",
    "projection_thread_messages",
    "orchestration_events",
    "auth_sessions",
)


def main() -> None:
    c = sqlite3.connect(sys.argv[1], timeout=10)
    found: dict[str, object] = {}
    for table in _TABLES:
        rows = sorted(c.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
        found[table] = hashlib.sha256(repr(rows).encode()).hexdigest()
    level = c.execute("SELECT max(migration_id) FROM effect_sql_migrations").fetchone()[0]
    columns = [row[1] for row in c.execute("PRAGMA table_info(auth_sessions)")]
    print(json.dumps({"level": level, "scopes": "scopes" in columns, **found}))


if __name__ == "__main__":
    main()
