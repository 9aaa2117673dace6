"""Delete all but a thread with one event, as if T3 had begun anew on an empty database.

Usage: DATABASE.
"""

import sqlite3
import sys

_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"


def main() -> None:
    c = sqlite3.connect(sys.argv[1])
    c.execute("PRAGMA foreign_keys=off")
    for (table,) in c.execute(_TABLES).fetchall():
        if table == "effect_sql_migrations":
            continue
        keeps_one = table in {"projection_threads", "orchestration_events"}
        but_one = f' WHERE rowid > (SELECT min(rowid) FROM "{table}")' if keeps_one else ""
        c.execute(f'DELETE FROM "{table}"{but_one}')
    c.commit()


if __name__ == "__main__":
    main()
