"""Be a server that has SQLite databases open until standard input ends.

Usage: [WORD...] -- [--stay] [--lock] DATABASE... [--agent DATABASE...]. Each is made where it isn't
there, and is in WAL mode; one after `--lock` is held in a transaction, as T3 holds its locks. Those
after `--agent` are held by a child process. Prints `ready` once all are open. With `--stay` it ends
by a signal alone.
"""

import os
import signal
import sqlite3
import subprocess
import sys

_AGENT = """
import sqlite3, sys
kept = [sqlite3.connect(path) for path in sys.argv[1:]]
for one in kept:
    one.execute("PRAGMA journal_mode=wal")
    one.execute("CREATE TABLE IF NOT EXISTS t (x)")
print("ready", flush=True)
sys.stdin.read()
"""


def _hold(path: str, *, lock: bool) -> sqlite3.Connection:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=wal")
    database.execute("CREATE TABLE IF NOT EXISTS t (x)")
    if lock:
        database.execute("BEGIN EXCLUSIVE")
    return database


def main() -> None:
    words = sys.argv[sys.argv.index("--") + 1 :]
    agents: list[str] = []
    if "--agent" in words:
        at = words.index("--agent")
        words, agents = words[:at], words[at + 1 :]
    kept, lock, stay = [], False, False
    for word in words:
        if word == "--lock":
            lock = True
        elif word == "--stay":
            stay = True
        else:
            kept.append(_hold(word, lock=lock))
            lock = False
    if agents:
        for path in agents:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        line = ["/usr/bin/python3", "-I", "-c", _AGENT, *agents]
        child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    print("ready", flush=True)
    if stay:
        signal.pause()
    sys.stdin.read()


if __name__ == "__main__":
    main()
