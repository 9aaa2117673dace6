"""Homes in which SQLite can't open a database beside others: full, read-only, or with a -shm of
somebody else's. What can be read is backed up as it is, and what is in the way is told."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.databases import MIB, REAL, hash_source, leave_rows_in_wal
from support.filesystems import disk, fill_disk
from support.host import Host, succeeded
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

_ROWS = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'only_in_wal_%'"


@pytest.fixture
def nora(make_user: Callable[..., User], host: Host) -> User:
    user = make_user("s-room", REAL)
    host.write_map(user)
    return user


@contextlib.contextmanager
def home_on(where: Path, user: User) -> Iterator[None]:
    """The user's `.t3` lies on another disk."""
    moved = where / "t3"
    shutil.copytree(user.home / ".t3", moved)
    for path in (moved, *moved.rglob("*")):
        user.give(path)
    subprocess.run(["mount", "--bind", moved, user.home / ".t3"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", user.home / ".t3"], check=True)


def take_inodes(where: Path) -> None:
    for number in range(4096):
        try:
            (where / f"file-{number}").touch()
        except OSError:
            return
    raise AssertionError("there are too many inodes")


def make_read_only(where: Path) -> None:
    """The disk, and the mount of it in the home."""
    subprocess.run(["mount", "-o", "remount,ro", where], check=True)


FULL = {
    "blocks": (fill_disk, "the disk of the home is full"),
    "inodes": (take_inodes, "the disk of the home is full: it has no inode left"),
    "read-only": (make_read_only, "the disk of the home is mounted read-only"),
}


@pytest.mark.parametrize(
    ("fill", "why", "wal"),
    [
        *[pytest.param(*FULL[how], True, id=f"{how}, -wal") for how in FULL],
        pytest.param(*FULL["blocks"], False, id="blocks, no -wal"),
        pytest.param(*FULL["inodes"], False, id="inodes, no -wal", marks=pytest.mark.soak),
        pytest.param(*FULL["read-only"], False, id="read-only, no -wal", marks=pytest.mark.soak),
    ],
)
def test_without_room_for_a_shm_it_is_backed_up_as_it_is_and_the_reason_is_told(
    host: Host, nora: User, fill: Callable[[Path], object], why: str, wal: bool
) -> None:
    """Row 59: the server has died of it, and nobody has it open."""
    if wal:
        leave_rows_in_wal(nora)
    with disk(host.folder, "ext4", 8 * MIB, "-N", "64") as where, home_on(where, nora):
        folder = nora.database.parent
        fill(where)
        before, there = hash_source(nora), {*folder.iterdir()}
        answer = host.t3("run")
        assert hash_source(nora).items() >= before.items()
        made = {path.name: path.stat().st_size for path in {*folder.iterdir()} - there}
        assert made.pop("state.sqlite-wal", 0) == 0
        assert made.keys() <= {"state.sqlite-shm"}, "SQLite makes that, and holds nothing in it"
        succeeded(answer)
        assert f"state.sqlite can't be written to: {why}" in answer.out
        assert why in host.t3("doctor").out
        [sealed] = host.snapshots(nora)
        with closing(sqlite3.connect(f"file:{sealed}?immutable=1", uri=True)) as copy:
            assert copy.execute(_ROWS).fetchall() == [(20 if wal else 0,)]
        assert host.t3("list", "--json").account(nora.name)["snapshots"][0]["verdict"] == "verified"


def give_to_root(path: Path) -> None:
    path.touch()
    os.chown(path, 0, 0)
    path.chmod(0o600)


def test_a_wal_of_roots_fails_the_account_by_its_name_until_it_is_given_back(
    host: Host, nora: User
) -> None:
    """Row 59: what it holds can't be read; and what the line says to do mends it."""
    leave_rows_in_wal(nora)
    for ending in ("-shm", "-wal"):
        give_to_root(Path(f"{nora.database}{ending}"))
    answer = host.t3("run", "--json")
    assert answer.code == 1
    reason = answer.account(nora.name)["reason"]
    assert "state.sqlite-shm and state.sqlite-wal belong to root; next: chown " in reason
    lines = [one for one in host.t3("doctor").out.splitlines() if f"account {nora.name}" in one]
    assert "state.sqlite-wal belong to root" in lines[0]
    assert not any(one.startswith("ok") for one in lines)
    assert host.snapshots(nora) == []
    subprocess.run(reason.rpartition("next: ")[2].split(), check=True)
    succeeded(host.t3("run"))


def test_a_shm_of_roots_is_told_and_what_needs_none_is_backed_up(host: Host, nora: User) -> None:
    """Row 59."""
    give_to_root(Path(f"{nora.database}-shm"))
    answer = host.t3("run")
    succeeded(answer)
    assert "state.sqlite can't be written to: state.sqlite-shm belongs to root" in answer.out
    assert len(host.snapshots(nora)) == 1


def test_what_keeps_an_owner_from_writing_is_told_with_the_command_that_mends_it(
    host: Host, nora: User, make_user: Callable[..., User]
) -> None:
    """Row 59: it is told whether or not a copy could be made."""
    users = [nora, make_user("s-room-2", REAL), make_user("s-room-3", REAL)]
    host.write_map(*users)
    for user in users:
        leave_rows_in_wal(user)
    unread, folder, sealed = (user.database for user in users)
    unread.chmod(0)
    folder.parent.chmod(0o500)
    Path(f"{sealed}-shm").touch()
    users[-1].give(Path(f"{sealed}-shm"))
    for ending in ("", "-wal", "-shm"):
        Path(f"{sealed}{ending}").chmod(0o400)
    first = host.t3("run", "--json")
    told = [first.account(user.name) for user in users]
    assert [one["outcome"] for one in told] == ["failed", "backed_up", "backed_up"]
    parts = [f"{sealed}{ending}" for ending in ("", "-shm", "-wal")]
    why = [
        f"its owner may not read it; next: chmod u+rw {unread}",
        f"its owner may not write to its folder; next: chmod u+wx {folder.parent}",
        f"state.sqlite, state.sqlite-shm and state.sqlite-wal; next: chmod u+rw {' '.join(parts)}",
    ]
    for one, reason in zip(told, why, strict=True):
        assert one["reason"].endswith(reason), one
        subprocess.run(one["reason"].rpartition("next: ")[2].split(), check=True)
    again = succeeded(host.t3("run", "--json"))
    assert [again.account(user.name)["reason"] for user in users] == ["", "", ""]
    assert sealed.stat().st_mode & 0o200


def test_what_somebody_has_open_is_not_read_beside_its_wal(host: Host, nora: User) -> None:
    """Row 59: what is only in a -wal that can't be read may come at any moment."""
    give_to_root(Path(f"{nora.database}-shm"))
    with nora.database.open("r+b"):
        answer = host.t3("run", "--json")
    assert answer.code == 1
    assert "state.sqlite-shm belongs to root" in answer.account(nora.name)["reason"]
    assert host.snapshots(nora) == []


def test_what_is_read_as_it_is_may_be_the_live_one(host: Host, nora: User) -> None:
    """Row 59: no other database beside it is taken for it."""
    notes = nora.database.with_name("notes.sqlite")
    with closing(sqlite3.connect(notes)) as database:
        database.execute("CREATE TABLE note(text)")
        database.execute("PRAGMA journal_mode=wal")
    nora.give(notes)
    os.utime(notes, (0, 0))
    give_to_root(Path(f"{nora.database}-shm"))
    succeeded(host.t3("run"))
    [snapshot] = host.t3("list", "--json").account(nora.name)["snapshots"]
    found = {one["file"]: one["live"] for one in snapshot["databases"]}
    assert found == {"notes.sqlite": False, "state.sqlite": True}


@pytest.mark.parametrize("rows", [0, 20], ids=["empty -wal", "-wal"])
def test_a_shm_of_roots_is_in_no_restores_way(host: Host, nora: User, rows: int) -> None:
    """Row 59: the state that is replaced is kept, too, with what is only in its -wal."""
    succeeded(host.t3("run"))
    [first] = host.snapshots(nora)
    sealed = first.read_bytes()
    if rows:
        leave_rows_in_wal(nora)
    else:
        give_to_root(Path(f"{nora.database}-wal"))
    give_to_root(Path(f"{nora.database}-shm"))
    name = first.name.removesuffix(".sqlite")
    succeeded(host.t3("restore", nora.name, "--at", name, "--yes", "--no-service"))
    assert nora.database.read_bytes() == sealed
    assert [path.name for path in nora.database.parent.iterdir()] == ["state.sqlite"]
    if rows:
        [kept] = [path for path in host.snapshots(nora) if "prerestore" in path.name]
        with closing(sqlite3.connect(f"file:{kept}?immutable=1", uri=True)) as copy:
            assert copy.execute(_ROWS).fetchall() == [(rows,)]


@pytest.mark.parametrize("why", ["read-only", pytest.param("folder", marks=pytest.mark.soak)])
def test_what_keeps_a_restore_from_writing_is_told_and_nothing_is_changed(
    host: Host, nora: User, why: str
) -> None:
    """Row 59."""
    succeeded(host.t3("run"))
    folder = nora.database.parent
    with disk(host.folder, "ext4", 16 * MIB, "-N", "64") as where, home_on(where, nora):
        if why == "folder":
            folder.chmod(0o500)
            then = f"chmod u+wx {folder}"
        else:
            make_read_only(where)
            then = "mount the disk of the home so that it can be written to"
        before = {path: path.read_bytes() for path in folder.iterdir()}
        answer = host.t3("restore", nora.name, "--yes", "--no-service")
        assert (answer.code, answer.err.count("\n")) == (1, 1), answer
        assert f"{nora.database} can't be put back: " in answer.err
        assert answer.err.endswith(f"; nothing was changed; next: {then}\n")
        assert {path: path.read_bytes() for path in before} == before
        assert [*folder.glob("*.replaced-*")] == []


@pytest.mark.parametrize("mode", [0o600, pytest.param(0o644, marks=pytest.mark.soak)])
def test_a_wal_of_roots_stays_with_what_a_restore_replaced(
    host: Host, nora: User, mode: int
) -> None:
    """Row 59: what is only in it is in no snapshot."""
    succeeded(host.t3("run"))
    leave_rows_in_wal(nora)
    wal = Path(f"{nora.database}-wal")
    held = wal.read_bytes()
    give_to_root(wal)
    wal.chmod(mode)
    answer = succeeded(host.t3("restore", nora.name, "--yes", "--no-service"))
    [kept] = nora.database.parent.glob("*.replaced-*-wal")
    assert kept.read_bytes() == held
    assert f"was kept at {str(kept).removesuffix('-wal')}\n" in answer.out


def test_a_journal_of_roots_is_told_by_its_name(host: Host, nora: User) -> None:
    """Row 59: whether there is something to be rolled back can't be seen."""
    with closing(sqlite3.connect(nora.database)) as database:
        database.execute("PRAGMA journal_mode=delete")
    journal = Path(f"{nora.database}-journal")
    journal.write_bytes(bytes(512))
    give_to_root(journal)
    answer = host.t3("run", "--json")
    assert answer.code == 1
    reason = answer.account(nora.name)["reason"]
    assert "state.sqlite-journal belongs to root; next: chown " in reason
    subprocess.run(reason.rpartition("next: ")[2].split(), check=True)
    succeeded(host.t3("run"))
