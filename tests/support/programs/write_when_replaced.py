"""Open and write a database as soon as another file has its name: a server systemd doesn't know.

Usage: stays|dies DATABASE INODE, the number of the file that has the name before. Prints `ready`,
and `written` after the write; then it stays until standard input ends, or dies by SIGKILL.
"""

import os
import signal
import sqlite3
import sys


def main() -> None:
    then, path, old = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print("ready", flush=True)
    while os.stat(path).st_ino == old:
        pass
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    database.execute("PRAGMA journal_mode=wal")
    database.execute("CREATE TABLE server_was_here (x)")
    database.execute("INSERT INTO server_was_here VALUES (hex(randomblob(2000)))")
    print("written", flush=True)
    if then == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()


if __name__ == "__main__":
    main()
