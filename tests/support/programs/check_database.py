"""Print what integrity_check says of a database, then each name in its schema.

Usage: DATABASE.
"""

import sqlite3
import sys


def main() -> None:
    database = sqlite3.connect(sys.argv[1])
    for query in ("PRAGMA integrity_check", "SELECT name FROM sqlite_schema"):
        print(*(row[0] for row in database.execute(query)))


if __name__ == "__main__":
    main()
