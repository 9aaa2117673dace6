"""Databases of users: where they have one, and what they commit to it."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from demo.users import User
from support import programs
from support.host import Host
from support.paths import DATA

MIB = 1 << 20


def give_database(user: User, database: Path) -> None:
    """Put a copy of `database` where T3 has it, with the owner and mode that T3 gives it."""
    shutil.copyfile(database, user.database)
    user.database.chmod(0o644)
    user.give(user.database)


def commit_row(*users: User) -> None:
    """Commit one row to the database of each, as its user: the next run finds something that no
    snapshot has."""
    for user in users:
        line = programs.line("commit_row.py", str(user.database))
        subprocess.run(
            line, check=True, timeout=120, cwd="/", user=user.uid, group=user.gid, extra_groups=[]
        )


REAL = DATA / "state-0.0.24.sqlite"


def make_snapshots(host: Host, user: User, count: int) -> None:
    """A store with `count` snapshots, and a database that has changed since the last of them."""
    for _ in range(count):
        answer = host.t3("run")
        assert answer.code == 0, answer
        commit_row(user)


def leave_rows_in_wal(user: User) -> None:
    """Let the newest rows of the user's database, or of the real one, be in a -wal alone, as a
    server that was killed leaves it."""
    work = user.home / "work"
    work.mkdir()
    shutil.copyfile(user.database if user.database.exists() else REAL, work / "state.sqlite")
    connection = sqlite3.connect(work / "state.sqlite", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        for number in range(20):
            connection.execute(f"CREATE TABLE IF NOT EXISTS only_in_wal_{number} (a)")
            connection.execute(f"INSERT INTO only_in_wal_{number} VALUES (1)")
        for ending in ("", "-wal"):
            shutil.copyfile(work / f"state.sqlite{ending}", f"{user.database}{ending}")
            user.give(Path(f"{user.database}{ending}"))
    finally:
        connection.close()
    shutil.rmtree(work)


def hash_source(user: User) -> dict[str, str]:
    """SHA-256 of the database and its -wal."""
    return {
        e: hashlib.sha256(Path(f"{user.database}{e}").read_bytes()).hexdigest()
        for e in ("", "-wal")
        if Path(f"{user.database}{e}").exists()
    }


def put_beside(user: User, names: Sequence[str]) -> None:
    """Put small files beside a user's databases, in folders that nobody else may open."""
    for name in names:
        path = user.database.parent / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text("first")
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", user.database.parent], check=True)


def put_database(user: User, name: str, table: str) -> Path:
    """A database of one table as a server that runs leaves it: WAL mode, and what was committed is
    in its -wal."""
    path = user.database.parent / name
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=wal")
        database.execute(f"CREATE TABLE {table} (id TEXT)")
        database.execute(f"INSERT INTO {table} VALUES ('a thread')")
        database.commit()
        sidecars = {end: Path(f"{path}{end}").read_bytes() for end in ("-wal", "-shm")}
    for end, content in sidecars.items():
        Path(f"{path}{end}").write_bytes(content)
    for end in ("", *sidecars):
        user.give(Path(f"{path}{end}"))
    return path
