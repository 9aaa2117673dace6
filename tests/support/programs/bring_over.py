"""Bring rows over one after the other, as V2 does with transcripts while it serves.

Usage: DATABASE TARGET SOURCE SECONDS. So many seconds before each row, from one table to the other.
"""

import sqlite3
import sys
import time


def main() -> None:
    path, target, source, seconds = sys.argv[1:]
    database = sqlite3.connect(path, timeout=20, isolation_level=None)
    for (rowid,) in database.execute(f"SELECT rowid FROM {source}").fetchall():
        time.sleep(float(seconds))
        row = f"INSERT INTO {target} SELECT * FROM {source} WHERE rowid = ?"
        database.execute(row, (rowid,))


if __name__ == "__main__":
    main()
