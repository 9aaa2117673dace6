"""Databases of users: where they have one, and what they commit to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from demo.users import User

MIB = 1 << 20


def give_database(user: User, database: Path) -> None:
    """Put a copy of `database` where T3 has it, with the owner and mode that T3 gives it."""
    shutil.copyfile(database, user.database)
    user.database.chmod(0o644)
    user.give(user.database)


# What T3 does all day, in small: one more row, which says nothing.
_COMMIT = """
import os, sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=60) as database:
    database.execute("INSERT INTO projection_state VALUES (?, 4, '')", ("test." + os.urandom(8).hex(),))
database.close()
"""


def commit_row(*users: User) -> None:
    """Commit one row to the database of each, as its user: the next run finds something that no
    snapshot has."""
    for user in users:
        line = [sys.executable, "-I", "-c", _COMMIT, str(user.database)]
        subprocess.run(
            line, check=True, timeout=120, cwd="/", user=user.uid, group=user.gid, extra_groups=[]
        )
