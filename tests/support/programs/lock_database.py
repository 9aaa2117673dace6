"""Lock a database as its server does, until standard input ends.

Usage: DATABASE STATEMENT, which is what takes the lock. Prints `locked` once it has it.
"""

import sqlite3
import sys


def main() -> None:
    path, statement = sys.argv[1:]
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    database.execute(statement)
    print("locked", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
