"""Execute statements on a database, each in a transaction of its own unless they say BEGIN.

Usage: close|die DATABASE STATEMENT... In the end it closes the database, or dies by SIGKILL with
all as it is then.
"""

import os
import signal
import sqlite3
import sys


def main() -> None:
    end, path, *statements = sys.argv[1:]
    database = sqlite3.connect(path, timeout=20, isolation_level=None)
    for statement in statements:
        database.execute(statement).fetchall()
    if end == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    database.close()


if __name__ == "__main__":
    main()
