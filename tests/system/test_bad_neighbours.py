"""One bad file among an account's databases costs the others no backup, whatever it does. Real
users, real databases of T3's; the bad one is named. Each takes what it is about to its end: without
the share of the time that the others have, a lock that is held for ever fails the account."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.host import Host
from support.t3_data import real_database
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

V1, V2 = "state.sqlite", "statev2.sqlite"
LONG_AGO, LATE = (1_700_000_000,) * 2, (4_000_000_000,) * 2


@pytest.fixture
def dua(make_user: Callable[..., User], host: Host, tmp_path: Path) -> User:
    user = make_user("bn-dua", real_database("v1-from26-54", tmp_path / V1))
    shutil.copy(real_database("v2-from26-55", tmp_path / V2), user.database.parent / V2)
    user.give(user.database.parent / V2)
    host.write_map(user)
    return user


@contextmanager
def database(user: User, name: str, mode: str = "delete") -> Iterator[sqlite3.Connection]:
    """Make a small database of the user's, open."""
    path = user.database.parent / name
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE one (x)")
        user.give(path)
        yield connection


def missing_reason(host: Host, user: User, name: str, **settings: str) -> str:
    """Back up; V1 and V2 are whole, and `name` alone is missing: why?"""
    answer = host.t3("run", "--json", **settings)
    assert answer.code == 1, answer
    [snapshot] = answer.account(user.name)["snapshots"]
    assert snapshot["verdict"] == "verified", answer
    assert {one["file"]: one["live"] for one in snapshot["databases"]} == {V1: False, V2: True}
    [missing] = snapshot["missing"]
    assert missing["file"] == name
    return str(missing["reason"])


@pytest.mark.parametrize("changed", [LONG_AGO, LATE], ids=["long ago", "last of all"])
def test_one_that_is_locked_for_ever(host: Host, dua: User, changed: tuple[int, int]) -> None:
    """As T3's own locks are: one by a new name is on no list. It is not the live one, either."""
    with database(dua, "new-lock.sqlite") as connection:
        connection.execute("BEGIN EXCLUSIVE")
        os.utime(dua.database.parent / "new-lock.sqlite", changed)
        reason = missing_reason(host, dua, "new-lock.sqlite", T3_BACKUP_TIMEOUT="12")
    assert reason.endswith("new-lock.sqlite is locked by another process")


def test_one_with_a_pipe_beside_it(host: Host, dua: User) -> None:
    """To open it would have SQLite wait until the worker is ended."""
    with database(dua, "piped.sqlite", "wal"):
        pass
    os.mkfifo(dua.database.parent / "piped.sqlite-wal", 0o400)
    assert missing_reason(host, dua, "piped.sqlite", T3_BACKUP_STALL="5").endswith(
        "piped.sqlite-wal is not a regular file"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"a" * 220 + b".sqlite", "its name is too long"),
        (b"a" * 245 + b".sqlite", "its name is too long"),
        (b"\xfc.sqlite", "its name is not UTF-8, and SQLite opens no other"),
    ],
    ids=["no room for a swap's ending", "no room for -wal", "not UTF-8"],
)
def test_one_whose_name_can_t_be_used(host: Host, dua: User, name: bytes, reason: str) -> None:
    """A restore leaves it where it is: it could neither put it aside nor, then, be undone."""
    file = os.fsdecode(name)
    with database(dua, "small.sqlite"):
        pass
    path = (dua.database.parent / "small.sqlite").rename(dua.database.parent / file)
    assert missing_reason(host, dua, file).endswith(f": {reason}")
    answer = host.t3("restore", dua.name, "--yes", "--at", host.snapshots(dua)[0].stem)
    assert answer.code == 0, answer
    assert f"{reason}; it was left as it is" in answer.out
    assert path.exists()


def test_one_that_is_larger_than_all_the_room_there_is(host: Host, dua: User) -> None:
    """Of its size alone; it takes next to nothing of the home's disk."""
    with database(dua, "sparse.sqlite"):
        pass
    os.truncate(dua.database.parent / "sparse.sqlite", 8 << 40)
    assert missing_reason(host, dua, "sparse.sqlite").startswith(f"no room: it needs {8 << 40} ")
