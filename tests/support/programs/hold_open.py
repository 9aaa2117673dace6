"""Have a database open until standard input ends.

Usage: reads|writes|idle|only_open|opened_to_write DATABASE. Prints `ready` once it has it open,
then its pid.
"""

import os
import sqlite3
import sys

_EVENTS = "orchestration_events"


def _open(how: str, path: str) -> object:
    """Open it; what is returned keeps it open."""
    if how == "only_open":
        return open(path, "rb")
    if how == "opened_to_write":
        file = open(path, "r+b")  # noqa: SIM115 - it stays open
        assert os.fstat(file.fileno()).st_ino == os.stat(path).st_ino
        return file
    database = sqlite3.connect(path, isolation_level=None)
    if how == "idle":
        database.execute(f"SELECT count(*) FROM {_EVENTS}").fetchall()
        return database
    database.execute({"reads": "BEGIN", "writes": "BEGIN IMMEDIATE"}[how])
    if how == "writes":
        return database
    cursor = database.execute(f"SELECT * FROM {_EVENTS}")
    cursor.fetchone()
    return database, cursor


def main() -> None:
    _kept = _open(*sys.argv[1:])
    print(f"ready\n{os.getpid()}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
