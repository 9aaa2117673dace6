"""Print the rows that a query finds in a database, a line each.

Usage: DATABASE QUERY.
"""

import sqlite3
import sys


def main() -> None:
    path, query = sys.argv[1:]
    for row in sqlite3.connect(path, timeout=20).execute(query):
        print(*row)


if __name__ == "__main__":
    main()
