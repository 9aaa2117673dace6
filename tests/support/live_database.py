"""The live database of a user: read, changed, held open, and left as a crash leaves it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.users import User
from demo.writer import Writer
from support import programs
from support.host import Host
from support.processes import until, user_process
from support.workers import start_wrapped, wrap_workers

IN_USE = 4


def dump_database(path: Path) -> list[str]:
    """All that is in a database that nobody has open, as SQL."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return list(connection.iterdump())


def hash_live_folder(user: User) -> dict[str, str]:
    """The files in the folder of the live database, by their SHA-256."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in user.database.parent.iterdir()
        if path.is_file()
    }


def change_database(user: User, statement: str = "DELETE FROM checkpoint_diff_blobs") -> None:
    """Change the live database as its user."""
    run_sql(user, statement)


def run_sql(user: User, *statements: str, end: str = "close", path: Path | None = None) -> None:
    """Execute statements on the live database, or that at `path`, as its user, who closes it or
    dies in the end."""
    run_as(user, programs.line("run_sql.py", end, str(path or user.database), *statements))


def run_as(user: User, line: list[str]) -> str:
    """What a program of the user's prints."""
    return subprocess.run(
        line,
        cwd="/",
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def file_facts(path: Path) -> tuple[Any, ...]:
    """Everything that a backup could change of a file: its bytes and all that stat knows, but for
    the time of reading."""
    status = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    names = (
        "st_ino", "st_mode", "st_uid", "st_gid", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns",
    )  # fmt: skip
    return digest, *(getattr(status, name) for name in names)


@contextmanager
def process_holding(
    user: User, how: str, path: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process of the user's that has the live database, or that at `path`, open until the block
    is left."""
    line = programs.line("hold_open.py", how, str(path or user.database))
    with user_process(user, line) as process:
        yield process


def leave_newer_rows_in_a_wal(user: User) -> None:
    """Newer rows in a -wal that a killed server left."""
    with Writer(user.database, user=user.name, linger=True) as writer:
        writer.mark("since")
        writer.kill()


def leave_hot_journal(user: User) -> None:
    """A journal of a writer that was killed in a transaction, after a part of it was in the main
    file."""
    # More than its cache holds: to write it, the journal must be on the disk.
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500)"
    statements = (
        "PRAGMA journal_mode=delete",
        "PRAGMA cache_size=1",
        "PRAGMA cache_spill=1",
        "BEGIN",
        "UPDATE orchestration_events SET payload_json = payload_json || 'x'",
        f"CREATE TABLE spilled AS {numbers} SELECT randomblob(3000) FROM n",
    )
    with pytest.raises(subprocess.CalledProcessError):
        run_sql(user, *statements, end="die")
    assert Path(f"{user.database}-journal").read_bytes()[:1] == b"\xd9", (
        "it is not hot yet: its header is not written"
    )


def leave_unreadable_wal(user: User) -> None:
    """A -wal whose header is not sound: SQLite passes over what is in it."""
    leave_newer_rows_in_a_wal(user)
    with open(f"{user.database}-wal", "r+b") as file:
        file.write(b"\0" * 32)


def leases_of(locks: list[list[str]], inode: int) -> list[str]:
    """The pids that hold a lease on the file of that inode (proc(5), /proc/locks)."""
    return [line[4] for line in locks if line[5].endswith(f":{inode}")]


def hash_state_files(user: User) -> dict[str, str]:
    """The database and what is beside it, but for the index, by SHA-256."""
    found = {
        path.name: path
        for path in user.database.parent.glob("state.sqlite*")
        if not path.name.endswith("-shm")
    }
    return {
        name: hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()
        for name, path in found.items()
    }


def dump_copy(user: User, work: Path, path: Path | None = None) -> list[str] | str:
    """All that a server would find in the place of the live database, or that at `path`, read from
    a copy of it; what SQLite says where it can't."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for ending in ("", "-wal", "-journal"):
        if Path(f"{path or user.database}{ending}").exists():
            shutil.copyfile(f"{path or user.database}{ending}", work / f"state.sqlite{ending}")
    try:
        with closing(sqlite3.connect(f"file:{work}/state.sqlite?mode=rw", uri=True)) as connection:
            return list(connection.iterdump())
    except sqlite3.Error as error:
        return str(error)


@contextmanager
def paused_restore(
    host: Host, user: User, *words: str, operation: str = "swap_databases"
) -> Iterator[subprocess.Popen[str]]:
    """A restore whose worker of that operation never begins, until somebody writes to `held`; it is
    killed at the end, if it still runs."""
    held, at = host.folder / "held", host.folder / "at"
    at.unlink(missing_ok=True)
    held.unlink(missing_ok=True)
    os.mkfifo(held)
    wrapper = wrap_workers(host.folder, **{operation: f"echo $$ >{at}; read line <{held}"})
    with start_wrapped(host, wrapper, "restore", user.name, "--yes", *words) as process:
        try:
            worker = int(until(at.read_text, "worker"))
            intents = [
                *host.folder.glob("state/restores/*.json"),
                *host.store.glob("*+restore.json"),
            ]
            begun = '"begun": true'
            assert begun in intents[0].read_text()
            yield process
        finally:
            process.kill()
            if process.wait() != 0:  # else its worker has ended, too
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
