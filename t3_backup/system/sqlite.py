"""State facts of SQLite: a flag, and the files beside a database."""

from __future__ import annotations

# SQLITE_OPEN_NOFOLLOW (sqlite.org/c3ref/c_open_autoproxy.html); apsw names it since 3.40.
NOFOLLOW = 0x01000000

# All that SQLite may have beside a database; the -wal and the -journal hold a part of its content.
SIDECARS = ("-wal", "-shm", "-journal")
