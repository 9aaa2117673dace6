"""VACUUM INTO takes over where the online copy cannot be had; and the online copy past one
gibibyte."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support import programs
from support.host import Host
from support.processes import child_pids, process_status
from support.users import needs_root

from demo.users import User
from demo.writer import Writer, moment

pytestmark = needs_root

PATIENCE_S = 60
MARGIN_S = 5  # to kill, to reap, and to start two interpreters on a busy machine

_TOUCH = "UPDATE projection_state SET updated_at = updated_at"
LOCK_PAGE_BYTE = 0x4000_0000
_BIG_PAGE = 65536
# Header bytes that the copy has of its own: the WAL flag, the change counter, the schema cookie (a
# backup counts it anew), and the change counter's companions (sqlite.org/fileformat.html).
_OWN_HEADER = ((18, 20), (24, 28), (40, 44), (92, 100))


@contextmanager
def held(user: User, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process of the user's that has the database exclusively; a line to its standard input
    starts its clock."""
    process = subprocess.Popen(
        programs.line("lock_database.py", str(user.database), _TOUCH, str(seconds)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=user.name,
        group=user.name,
        extra_groups=[],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def worker_has_begun(run: subprocess.Popen[str], user: User) -> bool:
    """Whether the run has a worker for this user."""
    workers = map(process_status, child_pids(run.pid))
    return any(str(user.uid) in status.get("Uid", "").split() for status in workers)


def test_vacuum_takes_over_within_the_same_deadline(host: Host, alice: User) -> None:
    """A process keeps the database to itself for seven tenths of the time.

    Half is the online copy's, the rest is VACUUM's. To wait for a lock is no stall, however long.
    """
    timeout = 20  # of which an interpreter may take four seconds to start, and VACUUM six
    with held(alice, 0.7 * timeout) as holder:
        began = time.monotonic()
        run = host.start("run", "--timeout", str(timeout), T3_BACKUP_STALL="6")
        until = began + PATIENCE_S
        while not worker_has_begun(run, alice):
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < until
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        out, _ = run.communicate(timeout=PATIENCE_S)
        seconds = time.monotonic() - began
    assert run.returncode == 0, out
    assert "vacuum, verified)" in out
    assert 0.5 * timeout < seconds < timeout + MARGIN_S
    [snapshot] = host.snapshots(alice)
    manifest = json.loads(snapshot.with_suffix(".json").read_text())
    [database] = manifest["databases"]
    assert (database["method"], manifest["verdict"]) == ("vacuum", "verified")
    with closing(sqlite3.connect(f"file:{snapshot}?immutable=1", uri=True)) as copy:
        with closing(sqlite3.connect(alice.database)) as source:
            assert list(copy.iterdump()) == list(source.iterdump())
        assert len(moment(copy)) == 1
    assert host.t3("verify", alice.name).code == 0
    with Writer(alice.database, user=alice.name) as writer:
        assert writer.stop().total.errors == 0


def test_a_database_locked_for_the_whole_deadline_fails_alone_and_in_time(
    host: Host, alice: User, make_user: Callable[..., User], small: Path
) -> None:
    """Row 22: an exclusive lock held on the source: that account times out, the rest are backed
    up."""
    bob = make_user("fbob", small)
    host.write_map(alice, bob)
    timeout = 10
    with held(alice, 0):
        began = time.monotonic()
        answer = host.t3("run", "--json", "--timeout", str(timeout))
        seconds = time.monotonic() - began
    assert answer.code == 1, answer
    assert seconds < timeout + MARGIN_S
    account = answer.account(alice.name)
    assert account["outcome"] == "failed"
    assert "locked" in account["reason"] or "timed out" in account["reason"]
    assert host.snapshots(alice) == []
    assert answer.account(bob.name)["outcome"] == "backed_up"


@pytest.fixture
def eve(make_user: Callable[..., User], host: Host) -> User:
    """A user whose database goes past the page that SQLite never writes, by a few pages; no two of
    its pages are alike."""
    user = make_user("eve")
    host.write_map(user)
    with closing(sqlite3.connect(user.database, isolation_level=None)) as database:
        database.execute(f"PRAGMA page_size={_BIG_PAGE}")
        database.execute("PRAGMA journal_mode=OFF")
        database.execute("PRAGMA synchronous=OFF")
        database.execute(
            "CREATE TABLE effect_sql_migrations(migration_id INTEGER PRIMARY KEY, created_at, name)"
        )
        database.execute("INSERT INTO effect_sql_migrations VALUES (30, '', 'T3')")
        database.execute("CREATE TABLE blocks(id INTEGER PRIMARY KEY, content BLOB)")
        rows = LOCK_PAGE_BYTE // _BIG_PAGE + 40
        database.execute("BEGIN")
        noise = os.urandom(65_000)
        database.executemany(
            "INSERT INTO blocks VALUES (?, ?)",
            ((row, row.to_bytes(8, "big") + noise) for row in range(rows)),
        )
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode=WAL")
    user.give(user.database)
    return user


def test_the_copy_is_the_same_on_both_sides_of_the_page_that_is_never_written(
    host: Host, eve: User
) -> None:
    """Past one gibibyte SQLite leaves out the page with its lock bytes; every other one is copied
    to its own place."""
    answer = host.t3("run", "--json")
    assert answer.code == 0, answer
    [found] = answer.account(eve.name)["snapshots"]
    assert (found["method"], found["verdict"]) == ("online", "verified")
    assert Path(found["path"]).stat().st_size == eve.database.stat().st_size
    different = []
    with eve.database.open("rb") as source, Path(found["path"]).open("rb") as copy:
        first = [bytearray(file.read(_BIG_PAGE)) for file in (source, copy)]
        for begin, end in _OWN_HEADER:
            for page in first:
                page[begin:end] = bytes(end - begin)
        assert first[0] == first[1]
        for number in range(2, eve.database.stat().st_size // _BIG_PAGE + 1):
            if source.read(_BIG_PAGE) != copy.read(_BIG_PAGE):
                different.append(number)
    assert set(different) <= {LOCK_PAGE_BYTE // _BIG_PAGE + 1}
    assert number > LOCK_PAGE_BYTE // _BIG_PAGE + 20
