"""Nobody takes the room of the others: neither by what a database claims to be, nor by what it is.

Real users, a disk of their own for the store, and a hostile one among them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.databases import MIB, commit_row
from support.filesystems import disk, host_on
from support.host import Host, list_snapshots, succeeded
from support.live_database import dump_database
from support.paths import DATA
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
PAGE = 4096


@pytest.fixture
def mallory(make_user: Callable[..., User]) -> User:
    return make_user("room-mal", TINY)


@pytest.fixture
def honest(make_user: Callable[..., User]) -> User:
    return make_user("room-hon", TINY)


@pytest.fixture
def small(host: Host, tmp_path: Path, mallory: User, honest: User) -> Iterator[Host]:
    """A host whose store has a disk of 64 MiB."""
    with disk(tmp_path, "ext4", 64 * MIB) as where:
        there = host_on(where, host)
        host.write_map(mallory, honest)
        yield there


def claim(user: User, number: int, size: int, *, data: bool = False) -> None:
    """Make another database of the user's that claims to have `size` bytes: holes, or random."""
    shutil.copyfile(TINY, user.database)
    with closing(sqlite3.connect(user.database)) as database:
        database.execute(f"CREATE TABLE of_number_{number} (x)")
    with user.database.open("r+b") as file:
        if data:
            file.seek(0, os.SEEK_END)
            file.write(os.urandom(size - file.tell()))
        file.truncate(size)
        file.seek(28)
        file.write((size // PAGE).to_bytes(4, "big"))


def taken(host: Host, user: User) -> int:
    """The bytes that an account's folder takes of the disk."""
    return sum(path.stat().st_blocks * 512 for path in host.account_dir(user).iterdir())


def expect_honest_one_well(host: Host, honest: User) -> None:
    """The honest one is backed up, and gets the snapshot back."""
    commit_row(honest)
    expected = dump_database(honest.database)
    answer = host.t3("run", "--json")
    assert answer.account(honest.name)["outcome"] == "backed_up", answer
    commit_row(honest)
    succeeded(host.t3("restore", honest.name, "--yes"))
    assert dump_database(honest.database) == expected


def test_what_a_sparse_database_claims_takes_no_room(
    small: Host, mallory: User, honest: User, tmp_path: Path
) -> None:
    """Row 46. Three that claim more than the disk has; each is kept, and comes back."""
    succeeded(small.t3("run"))
    for number in range(3):
        claim(mallory, number, 30 * MIB)
        assert mallory.database.stat().st_blocks * 512 < MIB
        account = small.t3("run", "--json").account(mallory.name)
        assert account["outcome"] == "backed_up", account
        assert account["snapshots"][-1]["bytes"] == 30 * MIB
    assert taken(small, mallory) < 8 * MIB
    expect_honest_one_well(small, honest)
    written = tmp_path / "written"
    name = next(one["name"] for one in list_snapshots(small, mallory) if one["bytes"] == 30 * MIB)
    succeeded(small.t3("restore", mallory.name, "--at", name, "--to", str(written)))
    header = 100  # a copy is not in WAL mode
    assert written.read_bytes()[header:] == mallory.database.read_bytes()[header:]
    assert written.stat().st_blocks * 512 < MIB


def test_damaged_copies_are_bounded_and_the_first_and_the_newest_stay(
    small: Host, mallory: User, honest: User
) -> None:
    """Row 46. Each is another; they wait for `accept`, and retention alone would keep them all."""
    succeeded(small.t3("run"))
    good = list_snapshots(small, mallory)[0]["name"]
    names = []
    for number in range(4):
        claim(mallory, number, 6 * MIB, data=True)
        account = small.t3("run", "--json").account(mallory.name)
        names.append(next(s["name"] for s in account["snapshots"] if s["verdict"] == "damaged"))
    there = [one["name"] for one in list_snapshots(small, mallory) if one["verdict"] == "damaged"]
    assert there == [names[-1], names[0]]
    assert good in [one["name"] for one in list_snapshots(small, mallory)]
    assert taken(small, mallory) < 15 * MIB
    expect_honest_one_well(small, honest)


@pytest.mark.soak
def test_unproven_copies_are_bounded_beside_what_retention_keeps(
    small: Host, mallory: User, honest: User
) -> None:
    """Row 46. Nothing waits for anybody, and pruning goes on."""
    succeeded(small.t3("run"))
    names = []
    for number in range(4):
        shutil.copyfile(TINY, mallory.database)
        with closing(sqlite3.connect(mallory.database)) as database:
            database.create_collation("ours", lambda left, right: (left > right) - (left < right))
            database.execute("CREATE TABLE large (x TEXT COLLATE ours PRIMARY KEY, y)")
            values = (f"{number}", os.urandom(6 * MIB))
            database.execute("INSERT INTO large VALUES (?, ?)", values)
            database.commit()
        account = small.t3("run", "--json").account(mallory.name)
        names.append(account["snapshots"][-1]["name"])
    there = [one["name"] for one in list_snapshots(small, mallory) if one["verdict"] == "unproven"]
    assert there == names[:-3:-1]  # of the only good ones there is one more
    expect_honest_one_well(small, honest)


def test_files_beside_a_database_are_no_way_round(small: Host, mallory: User, honest: User) -> None:
    """Row 46. They are not saved, and that is said; the database is."""
    attachment = mallory.database.with_name("attachments") / "large"
    attachment.parent.mkdir()
    mallory.give(attachment.parent)
    for _ in range(2):
        attachment.write_bytes(os.urandom(24 * MIB))
        mallory.give(attachment)
        commit_row(mallory)
        account = small.t3("run", "--json").account(mallory.name)
        assert account["outcome"] == "backed_up", account
    assert "left to the account (T3_BACKUP_MAX_BYTES)" in account["unsaved"]
    assert taken(small, mallory) < 32 * MIB
    expect_honest_one_well(small, honest)


def test_one_that_grows_ends_where_the_room_of_the_others_begins(
    small: Host, mallory: User, honest: User
) -> None:
    """Row 46. It fails by itself, is told so, and keeps what it has; the honest one goes on."""
    succeeded(small.t3("run"))
    for number in range(3):
        claim(mallory, number, 24 * MIB, data=True)
        answer = small.t3("run", "--json")
    account = answer.account(mallory.name)
    assert (account["outcome"], account["own"]) == ("failed", True), account
    assert "left to the account (T3_BACKUP_MAX_BYTES)" in account["reason"]
    assert "verified" in [one["verdict"] for one in list_snapshots(small, mallory)]
    expect_honest_one_well(small, honest)
