"""Lock a database as its server does, until a line is read or standard input ends.

Usage: DATABASE STATEMENT [SECONDS]. STATEMENT takes the lock; `locked` is printed once it has it.
SECONDS more it is kept.
"""

import sqlite3
import sys
import time


def main() -> None:
    path, statement, *seconds = sys.argv[1:]
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    database.execute(statement)
    print("locked", flush=True)
    sys.stdin.readline()
    time.sleep(float(*seconds))
    database.close()


if __name__ == "__main__":
    main()
