"""Commit to a database without end, and never check its -wal point: PATH MOST_BYTES.

The -wal is begun anew where it would take more than so much of a test's disk. Prints `grows` first.
"""

import os
import sqlite3
import sys


def main() -> None:
    path, most = sys.argv[1], int(sys.argv[2])
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE IF NOT EXISTS grows (x)")
    print("grows", flush=True)
    while True:
        try:
            connection.execute("INSERT INTO grows VALUES (randomblob(262144))")
            if os.stat(f"{path}-wal").st_size > most:
                connection.execute("DELETE FROM grows")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError:
            continue


if __name__ == "__main__":
    main()
