"""Commit one more row, which says nothing: what T3 does all day, in small.

Usage: DATABASE.
"""

import os
import sqlite3
import sys


def main() -> None:
    database = sqlite3.connect(sys.argv[1], timeout=60)
    with database:
        name = f"test.{os.urandom(8).hex()}"
        database.execute("INSERT INTO projection_state VALUES (?, 4, '')", (name,))
    database.close()


if __name__ == "__main__":
    main()
