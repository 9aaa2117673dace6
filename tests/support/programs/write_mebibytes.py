"""Commit a mebibyte at a time as fast as it goes, as a server that works hard.

Usage: DATABASE. Prints `ready` before the first one, and never ends.
"""

import sqlite3
import sys


def main() -> None:
    database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
    database.execute("CREATE TABLE IF NOT EXISTS ballast(content)")
    print("ready", flush=True)
    while True:
        database.execute("INSERT INTO ballast VALUES (randomblob(1 << 20))")


if __name__ == "__main__":
    main()
